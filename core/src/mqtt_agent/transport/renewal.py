"""Renews a token before it expires: closes the connection, which then opens again with a fresh token."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import random
import time
from datetime import datetime

from mqtt_agent.aio.backoff import Backoff
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.credentials import Credentials, IssuedToken, Login, Password, Token
from mqtt_agent.transport.failover import Brokers
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.outbox import Outbox

__all__ = ["Renewal", "renewal_delay", "token_expiry"]

logger: logging.Logger = logger_of(__name__)

_MARGIN = 1.0
"""Seconds. A token is renewed at least this long before it expires, and at least this long after the connect."""
_FIRST_RETRY, _LONGEST_RETRY = 0.2, 30.0  # seconds


class Renewal:
    """The login of one connection. A token that expires is renewed.

    Args:
        credentials: The credentials that the user gave.
        brokers: The brokers that may be used. The user and password of the URL in use are used without credentials.
        timeout: Seconds to wait at most for confirmations before a link is ended.
        outbox: Knows which messages must be confirmed before a link is ended.
    """

    def __init__(self, credentials: Credentials | None, brokers: Brokers, timeout: float, outbox: Outbox) -> None:
        self._credentials = credentials
        self._brokers = brokers
        self._outbox = outbox
        self._timeout = timeout
        self._issued: IssuedToken | None = None  # the token of the latest connect
        self._renewed: IssuedToken | None = None  # the token for the next connect, while a renewal is under way
        self._over: asyncio.Event | None = None  # of the renewal that is under way

    @property
    def under_way(self) -> bool:
        """Whether the connection is closed for a moment because a fresh token replaces an expiring token."""
        return self._renewed is not None

    async def login(self) -> Login:
        """The user name and password for the next CONNECT packet. Credentials take precedence over the URL."""
        if self._credentials is None:
            return self._brokers.current.username, self._brokers.current.password
        if isinstance(self._credentials, Password):
            return self._credentials.username, self._credentials.password
        self._issued = self._renewed or await self._credentials.issue()
        return self._issued.username, self._issued.token

    def refused(self) -> None:
        """Note that the broker has refused the login, so that a token service is asked for another one."""
        if isinstance(self._credentials, Token) and self._issued is not None:
            self._credentials.forget(self._issued)

    async def leave_in_time(self, link: Link) -> None:
        """Wait until the token is about to expire, then end the link.

        The owner of the link opens the next link at once. Returns immediately when the login has no token that expires.
        """
        if not isinstance(self._credentials, Token) or self._issued is None:
            return
        renewed = await _successor(self._credentials, self._issued)
        if renewed is None:
            return
        logger.info("the token for %s expires soon: connecting again with a fresh token", self._brokers)
        self._renewed = renewed
        self._over = asyncio.Event()
        await self._settle(link)
        link.disconnect(end_session=False)

    def end(self) -> None:
        """Note that the next link was opened, or that there will be none."""
        self._renewed = None
        if self._over is not None:
            self._over.set()
            self._over = None

    async def wait_over(self) -> None:
        """Wait until no renewal is under way."""
        if self._over is not None:
            await self._over.wait()

    async def _settle(self, link: Link) -> None:
        """Wait until the broker has confirmed all sent messages: unconfirmed messages would be sent twice."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while loop.time() < deadline:
            unanswered = [future for future in [*self._outbox.pause(), *link.unanswered] if not future.done()]
            if not unanswered:
                return
            await asyncio.wait(unanswered, timeout=deadline - loop.time())


async def _successor(credentials: Token, issued: IssuedToken) -> IssuedToken | None:
    """Wait until a token is about to expire, then fetch its successor.

    When the user's function raises, or returns no newer token, it is called again after a growing wait. An error that
    repeats is logged once.

    Args:
        credentials: The credentials that the token came from.
        issued: The token that the connection was made with.

    Returns:
        The token for the next connect. None, immediately, when there is nothing to renew: the credentials have no
        function, nothing says when the token expires, or it has expired already by this machine's clock.
    """
    if isinstance(credentials.token, str):
        return None
    expires = _expiry_of(issued)
    remaining = 0.0 if expires is None else expires - time.time()
    if expires is None or remaining <= 0:
        return None
    await asyncio.sleep(renewal_delay(remaining))
    backoff, logged = Backoff(_FIRST_RETRY, _LONGEST_RETRY), ""
    while True:
        try:
            token = await credentials.issue()
            if logged:
                logger.warning("fetching a token works again")
                logged = ""
            if (_expiry_of(token) or math.inf) > expires:
                return token
        except Exception as error:  # the user's function may raise anything; the connection is up, so try again
            if repr(error) != logged:
                logged = repr(error)
                logger.exception("fetching a fresh token failed; it will be tried again")
        await backoff.wait()


def _expiry_of(issued: IssuedToken) -> float | None:
    """When a token expires, in seconds since the epoch; None when nothing says it."""
    if issued.expires is None:
        return token_expiry(issued.token)
    expires = issued.expires.timestamp() if isinstance(issued.expires, datetime) else issued.expires
    return expires if math.isfinite(expires) else None


def renewal_delay(remaining: float) -> float:
    """How long to wait before a token is renewed: 80 to 90 % of its life, at random.

    The random share keeps the clients of one broker from connecting all at the same time.

    Args:
        remaining: Seconds until the token expires.

    Returns:
        Seconds to wait. The token then has at least one second left. But the wait is never shorter than one second.
    """
    return max(_MARGIN, min(random.uniform(0.8, 0.9) * remaining, remaining - _MARGIN))


def token_expiry(token: str) -> float | None:
    """Read the time at which a JWT expires. The signature is not verified: that is the broker's task.

    Args:
        token: Any token. A JWT has three parts in base64url with dots between them; the second is a JSON object.

    Returns:
        The ``exp`` claim in seconds since the epoch. None when the token is not a JWT or has no readable ``exp``.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        expires = float(json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))["exp"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return expires if math.isfinite(expires) else None
