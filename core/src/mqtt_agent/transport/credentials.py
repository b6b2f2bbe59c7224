"""Credentials: the user name and password, or the token, that the broker checks at each connect."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Union

from mqtt_agent.errors import WireError
from mqtt_agent.transport.packing import pack_string

__all__ = ["Credentials", "IssuedToken", "Login", "Password", "Token", "TokenSource", "check_login"]


@dataclass(frozen=True)
class IssuedToken:
    """A token with what a token service says about it. The function of a :class:`Token` may return it.

    Args:
        token: The token or password, which is sent in MQTT's password field. It never appears in logs, reprs or errors.
        username: The MQTT user name. None takes the ``username`` of the :class:`Token`.
        expires: When the token expires: a ``datetime`` with a time zone, or seconds since the epoch. Before that time,
            the function is asked for the next token. None takes the ``exp`` claim of a JWT.

    Raises:
        ValueError: ``expires`` has no time zone.
    """

    token: str = field(repr=False)
    username: str | None = None
    expires: datetime | float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.expires, datetime) and self.expires.tzinfo is None:
            raise ValueError("expires has no time zone: use datetime.now(timezone.utc) + timedelta(...), or seconds")


TokenSource = Union[str, Callable[[], Union[str, IssuedToken, Awaitable[Union[str, IssuedToken]]]]]
"""A token, or a function (plain or async) that returns a token as text or as an :class:`IssuedToken`."""
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
            JWTs, or an :class:`IssuedToken` says when it expires, the connection is closed and opened again with a
            fresh token before that time. No call is lost.
        username: The MQTT user name, for brokers that want a user name beside the token.
    """

    token: TokenSource = field(repr=False)
    username: str | None = None

    async def issue(self) -> IssuedToken:
        """The token to connect with now.

        Raises:
            TypeError: The function returned something else than a token.
        """
        token = self.token if isinstance(self.token, str) else self.token()
        token = await token if inspect.isawaitable(token) else token
        if isinstance(token, str):
            return IssuedToken(token, self.username)
        if not isinstance(token, IssuedToken):  # pyright: ignore[reportUnnecessaryIsInstance]
            kind = type(token).__name__
            raise TypeError(
                f"the function of a Token must return a str or an IssuedToken, and it returned the type {kind}"
            )
        return token if token.username is not None else replace(token, username=self.username)

    def forget(self, issued: IssuedToken) -> None:
        """Note that the broker has refused a token. A function is asked for each token, so nothing is kept here."""


Credentials = Union[Password, Token]
"""The values that a user may give as ``credentials``."""


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
