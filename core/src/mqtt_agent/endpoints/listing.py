"""Follows all cards of a namespace only while somebody wants to see all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.waiting import within
from mqtt_agent.endpoints.retained import Retained
from mqtt_agent.errors import ConnectionLost, TransportError
from mqtt_agent.transport import Connection

__all__ = ["LISTED_WITHIN", "NOT_ALL_CARDS", "Listing", "all_arrived", "end_of", "succeeded"]

LISTED_WITHIN: float = 30.0
"""Seconds that a listing waits for a connection that is away."""
NOT_ALL_CARDS: str = "the broker does not let this client see all cards, or has not sent all of them in time"

_LISTED_FOR = 60.0
"""Seconds for which an endpoint follows all cards after somebody has last wanted to see all of them."""
_LOOK_AGAIN = 0.5
"""Seconds after which an overdue listing looks again whether its callers have got all messages."""


class Listing:
    """Begins and ends to follow all retained messages of a source.

    Each message that all endpoints follow costs one delivery for each endpoint. So an endpoint follows the messages of
    its own peers by their exact topics, and all messages only for a while after each call of :meth:`complete`.

    Args:
        retained: The messages.
        watched: Whether somebody watches all messages, so that the endpoint goes on to follow them.
        kept: Whether the message of a topic is still followed, by its exact topic, when the listing ends.
    """

    def __init__(self, retained: Retained, watched: Callable[[], bool], kept: Callable[[str], bool]) -> None:
        self._retained = retained
        self._watched = watched
        self._kept = kept
        self._following: asyncio.Task[bool] | None = None
        """Ends when all messages have arrived. None while not all messages are followed."""
        self._ending: asyncio.Task[None] | None = None
        self._until = 0.0
        """Loop time until which all messages are followed."""
        self._waiting = 0
        """How many callers wait for all messages. What has arrived must not be forgotten before they have read it."""
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = BackgroundTasks()
        self._stopped = False

    @property
    def active(self) -> bool:
        """Whether all messages are followed now."""
        return self._following is not None

    async def complete(self, *, once: bool = False) -> bool:
        """Follow all messages for a while, and wait until all of them have arrived.

        Args:
            once: Whether to end as soon as all messages have arrived, unless somebody else wants to see them too.

        Returns:
            True when all have arrived. False when the broker does not let this endpoint see all of them.
        """
        loop = asyncio.get_running_loop()
        self._until = max(self._until, loop.time() + (0 if once else _LISTED_FOR))
        if self._following is None:
            self._following = self._tasks.start(self._begin())
            self._timer = loop.call_at(self._until, self._end)
        self._waiting += 1
        try:
            await end_of(self._following)
            return await self._retained.complete()  # after a reconnect, all messages arrive anew
        finally:
            self._waiting -= 1

    def stop(self) -> None:
        """End the listing's timer and tasks. The owner stops the retained messages."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._tasks.cancel()

    async def _begin(self) -> bool:
        if self._ending is not None:
            await asyncio.wait([self._ending])
        await self._retained.begin()
        return await self._retained.complete()

    def _end(self) -> None:
        """Follow only single messages from now on, unless somebody still wants to see all of them."""
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        if self._waiting or not (self._following is None or self._following.done()):
            self._until = max(self._until, loop.time() + _LOOK_AGAIN)
        elif self._watched():
            self._until = loop.time() + _LISTED_FOR
        if self._until > loop.time():
            self._timer = loop.call_at(self._until, self._end)
        else:
            self._following = self._timer = None
            self._ending = self._tasks.start(self._retained.end(self._kept))


async def all_arrived(
    complete: Callable[[], Awaitable[bool]], connection: Connection, timeout: float | None = LISTED_WITHIN
) -> bool:
    """Wait until all messages have arrived; see :meth:`Listing.complete`.

    Args:
        complete: Waits, and returns whether all have arrived.
        connection: Brings the messages. While it is away, nobody knows what a list lacks.
        timeout: Seconds to wait; None for no limit.

    Raises:
        ConnectionLost: The connection is away, and did not come back in time.
        TransportError: The connection has failed permanently, before or meanwhile.
    """
    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    try:
        while True:
            epoch = connection.epoch
            if await within(_unless_failed(complete(), connection), None if end is None else end - loop.time()):
                return True
            if connection.connected and connection.epoch == epoch:
                return False
            await within(asyncio.sleep(_LOOK_AGAIN), None if end is None else end - loop.time())
    except asyncio.TimeoutError:
        raise ConnectionLost(f"cannot list: the connection to {connection.url} did not come back in time") from None


async def _unless_failed(work: Awaitable[bool], connection: Connection) -> bool:
    """Wait for the end of some work, or for the connection's permanent failure, which is raised."""
    working = asyncio.ensure_future(work)

    def fail(error: TransportError) -> None:
        working.cancel()

    connection.on_failed.append(fail)
    try:
        if connection.failure is not None:
            raise connection.failure
        return await working
    except asyncio.CancelledError:
        if connection.failure is not None:
            raise connection.failure from None
        raise
    finally:
        connection.on_failed.remove(fail)
        working.cancel()


async def end_of(following: asyncio.Task[bool]) -> bool:
    """Wait for a task, and return its result; False when the task failed. The task is not canceled with the caller."""
    if not following.done():
        await asyncio.wait([following])
    return succeeded(following)


def succeeded(following: asyncio.Task[bool]) -> bool:
    """Whether a task has ended with a true result."""
    return not following.cancelled() and following.exception() is None and following.result()
