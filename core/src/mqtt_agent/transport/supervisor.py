"""Keeps a link to the broker up: opens it, sets it up, and makes a new one when it is lost."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable

from mqtt_agent.errors import ConnectionLost, MQTTAgentError, SessionTakenOver, TransportError
from mqtt_agent.transport.dialer import Dialer
from mqtt_agent.transport.driver import BrokerLimits
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.outbox import Outbox
from mqtt_agent.transport.renewal import Renewal
from mqtt_agent.transport.subscriber import Subscriber

__all__ = ["Supervisor"]

logger: logging.Logger = logging.getLogger(__name__)

_TAKEN_OVER = 0x8E
_BACKOFF_FIRST, _BACKOFF_MAX = 0.2, 30.0
_STABLE_AFTER = 5.0
_FIRST_ATTEMPTS = 3
_TAKEN_OVER_WITHIN = 10.0


class Supervisor:
    """The links of one connection, of which there is one at a time.

    Args:
        dialer: Opens them.
        subscriber: Subscribes over each.
        outbox: Sends over each.
        renewal: Ends one whose token expires.
        on_reconnected: Called after each reconnect; the argument tells whether the broker still had the session.
        on_taken_over: Called when another process has taken the client id; then there is no further link.
    """

    def __init__(
        self,
        dialer: Dialer,
        subscriber: Subscriber,
        outbox: Outbox,
        renewal: Renewal,
        on_reconnected: list[Callable[[bool], Awaitable[None]]],
        on_taken_over: Callable[[SessionTakenOver], None],
    ) -> None:
        self.link: Link | None = None
        """The present one, while it is set up and when it is."""
        self.limits: BrokerLimits | None = None
        """What the broker said about the latest one."""
        self._dialer = dialer
        self._subscriber = subscriber
        self._outbox = outbox
        self._renewal = renewal
        self._on_reconnected = on_reconnected
        self._on_taken_over = on_taken_over
        self._ready = False
        self._is_ready = asyncio.Event()
        self._lost: asyncio.Future[TransportError]
        self._lost_at = -math.inf
        self._task: asyncio.Task[None] | None = None
        self._announcing: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the broker is there now, or will be in a moment."""
        return (self.link is not None and self._ready) or self._renewal.under_way

    @property
    def may_be_taken_over(self) -> bool:
        """Whether a link broke a moment ago: not all brokers tell a client that another has taken its place."""
        return not self._dialer.clean_start and asyncio.get_running_loop().time() - self._lost_at < _TAKEN_OVER_WITHIN

    @property
    def forgets_groups(self) -> bool:
        """Whether the broker is one where members of share groups must begin clean."""
        return self.limits is not None and self.limits.forgets_groups

    async def start(self) -> None:
        """Open the first one.

        Raises:
            TransportError: The broker is not there, or refuses.
        """
        link = await self._open_first()
        self._task = asyncio.create_task(self._supervise(link), name=f"mqtt-agent {self._dialer.client_id}")

    async def stop(self, *, end_session: bool) -> None:
        """End the link, and open no other."""
        tasks = [task for task in (self._task, self._announcing) if task is not None]
        self._task = self._announcing = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.link is not None:
            await self._leave(self.link, end_session=end_session)

    def give_up(self) -> None:
        """The same at once, with the session left to whoever takes it up."""
        for task in (self._task, self._announcing):
            if task is not None:
                task.cancel()
        if self.link is not None:
            self.link.disconnect(end_session=False)

    async def _leave(self, link: Link, *, end_session: bool) -> None:
        link.disconnect(end_session=end_session)
        await link.wait_closed()

    def forget(self) -> None:
        """The link has ended for good."""
        self.link, self._ready = None, False

    async def begin_clean(self) -> None:
        """Make a new link without the session of this one, nor of any later one."""
        self._dialer.clean_start = True
        self._is_ready.clear()
        if self.link is not None:
            await self._leave(self.link, end_session=True)
        await self._is_ready.wait()

    async def _open_first(self) -> Link:
        for attempt in range(_FIRST_ATTEMPTS):
            link = await self._open()
            try:
                await self._set_up(link)
            except ConnectionLost:
                # rumqttd now and then takes the end of one connection for the end of another, a new one.
                if attempt == _FIRST_ATTEMPTS - 1:
                    raise
            except BaseException:
                await self._leave(link, end_session=True)
                raise
            else:
                return link
        raise AssertionError("unreachable")

    async def _open(self) -> Link:
        link = await self._dial()
        if self.forgets_groups and self._subscriber.has_shared and not self._dialer.clean_start:
            await self._leave(link, end_session=True)
            self._dialer.clean_start = True
            link = await self._dial()
        return link

    async def _dial(self) -> Link:
        self._lost = asyncio.get_running_loop().create_future()
        link = await self._dialer.open(self._subscriber.dispatch, self._on_lost)
        self.limits = link.limits
        self._subscriber.prepare(link.limits)
        return link

    def _on_lost(self, reason: TransportError) -> None:
        self.forget()
        self._subscriber.close()
        self._outbox.close()
        if not self._lost.done():
            self._lost.set_result(reason)

    async def _set_up(self, link: Link) -> None:
        """Subscribe, then let out what waits: answers must find their subscription."""
        self.link = link
        await self._subscriber.open(link)
        self._ready = True
        self._is_ready.set()
        self._outbox.open(link, link.limits)

    async def _supervise(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        url = self._dialer.url
        attempt, logged, since = 0, "", loop.time()
        while True:
            renewal = asyncio.create_task(self._renew(link), name="mqtt-agent renew")
            try:
                reason = await self._lost
            finally:
                renewal.cancel()
            await link.wait_closed()  # else the broker may take the next one for a takeover, and publish the will
            if isinstance(reason, ConnectionLost) and reason.reason_code == _TAKEN_OVER:
                what = f"another process connected to {url} as {self._dialer.client_id!r}"
                self._on_taken_over(SessionTakenOver(what))
                return
            if loop.time() - since > _STABLE_AFTER:
                attempt = 0
            if not self._renewal.under_way:
                self._lost_at = loop.time()
                logger.warning("%s; reconnecting", reason)
            while True:
                if not self._renewal.under_way:
                    await asyncio.sleep(random.uniform(0.5, 1) * min(_BACKOFF_MAX, _BACKOFF_FIRST * 2**attempt))
                    attempt = min(attempt + 1, 20)
                try:
                    link = await self._open()
                    await self._set_up(link)
                except (MQTTAgentError, OSError) as error:
                    self._drop(link)
                    if str(error) != logged:
                        logged = str(error)
                        logger.warning("reconnecting to %s failed, will go on trying: %s", url, error)
                    continue
                except Exception as error:  # a credentials callable or a listener failed: the next try may do better
                    self._drop(link)
                    if repr(error) != logged:
                        logged = repr(error)
                        logger.exception("reconnecting to %s failed, will go on trying", url)
                    continue
                finally:
                    self._renewal.end()
                break
            logged, since = "", loop.time()
            logger.info("connected to %s again", url)
            if self._announcing is not None:
                self._announcing.cancel()
            self._announcing = asyncio.create_task(self._announce(link), name="mqtt-agent announce")

    async def _renew(self, link: Link) -> None:
        if not self._dialer.clean_start:  # else there would be no session to come back to
            await self._renewal.leave_in_time(link)

    async def _announce(self, link: Link) -> None:
        for listener in tuple(self._on_reconnected):
            try:
                await listener(link.limits.session_present)
            except Exception:  # one endpoint's trouble is not the others'
                logger.exception("an endpoint could not announce itself after a reconnect")

    def _drop(self, link: Link) -> None:
        link.abort()
        self.forget()
        self._subscriber.close()
