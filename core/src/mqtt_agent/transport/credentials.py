"""Who we are, towards the broker."""

from __future__ import annotations

import inspect
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Union

from mqtt_agent.transport.url import BrokerURL

__all__ = ["TLS", "Credentials", "Password", "Token", "tls_context", "username_password"]

TokenSource = Union[str, Callable[[], Union[str, Awaitable[str]]]]


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
        token: The token, or a function (plain or async) that returns it and is asked again before each connect.
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
        OSError: A file cannot be read, or is no certificate or key.
    """
    if isinstance(tls, ssl.SSLContext):
        return tls
    tls = tls or TLS()
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key, tls.key_password)
    return context


async def username_password(credentials: Credentials | None, url: BrokerURL) -> tuple[str | None, str | None]:
    """What goes into CONNECT; explicit credentials win over those in the URL."""
    if credentials is None:
        return url.username, url.password
    if isinstance(credentials, Password):
        return credentials.username, credentials.password
    return credentials.username, await credentials.current()
