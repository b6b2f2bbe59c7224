"""Tokens of OAuth 2 and OpenID Connect: JWTs whose signatures are checked with the public keys of their issuer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
from mqtt_agent.adapting.logs import logger_of

from a2a_mqtt_agent.bounds import hooks
from a2a_mqtt_agent.settings_file import is_https, read_strings
from a2a_mqtt_agent.signing import keys_of

if TYPE_CHECKING:
    from jwt import PyJWK

__all__ = ["TokenIssuer", "Tokens"]

logger: logging.Logger = logger_of(__name__)

_KEPT = 3600.0
"""Seconds after which the keys of an address are fetched again."""
_OLDEST = 24 * 3600.0
"""Seconds for which keys are used that cannot be fetched again: a key that was withdrawn must not count for ever."""
_PAUSE = 30.0
"""Seconds between two requests for the keys. Strangers can make up key ids, and must not cause a request each."""
_MAX_KEYS = 1024 * 1024
_LEEWAY = 30.0


@dataclass(frozen=True)
class TokenIssuer:
    """An OAuth 2 or OpenID Connect server whose tokens callers have.

    Attributes:
        issuer: The claim ``iss`` of each token.
        audience: What the claim ``aud`` must have: the name of this gateway at the issuer.
        jwks: The public keys of the issuer: a JWKS file, or an https address.
        claim: The claim that names the caller; it is compared with ``subject`` of each :class:`Identity`.
        scope: A scope that each token needs; None for none.
        openid_url: The address of the OpenID Connect configuration, for the cards.
        token_url: The address at which a client gets tokens with its own secret, for the cards.
        authorization_url: The address at which a person allows a client to get tokens, for the cards.
        device_url: The address at which a device without a browser asks for a code, for the cards.

    Raises:
        ValueError: The address of the keys is not https.
    """

    issuer: str
    audience: str
    jwks: str
    claim: str = "sub"
    scope: str | None = None
    openid_url: str | None = None
    token_url: str | None = None
    authorization_url: str | None = None
    device_url: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None and not is_https(self.url):
            raise ValueError(f"the keys of {self.issuer} must come from an https address, not from {self.jwks}")

    @property
    def url(self) -> str | None:
        """The address of the keys; None for a file."""
        return self.jwks if "://" in self.jwks else None

    @classmethod
    def load(cls, path: str | PathLike[str]) -> TokenIssuer:
        """Read a file of JSON with these attributes. A relative path in ``jwks`` starts at the folder of the file.

        Raises:
            ValueError: The file is no such JSON.
            OSError: The file cannot be read.
        """
        path = Path(path).expanduser()
        given = read_strings(path, cls.__dataclass_fields__, needed=("issuer", "audience", "jwks"))
        if "://" not in given["jwks"]:
            given["jwks"] = str(path.parent / given["jwks"])
        return cls(**given)


class Tokens:
    """Checks the tokens of an issuer.

    Keys of an address are fetched again after an hour. When this fails, the earlier keys count for a day, with a
    warning at each failure, and then no token is accepted until the keys were fetched.

    Args:
        issuer: The issuer.
        clock: Returns a time in seconds.

    Raises:
        ValueError: The file of keys has no keys.
        OSError: The file of keys cannot be read.
    """

    def __init__(self, issuer: TokenIssuer, clock: Callable[[], float] = time.monotonic) -> None:
        self.issuer: TokenIssuer = issuer
        self._clock = clock
        self._keys: dict[str, PyJWK] = {} if issuer.url is not None else keys_of(issuer.jwks)
        self._fetched = self._tried = float("-inf")
        self._fetching = asyncio.Lock()

    async def prepare(self, token: str) -> None:
        """Fetch the keys of the issuer, if a token may need newer ones."""
        if self.issuer.url is None or not self._needs_keys(token):
            return
        async with self._fetching:
            if self._needs_keys(token):
                self._tried = self._clock()
                await self._fetch(self.issuer.url)

    def _needs_keys(self, token: str) -> bool:
        now = self._clock()
        if now - self._tried < _PAUSE:
            return False
        kid = _kid_of(token)
        return kid is not None and (kid not in self._keys or now - self._fetched > _KEPT)

    async def _fetch(self, url: str) -> None:
        try:
            async with httpx.AsyncClient(timeout=10, follow_redirects=False, event_hooks=hooks(_MAX_KEYS)) as http:
                answer = await http.get(url)
                answer.raise_for_status()
                found: Any = answer.json()
                if not isinstance(found, dict):
                    raise ValueError("the answer is no JSON object")
                self._keys = keys_of(cast("dict[str, Any]", found))
                self._fetched = self._clock()
        except (httpx.HTTPError, ValueError) as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        name, why = self.issuer.issuer, str(error) or type(error).__name__
        left = self._fetched + _OLDEST - self._clock()
        if not self._keys:
            logger.warning("the keys of %s were not fetched, so its tokens are refused: %s", name, why)
        elif left > 0:
            what = "the keys of %s were not fetched again; the earlier ones count for %.1f hours more: %s"
            logger.warning(what, name, left / 3600, why)
        else:
            what = "the keys of %s were not fetched for %.0f hours, so its tokens are refused until they are: %s"
            logger.error(what, name, _OLDEST / 3600, why)

    def subject_of(self, token: str) -> str | None:
        """Who has a token; None when the token is not valid."""
        import jwt  # after the import of ``signing``, which says what to install

        kid = _kid_of(token)
        key = None if kid is None else self._keys.get(kid)
        if key is None or (self.issuer.url is not None and self._clock() - self._fetched > _OLDEST):
            return None
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[str(key.algorithm_name)],
                audience=self.issuer.audience,
                issuer=self.issuer.issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iss", "aud", self.issuer.claim]},
            )
        except jwt.PyJWTError as error:
            logger.info("a token was refused: %s", error)
            return None
        subject, scopes = claims.get(self.issuer.claim), claims.get("scope", "")
        scopes = scopes.split() if isinstance(scopes, str) else scopes
        if self.issuer.scope is not None and not (isinstance(scopes, list) and self.issuer.scope in scopes):
            logger.info("a token of %r was refused: it has not the scope %s", subject, self.issuer.scope)
            return None
        return subject if isinstance(subject, str) else None


def _kid_of(token: str) -> str | None:
    """The id of a token's key; None for a text that is no JWT, or a JWT without a key id."""
    import jwt

    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except jwt.PyJWTError:
        return None
    return kid if isinstance(kid, str) else None
