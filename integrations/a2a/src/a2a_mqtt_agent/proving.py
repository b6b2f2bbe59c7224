"""How this side proves to a remote A2A agent who it is: each way that the card of an A2A agent can ask for."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx
from a2a.client.errors import A2AClientError
from a2a.types import a2a_pb2 as a2a
from typing_extensions import override

from a2a_mqtt_agent.bounds import AnswerTooLarge, hooks
from a2a_mqtt_agent.settings_file import is_https, read_strings

__all__ = ["Login", "LoginAuth", "NoToken"]

API_KEY = "X-API-Key"
_EARLY = 30.0
"""Seconds before its end at which a token is not used any more."""
_TIMEOUT = 10.0
_MOST = 64 * 1024
"""Bytes of the answer with a token."""


class NoToken(A2AClientError):
    """The server of tokens has given no token, so the remote agent was asked nothing."""


@dataclass(frozen=True)
class Login:
    """What proves to a remote agent who speaks. Several proofs are sent together.

    Attributes:
        bearer: A token, for HTTP's ``bearer``, OAuth 2 and OpenID Connect.
        basic: A name and a password, as ``name:password``.
        api_key: An API key. The card says where the key goes: in a header, the query, or a cookie.
        token_url: The address at which OAuth 2 tokens are fetched, with the grant ``client_credentials``. It is never
            taken from a card, because whoever writes the card would get the secret.
        client_id: The name of this client at ``token_url``.
        client_secret: The secret of this client at ``token_url``.
        scope: The scopes that are asked for, with spaces between them; None for none.
        certificate: The PEM file of the own TLS certificate.
        key: The PEM file of its private key.
        ca: The PEM file of the authority of the remote agent's certificate; None means those of the operating system.

    Raises:
        ValueError: Values that belong together are not all there, or ``token_url`` is not https.
    """

    bearer: str | None = field(default=None, repr=False)
    basic: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    token_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    scope: str | None = None
    certificate: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None
    ca: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.bearer, self.basic, self.token_url)) > 1:
            raise ValueError("bearer, basic and token_url are three ways to fill one header: give one of them")
        if len({each is None for each in (self.token_url, self.client_id, self.client_secret)}) > 1:
            raise ValueError("token_url, client_id and client_secret belong together")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.basic is not None and not all(self.basic.partition(":")):
            raise ValueError("basic must have the form name:password")
        if self.token_url is not None and not is_https(self.token_url):
            raise ValueError("token_url must be an https address")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Login:
        """Read a file of JSON with these attributes. Relative paths start at the folder of the file.

        Raises:
            ValueError: The file is no such JSON.
            OSError: The file cannot be read.
        """
        path = Path(path).expanduser()
        given = read_strings(path, cls.__dataclass_fields__)
        files = {name: str(path.parent / given[name]) for name in ("certificate", "key", "ca") if name in given}
        return cls(**{**given, **files})  # pyright: ignore[reportArgumentType]

    def verify(self) -> ssl.SSLContext | bool:
        """What httpx needs for TLS.

        Raises:
            OSError: A file cannot be read, or is no certificate.
        """
        files = [each for each in (self.ca, self.certificate, self.key) if each is not None]
        if not files:
            return True
        for file in files:
            Path(file).read_bytes()  # the errors of the TLS library do not name the file
        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
        except ssl.SSLError as error:
            raise OSError(f"{self.ca} has no certificates (PEM): {error.reason or error}") from error
        if self.certificate is not None:
            try:
                # Without a password, OpenSSL would ask in the terminal for that of the key.
                context.load_cert_chain(self.certificate, self.key, "")
            except ssl.SSLError as error:
                what = f"{self.certificate} and {self.key} are no certificate with its private key without a password"
                raise OSError(f"{what} (PEM): {error.reason or error}") from error
        return context


class LoginAuth(httpx.Auth):
    """Adds the proofs to the requests to one host, and fetches tokens when they are needed.

    Args:
        login: The proofs.
        card: The card of the remote agent, which says where an API key goes.
        base: The address of the remote agent. Other hosts get no proof, whatever the card says.
    """

    def __init__(self, login: Login, card: a2a.AgentCard, base: httpx.URL) -> None:
        self._login = login
        self._base = base
        self._headers = dict[str, str]()
        self._query: tuple[str, str] | None = None
        if login.bearer is not None:
            self._headers["Authorization"] = f"Bearer {login.bearer}"
        if login.basic is not None:
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.basic.encode()).decode()}"
        if login.api_key is not None:
            location, name = _place_of_key(card)
            if location == "query":
                self._query = (name, login.api_key)
            elif location == "cookie":
                self._headers["Cookie"] = f"{name}={login.api_key}"
            else:
                self._headers[name] = login.api_key
        self._token: tuple[str, float] = ("", 0.0)
        self._fetching = asyncio.Lock()

    @override
    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        there, base = request.url, self._base
        if (there.scheme, there.host, there.port) != (base.scheme, base.host, base.port):
            yield request
            return
        request.headers.update(self._headers)
        if self._query is not None:
            # The address of the request stands in errors, which the requester of a task is told, and in logs.
            request.extensions["target"] = request.url.copy_merge_params(dict([self._query])).raw_path
        if self._login.token_url is None:
            yield request
            return
        token = await self._fresh("")
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:  # the token was withdrawn before its end
            request.headers["Authorization"] = f"Bearer {await self._fresh(token)}"
            request.url = there  # Pinning has put an address in the place of the name, which TLS needs
            yield request

    async def _fresh(self, refused: str) -> str:
        async with self._fetching:
            token, until = self._token
            if token in ("", refused) or time.monotonic() > until:
                token, seconds = await _fetch(self._login)
                self._token = token, time.monotonic() + seconds - _EARLY
            return token


def _place_of_key(card: a2a.AgentCard) -> tuple[str, str]:
    """Where the card wants an API key: the first place of a scheme that the card demands, or that it has."""
    demanded = [name for each in card.security_requirements for name in each.schemes]
    for name in [*demanded, *card.security_schemes]:
        if name in card.security_schemes and card.security_schemes[name].HasField("api_key_security_scheme"):
            scheme = card.security_schemes[name].api_key_security_scheme
            return scheme.location.lower(), scheme.name
    return "header", API_KEY


async def _fetch(login: Login) -> tuple[str, float]:
    """A new token, and the seconds for which it holds.

    Raises:
        httpx.TransportError: The server was not reached.
        NoToken: The server has given no token.
    """
    form = {"grant_type": "client_credentials", **({} if login.scope is None else {"scope": login.scope})}
    pair = (quote(login.client_id or "", safe=""), quote(login.client_secret or "", safe=""))  # RFC 6749, 2.3.1
    options: dict[str, Any] = {"timeout": _TIMEOUT, "follow_redirects": False, "event_hooks": hooks(_MOST)}
    async with httpx.AsyncClient(verify=login.verify(), **options) as http:
        try:
            answer = await http.post(str(login.token_url), data=form, auth=pair)
        except AnswerTooLarge as error:
            raise NoToken(f"{login.token_url} has given no token to {login.client_id}: {error}") from error
    try:
        if not answer.is_success:
            raise httpx.HTTPStatusError(f"status {answer.status_code}", request=answer.request, response=answer)
        value: Any = answer.json()
        given = cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}
        token, seconds = given.get("access_token"), given.get("expires_in", 300)
        if (
            not isinstance(token, str)
            or not token.isascii()
            or not token
            or str(given.get("token_type", "bearer")).lower() != "bearer"
        ):
            raise ValueError("the answer has no bearer token")
        return token, float(seconds)
    except (httpx.HTTPStatusError, ValueError, TypeError) as error:
        # Neither the secret nor the text of the answer is told.
        raise NoToken(f"{login.token_url} has given no token to {login.client_id}: {error}") from error
