"""Who calls over HTTP or gRPC: by a bearer token, an API key, a password, a JWT, or a client certificate."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl

from a2a.types import a2a_pb2 as a2a
from mqtt_agent.adapting.bearers import Identity, check_distinct

if TYPE_CHECKING:
    from a2a_mqtt_agent.tokens import TokenIssuer

__all__ = ["API_KEY", "API_KEY_PARAMETER", "Authentication", "KeyPlace"]

API_KEY = "X-API-Key"
"""The header with a caller's API key."""
API_KEY_PARAMETER = "api_key"
"""The name of a caller's API key in the query of the address, and of a cookie with it."""

KeyPlace = Literal["header", "query", "cookie"]
"""Where an API key may be."""
_SCHEMES: dict[KeyPlace, tuple[str, str]] = {
    "header": ("apiKey", API_KEY),
    "query": ("apiKeyQuery", API_KEY_PARAMETER),
    "cookie": ("apiKeyCookie", API_KEY_PARAMETER),
}
"""The security scheme of each place, and the name of the key there."""


class Authentication:
    """Finds the identity of a caller. Secrets are compared by their digests, so that the time tells nothing about them.

    Args:
        identities: The callers. One identity without any proof stands for every caller.
        issuer: The issuer of the tokens of the identities with a ``subject``. It needs ``a2a-mqtt-agent[auth]``.
        api_key_in: Where API keys may be.

    Raises:
        ValueError: The identities cannot be told apart, a ``subject`` has no issuer, or a place is unknown.
        OSError: The file with the keys of the issuer cannot be read.
    """

    def __init__(
        self,
        identities: Sequence[Identity],
        issuer: TokenIssuer | None = None,
        api_key_in: Sequence[KeyPlace] = ("header",),
    ) -> None:
        check_distinct(identities)
        if not api_key_in or not set(api_key_in) <= _SCHEMES.keys():
            raise ValueError(
                f"an API key can be in {', '.join(_SCHEMES)}, and not in {', '.join(api_key_in) or 'nothing'}"
            )
        self._places = tuple(dict.fromkeys(api_key_in))
        self._by_proof: dict[bytes, Identity] = {}
        self._kinds: list[str] = []
        for identity in identities:
            for kind, proof in identity.proofs.items():
                self._by_proof[_digest(kind, proof)] = identity
                if kind not in self._kinds:
                    self._kinds.append(kind)
        self._everybody: Identity | None = None if self._kinds else identities[0]
        if ("subject" in self._kinds) != (issuer is not None):
            raise ValueError("identities with a subject need an issuer of tokens, and an issuer needs such identities")
        self._tokens = None
        if issuer is not None:
            from a2a_mqtt_agent.tokens import Tokens

            self._tokens = Tokens(issuer)

    @property
    def needed(self) -> bool:
        """Whether a caller must prove who it is."""
        return self._everybody is None

    async def prepare(self, headers: Mapping[str, str]) -> None:
        """Fetch what :meth:`identity_of` needs for a request with these headers."""
        scheme, value = _authorization(headers)
        if self._tokens is not None and scheme == "bearer" and _digest("bearer", value) not in self._by_proof:
            await self._tokens.prepare(value)

    def identity_of(
        self, headers: Mapping[str, str], certificate: str | None = None, query: str = ""
    ) -> Identity | None:
        """The identity of a caller; None when the caller must not speak.

        All proofs in the headers must be valid and of one identity. The certificate counts when there is none.

        Args:
            headers: The headers of the request, with names in lower case.
            certificate: The common name in the client's certificate, which the server has verified.
            query: The query of the address.
        """
        if self._everybody is not None:
            return self._everybody
        found: list[Identity | None] = []
        if "authorization" in headers:
            found.append(self._by_authorization(headers))
        found += [self._by_proof.get(_digest("api_key", key)) for key in self._keys_in(headers, query)]
        if not found and certificate is not None:
            found.append(self._by_proof.get(_digest("certificate", certificate)))
        return found[0] if found and all(each is found[0] for each in found) else None

    def _keys_in(self, headers: Mapping[str, str], query: str) -> list[str]:
        """The API keys of a request, at the places where they may be."""
        keys = list[str]()
        if "header" in self._places and API_KEY.lower() in headers:
            keys.append(headers[API_KEY.lower()].strip())
        if "query" in self._places:
            keys += [value for name, value in parse_qsl(query, keep_blank_values=True) if name == API_KEY_PARAMETER]
        if "cookie" in self._places and "cookie" in headers:
            keys += _cookies(headers["cookie"])
        return keys

    def _by_authorization(self, headers: Mapping[str, str]) -> Identity | None:
        scheme, value = _authorization(headers)
        if scheme == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return None
            return self._by_proof.get(_digest("basic", value))
        if scheme != "bearer" or not value:
            return None
        identity = self._by_proof.get(_digest("bearer", value))
        if identity is None and self._tokens is not None:
            subject = self._tokens.subject_of(value)
            identity = None if subject is None else self._by_proof.get(_digest("subject", subject))
        return identity

    @property
    def challenges(self) -> str:
        """The header ``WWW-Authenticate`` for a caller without a valid proof."""
        bearer = ["Bearer"] if {"bearer", "subject"}.intersection(self._kinds) else []
        return ", ".join([*bearer, *(['Basic realm="a2a"'] if "basic" in self._kinds else [])])

    @property
    def wanted(self) -> str:
        """What a caller needs, for people."""
        words = {
            "bearer": "a bearer token",
            "api_key": "an API key in " + " or ".join(f"the {each} {_SCHEMES[each][1]}" for each in self._places),
            "basic": "a name and a password",
            "subject": "a token of the issuer",
            "certificate": "a client certificate",
        }
        return " or ".join(words[kind] for kind in self._kinds) + " is needed"

    def show(self, card: a2a.AgentCard) -> None:
        """Add the security schemes to a card: each is enough."""
        if "bearer" in self._kinds:
            card.security_schemes["bearer"].http_auth_security_scheme.scheme = "bearer"
            _require(card, "bearer")
        if "api_key" in self._kinds:
            for place in self._places:
                name, key = _SCHEMES[place]
                scheme = card.security_schemes[name].api_key_security_scheme
                scheme.location, scheme.name = place, key
                _require(card, name)
        if "basic" in self._kinds:
            card.security_schemes["basic"].http_auth_security_scheme.scheme = "basic"
            _require(card, "basic")
        if "certificate" in self._kinds:
            card.security_schemes["mtls"].mtls_security_scheme.description = "A client certificate"
            _require(card, "mtls")
        if self._tokens is not None:
            _show_issuer(card, self._tokens.issuer)


def _show_issuer(card: a2a.AgentCard, issuer: TokenIssuer) -> None:
    scopes = () if issuer.scope is None else (issuer.scope,)
    if issuer.openid_url is not None:
        card.security_schemes["openIdConnect"].open_id_connect_security_scheme.open_id_connect_url = issuer.openid_url
        _require(card, "openIdConnect", scopes)
    if issuer.token_url is not None:
        flows = card.security_schemes["oauth2"].oauth2_security_scheme.flows
        flow = flows.client_credentials
        if issuer.authorization_url is not None:  # a card has one flow
            flow = flows.authorization_code
            flow.authorization_url, flow.pkce_required = issuer.authorization_url, True
        elif issuer.device_url is not None:
            flow = flows.device_code
            flow.device_authorization_url = issuer.device_url
        flow.token_url = issuer.token_url
        for scope in scopes:
            flow.scopes[scope] = scope
        _require(card, "oauth2", scopes)
    if issuer.openid_url is None and issuer.token_url is None:
        scheme = card.security_schemes["jwt"].http_auth_security_scheme
        scheme.scheme, scheme.bearer_format = "bearer", "JWT"
        scheme.description = f"A token of {issuer.issuer} for {issuer.audience}"
        _require(card, "jwt")


def _cookies(header: str) -> list[str]:
    """The API key among the cookies; an empty text, which is no key, when they cannot be read."""
    try:
        found = SimpleCookie(header).get(API_KEY_PARAMETER)
    except CookieError:
        return [""]
    return [] if found is None else [found.value]


def _require(card: a2a.AgentCard, name: str, scopes: Sequence[str] = ()) -> None:
    card.security_requirements.add().schemes[name].list.extend(scopes)


def _authorization(headers: Mapping[str, str]) -> tuple[str, str]:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return scheme.lower(), value.strip()


def _digest(kind: str, proof: str) -> bytes:
    return hashlib.sha256(f"{kind}\n{proof}".encode(errors="surrogatepass")).digest()
