"""Starts a shared connection for its first endpoint, and stops it after its last endpoint or on a permanent failure."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from mqtt_agent.aio.lifecycle import Lifecycle, surely
from mqtt_agent.errors import ConnectedBeforeFork, ConnectionLost, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.dialer import Dialer
from mqtt_agent.transport.outbox import Outbox
from mqtt_agent.transport.reconnect import Reconnector
from mqtt_agent.transport.renewal import Renewal
from mqtt_agent.transport.subscriber import Subscriber

__all__ = ["Lifetime"]

logger: logging.Logger = logger_of(__name__)

_SENT_WITHIN = 5.0
"""Seconds that a stop waits until the broker has confirmed the messages."""


class Lifetime:
    """Counts the endpoints that use a connection, and knows whether the connection can be used.

    Args:
        dialer: Opens each link.
        subscriber: Makes the subscriptions over each link.
        outbox: Sends the messages over each link.
        renewal: Ends a link whose token is about to expire.
    """

    def __init__(self, dialer: Dialer, subscriber: Subscriber, outbox: Outbox, renewal: Renewal) -> None:
        self.users: int = 0
        """How many endpoints use the connection."""
        self.failure: TransportError | None = None
        """Why the connection has failed permanently."""
        self.inherited: ConnectedBeforeFork | None = None
        """Set in a child process, when the connection was started before ``os.fork()``."""
        self.on_reconnected: list[Callable[[bool], Awaitable[None]]] = []
        """See :class:`Connection`."""
        self.on_failed: list[Callable[[TransportError], None]] = []
        """See :class:`Connection`."""
        self.on_refused: list[Callable[[TransportError], None]] = []
        """See :class:`Connection`."""
        self._url = dialer.brokers
        self._dialer = dialer
        self._subscriber = subscriber
        self._outbox = outbox
        self._renewal = renewal
        self._usable = False
        self._lifecycle = Lifecycle(lambda: f"the connection of {dialer.client_id} to {self._url}")
        self.reconnector: Reconnector = self._make_reconnector()
        """Keeps the link open. Each life of the connection has a reconnector of its own."""

    def _make_reconnector(self) -> Reconnector:
        parts = self._dialer, self._subscriber, self._outbox, self._renewal
        return Reconnector(*parts, self.on_reconnected, self.on_refused, self._fail)

    async def start(self) -> None:
        """See :meth:`Connection.start`."""
        self.check_process()
        async with self._lifecycle.turn():
            if self.users > 0 and self.failure is not None:
                raise self.failure
            if self.users == 0:
                self.failure = None
                self.reconnector = self._make_reconnector()
                self._usable = True  # messages that waited in the session may be answered before the start is complete
                try:
                    await self.reconnector.start()
                except BaseException as error:
                    self._close(ConnectionLost(f"could not connect to {self._url}: {error}"))
                    raise
                self._lifecycle.started = True
            self.users += 1

    async def stop(self, *, end_session: bool) -> None:
        """See :meth:`Connection.stop`."""
        if self.inherited is not None:
            return
        async with self._lifecycle.turn():
            if self.users == 0:
                return
            self.users -= 1
            if self.users > 0:
                return
            try:
                await self._renewal.wait_over()
                unsent = await self._outbox.drain(_SENT_WITHIN)
                if unsent:
                    logger.warning(
                        "the connection of %s to %s was stopped before the broker had confirmed %d messages: they may "
                        "not have been sent",
                        self._dialer.client_id,
                        self._url,
                        unsent,
                    )
            finally:
                await surely(self._end(end_session))

    async def _end(self, end_session: bool) -> None:
        try:
            await self.reconnector.stop(end_session=end_session)
        finally:
            self._close(ConnectionLost(f"the connection to {self._url} was stopped"))
            self._lifecycle.started = False

    def give_up(self, failure: TransportError, *, publish_will: bool) -> None:
        """See :meth:`Connection.give_up`."""
        if self.failure is not None or not self._usable:
            return
        self.reconnector.give_up(publish_will=publish_will)
        self._fail(failure)

    def after_fork(self, client_id: str) -> None:
        """Refuse further use in the child process, if the connection was started. Otherwise change nothing.

        Args:
            client_id: The client id, for the error.
        """
        if self.users == 0 and self._lifecycle.user is None:
            return
        self.inherited = self.failure = ConnectedBeforeFork(
            f"{client_id!r} was connected to {self._url} before os.fork(), so it belongs to the parent process: make "
            "an endpoint in this child process, or stop the endpoint before the fork, so that it connects in the child"
        )
        self.reconnector.forget()
        self._subscriber.forget_session()

    def check_process(self) -> None:
        """Raise an error in a child process, when the connection was started before ``os.fork()``.

        Raises:
            ConnectedBeforeFork: The connection belongs to the parent process.
        """
        if self.inherited is not None:
            raise self.inherited

    def check_usable(self) -> None:
        """Raise an error when the connection cannot be used.

        Raises:
            TransportError: The connection has not been started, or has failed permanently.
        """
        if self.failure is not None:
            raise self.failure
        if not self._usable:
            raise ConnectionLost(f"not connected to {self._url}: start the endpoint first")

    def _close(self, reason: ConnectionLost) -> None:
        self._usable = False
        self.reconnector.forget()
        self._renewal.end()
        self._outbox.fail(reason)
        self._subscriber.forget_session()

    def _fail(self, failure: TransportError) -> None:
        self.failure = failure
        self._renewal.end()
        logger.error("%s", failure)
        self._outbox.fail(failure)
        for listener in tuple(self.on_failed):
            listener(failure)
