"""A token that expires: the connection is left in good order before that, and made again with a fresh one."""

from __future__ import annotations

import asyncio
import logging

from mqtt_agent.transport.credentials import Credentials, Login, renewed_login, username_password
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.outbox import Outbox
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Renewal"]

logger: logging.Logger = logging.getLogger(__name__)


class Renewal:
    """The login of one connection, now and when it has to be renewed.

    Args:
        credentials: What the user gave.
        url: The broker; its user and password count where there are no credentials.
        outbox: What is sent, which must be confirmed before a link is left.
        timeout: Seconds that the broker gets to confirm it.
    """

    def __init__(self, credentials: Credentials | None, url: BrokerURL, outbox: Outbox, timeout: float) -> None:
        self._credentials = credentials
        self._url = url
        self._outbox = outbox
        self._timeout = timeout
        self._login: Login = (None, None)
        self._renewed: Login | None = None  # what to come back with, while it is under way
        self._over = asyncio.Event()

    @property
    def under_way(self) -> bool:
        """Whether a fresh token takes the place of one that expires: the connection will be back in a moment."""
        return self._renewed is not None

    async def login(self) -> Login:
        """User name and password for the next CONNECT."""
        self._login = self._renewed or await username_password(self._credentials, self._url)
        return self._login

    async def leave_in_time(self, link: Link) -> None:
        """Before the token expires, end the link; whoever made it comes back at once. Returns at once without one."""
        renewed = await renewed_login(self._credentials, self._login)
        if renewed is None:
            return
        logger.info("the token for %s expires soon: connecting with a fresh one", self._url)
        self._renewed = renewed
        self._over.clear()
        await self._settle(link)
        link.disconnect(end_session=False)

    def end(self) -> None:
        """The connection is back, or will not come back."""
        self._renewed = None
        self._over.set()

    async def wait_over(self) -> None:
        """Wait until no renewal is under way."""
        if self._renewed is not None:
            await self._over.wait()

    async def _settle(self, link: Link) -> None:
        """Wait for the broker's answers to what was sent: what it has not confirmed would be sent twice."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while loop.time() < deadline:
            unanswered = [future for future in [*self._outbox.pause(), *link.unanswered] if not future.done()]
            if not unanswered:
                return
            await asyncio.wait(unanswered, timeout=deadline - loop.time())
