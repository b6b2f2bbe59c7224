"""Who we are, towards the broker."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import math
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Union

from mqtt_agent.transport.url import BrokerURL

__all__ = [
    "TLS",
    "Credentials",
    "Login",
    "Password",
    "Token",
    "renewal_delay",
    "renewed_login",
    "tls_context",
    "token_expiry",
    "username_password",
]

logger: logging.Logger = logging.getLogger(__name__)

TokenSource = Union[str, Callable[[], Union[str, Awaitable[str]]]]
Login = tuple[Union[str, None], Union[str, None]]
"""The user name and the password of a CONNECT, each of which may be missing."""

_MARGIN = 1.0  # seconds before its end that a token is renewed at the latest, and after the connect at the earliest
_RETRY_FIRST, _RETRY_MAX = 0.2, 30.0


@dataclass(frozen=True)
class Password:
    """A user name and a password.

    Args:
        username: The MQTT user name.
        password: Kept out of logs, reprs and errors.
    """

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Token:
    """A token, such as a JWT, in MQTT's password field.

    Args:
        token: The token, or a function (plain or async) that returns it and is asked again before each connect. It is
            called on the event loop: one that asks another server should be async. When it gives JWTs, the connection
            is made anew with a fresh one before the time in their ``exp``; no call is lost over that.
        username: The MQTT user name, for brokers that want one beside the token.
    """

    token: TokenSource = field(repr=False)
    username: str | None = None

    async def current(self) -> str:
        """The token to connect with now."""
        if isinstance(self.token, str):
            return self.token
        token = self.token()
        return await token if inspect.isawaitable(token) else token


Credentials = Union[Password, Token]


@dataclass(frozen=True)
class TLS:
    """Certificates as files.

    Args:
        ca: Certificates that may have signed the broker's, PEM; None trusts the system's.
        certificate: Our own certificate, PEM, for brokers that ask for one.
        key: Its private key, PEM.
        key_password: The key's password, if it has one.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    key_password: str | None = field(default=None, repr=False)


def tls_context(tls: ssl.SSLContext | TLS | None) -> ssl.SSLContext:
    """The SSL context that ``tls`` describes; None gives the system's defaults.

    Raises:
        OSError: A file cannot be read, or is no certificate or key, or the key's password is wrong or missing.
    """
    if isinstance(tls, ssl.SSLContext):
        return tls
    tls = tls or TLS()
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:  # ssl does not say which file
        raise _tls_error(error, f"TLS(ca={_path(tls.ca)})", "is no certificate in PEM") from error
    if tls.certificate:
        try:
            # An empty password, for without any OpenSSL would ask the terminal for one.
            context.load_cert_chain(tls.certificate, tls.key, tls.key_password or "")
        except OSError as error:
            what = f"TLS(certificate={_path(tls.certificate)}, key={_path(tls.key)})"
            problem = "are not a certificate and its key in PEM, or key_password is wrong or missing"
            raise _tls_error(error, what, problem) from error
    return context


def _path(path: str | os.PathLike[str] | None) -> str:
    return repr(os.fspath(path)) if path is not None else "None"


def _tls_error(error: OSError, what: str, problem: str) -> OSError:
    if isinstance(error, ssl.SSLError):
        return OSError(f"{what}: {problem} ({error.reason or error})")
    return type(error)(error.errno, f"{what}: {error.strerror}")


async def username_password(credentials: Credentials | None, url: BrokerURL) -> Login:
    """What goes into CONNECT; explicit credentials win over those in the URL."""
    if credentials is None:
        return url.username, url.password
    if isinstance(credentials, Password):
        return credentials.username, credentials.password
    return credentials.username, await credentials.current()


def token_expiry(token: str) -> float | None:
    """When a JWT expires, by its own account: nothing is verified, for that is the broker's part.

    Args:
        token: Three parts in base64url with dots between them, of which the second is a JSON object.

    Returns:
        ``exp``, seconds since the epoch; None for what is no JWT, or one without a readable ``exp``.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        expires = float(json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))["exp"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return expires if math.isfinite(expires) else None


def renewal_delay(remaining: float) -> float:
    """When to renew a token: after 80 to 90 % of its life, for not all clients of a broker should come at once.

    Args:
        remaining: Seconds until it expires.

    Returns:
        Seconds to wait: so many that one second of its life is left, but never less than one second.
    """
    return max(_MARGIN, min(random.uniform(0.8, 0.9) * remaining, remaining - _MARGIN))


async def renewed_login(credentials: Credentials | None, login: Login) -> Login | None:
    """Wait until a token nears its end, then fetch its successor.

    A function that raises, or has no newer token yet, is asked again with backoff. Each error is logged once.

    Args:
        credentials: Where ``login`` came from.
        login: What the connection was made with.

    Returns:
        What to connect with next; None, at once, when there is nothing to renew: no :class:`Token` with a function, no
        JWT with an ``exp``, or one that has expired already, by our clock.
    """
    if not isinstance(credentials, Token) or isinstance(credentials.token, str):
        return None
    expires = token_expiry(login[1] or "")
    remaining = 0.0 if expires is None else expires - time.time()
    if expires is None or remaining <= 0:
        return None
    await asyncio.sleep(renewal_delay(remaining))
    attempt, logged = 0, ""
    while True:
        try:
            token = await credentials.current()
            if (token_expiry(token) or math.inf) > expires:
                return credentials.username, token
        except Exception as error:  # whatever the function raises: the connection is up, and the next try may do better
            if repr(error) != logged:
                logged = repr(error)
                logger.exception("a fresh token could not be fetched, will go on trying")
        await asyncio.sleep(random.uniform(0.5, 1) * min(_RETRY_MAX, _RETRY_FIRST * 2**attempt))
        attempt = min(attempt + 1, 20)
