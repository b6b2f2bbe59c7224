"""Credentials: the user name and password, or the token, that the broker checks at each connect."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Union

from mqtt_agent.errors import WireError
from mqtt_agent.transport.packing import pack_string
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Credentials", "Login", "Password", "Token", "TokenSource", "check_login", "username_password"]

TokenSource = Union[str, Callable[[], Union[str, Awaitable[str]]]]
"""A token, or a function (plain or async) that returns a token."""
Login = tuple[Union[str, None], Union[str, None]]
"""The user name and the password of a CONNECT packet. Either may be missing."""


@dataclass(frozen=True)
class Password:
    """A user name and a password.

    Args:
        username: The MQTT user name.
        password: The MQTT password. It never appears in logs, reprs or errors.
    """

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Token:
    """A token, such as a JWT, which is sent in MQTT's password field.

    Args:
        token: The token, or a function (plain or async) that returns the token. The function is called before each
            connect, on the event loop, so a function that asks another server should be async. When the tokens are
            JWTs, the connection is closed and opened again with a fresh token before the time in their ``exp`` claim.
            No call is lost.
        username: The MQTT user name, for brokers that want a user name beside the token.
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
"""The values that a user may give as ``credentials``."""


async def username_password(credentials: Credentials | None, url: BrokerURL) -> Login:
    """The user name and password for a CONNECT packet; ``credentials`` take precedence over the URL."""
    if credentials is None:
        return url.username, url.password
    if isinstance(credentials, Password):
        return credentials.username, credentials.password
    return credentials.username, await credentials.current()


def check_login(login: Login) -> Login:
    """Return a user name and password when a CONNECT packet can hold them.

    Raises:
        WireError: One of them is longer than 65,535 bytes, or the user name has a character for which brokers close the
            connection. The error does not contain the password.
    """
    username, password = login
    if username is not None:
        pack_string(username, "the user name")
    size = 0 if password is None else len(password.encode(errors="surrogatepass"))
    if size > 65_535:
        raise WireError(f"the password or token has {size:,} bytes, and MQTT can carry at most 65,535")
    if password is not None and size != len(password.encode(errors="replace")):
        raise WireError("the password or token has a lone surrogate, which no UTF-8 can hold")
    return login
