"""Opens the connection to the broker, and opens it again when it is lost: waits, logs in, subscribes again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable

from mqtt_agent.aio.lifecycle import surely
from mqtt_agent.aio.waiting import within
from mqtt_agent.errors import (
    BrokerNotSupported,
    BrokerUnreachable,
    ConnectionLost,
    ConnectionRefused,
    MQTTAgentError,
    SessionTakenOver,
    SubscriptionRefused,
    TokenNotIssued,
    TopicNotAuthorized,
    TransportError,
)
from mqtt_agent.logs import logger_of
from mqtt_agent.metering import Counter
from mqtt_agent.transport.capabilities import Capabilities
from mqtt_agent.transport.dialer import Dialer
from mqtt_agent.transport.failover import most_telling
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.outbox import Outbox
from mqtt_agent.transport.reasons import LASTING_REFUSALS, TAKEN_OVER
from mqtt_agent.transport.renewal import Renewal
from mqtt_agent.transport.subscriber import Subscriber
from mqtt_agent.transport.takeovers import Takeovers
from mqtt_agent.transport.url import BrokerURL
from mqtt_agent.transport.waits import ReconnectWaits

__all__ = ["Reconnector"]

logger: logging.Logger = logger_of(__name__)

_FIRST_ATTEMPTS = 3
_CLEAN_WITHIN = 30.0  # seconds to wait for a link with a new session
_REFUSED_FOR = 5.0  # seconds; a broker whose own list of users is being replaced refuses for a moment only
_REFUSALS = (ConnectionRefused, TokenNotIssued, TopicNotAuthorized, SubscriptionRefused)
_TAKEN_OVER_WITHIN = 10.0  # seconds after a loss during which a takeover counts as a possible cause
_reconnects = Counter(
    "mqtt_agent.connection.reconnects",
    "{reconnect}",
    "How often a connection to the broker was opened again, and why.",
    "mqtt_agent.reason",
    {"messaging.system": "mqtt"},
)


class Reconnector:
    """Keeps a link to the broker open, from :meth:`start` to :meth:`stop`. It is used once, on one event loop.

    Args:
        dialer: Opens each link.
        subscriber: Makes the subscriptions over each link.
        outbox: Sends the messages over each link.
        renewal: Ends a link whose token is about to expire.
        on_reconnected: Called after each reconnect; the argument tells whether the broker still had the session.
        on_refused: Functions to call when the broker does not let the client in for a while. The argument is the error.
        on_taken_over: Called when another process has taken the client id; then no further link is opened.
    """

    def __init__(
        self,
        dialer: Dialer,
        subscriber: Subscriber,
        outbox: Outbox,
        renewal: Renewal,
        on_reconnected: list[Callable[[bool], Awaitable[None]]],
        on_refused: list[Callable[[TransportError], None]],
        on_taken_over: Callable[[SessionTakenOver], None],
    ) -> None:
        self.link: Link | None = None
        """The present link, or None. It is set before its subscriptions are made."""
        self.limits: Capabilities | None = None
        """What the broker said in the latest CONNACK."""
        self._dialer = dialer
        self._subscriber = subscriber
        self._outbox = outbox
        self._renewal = renewal
        self._on_reconnected = on_reconnected
        self._on_refused = on_refused
        self._on_taken_over = on_taken_over
        self._ready = False
        self._is_ready = asyncio.Event()
        self._over = False
        self._lost: asyncio.Future[TransportError]
        self._lost_at = -math.inf
        self._warned = False
        self._on_purpose = False
        self._waits = ReconnectWaits(dialer.will_delay)
        self._task: asyncio.Task[None] | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._takeovers = Takeovers()

    @property
    def connected(self) -> bool:
        """See :attr:`Connection.connected`."""
        return (self.link is not None and self._ready) or self._renewal.under_way

    @property
    def may_be_taken_over(self) -> bool:
        """See :attr:`Connection.may_be_taken_over`."""
        return not self._dialer.clean_start and asyncio.get_running_loop().time() - self._lost_at < _TAKEN_OVER_WITHIN

    @property
    def forgets_groups(self) -> bool:
        """See :attr:`Capabilities.forgets_groups`: at such a broker, members of share groups need a clean start."""
        return self.limits is not None and self.limits.forgets_groups

    async def start(self) -> None:
        """Open the first link.

        Raises:
            TransportError: The broker is not reachable, or refuses the connection or a subscription.
        """
        link = await self._open_first()
        self._task = asyncio.create_task(self._keep_up(link), name=f"mqtt-agent {self._dialer.client_id}")

    async def stop(self, *, end_session: bool) -> None:
        """End the link, and open no further link."""
        tasks = [task for task in (self._task, self._announcing) if task is not None]
        self._task = self._announcing = None
        self._end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.link is not None:
            await self._leave(self.link, end_session=end_session)

    def give_up(self, *, publish_will: bool) -> None:
        """End the link without waiting, and open no further link. The process that takes over needs the session."""
        for task in (self._task, self._announcing):
            if task is not None:
                task.cancel()
        if self.link is not None and publish_will:
            self.link.abort()
        elif self.link is not None:
            self.link.disconnect(end_session=False)
        self._end()

    def forget(self) -> None:
        """Note that there is no link any more."""
        self.link, self._ready = None, False

    def _end(self) -> None:
        self._over = True
        self._is_ready.set()  # a coroutine that waits for a link learns that no link will come

    async def begin_clean(self) -> None:
        """Replace the link by a link with a new session. Every later link begins with a new session too.

        Raises:
            ConnectionLost: There was no new link within 30 s. Or the connection was stopped, or has failed permanently.
        """
        self._dialer.clean_start = True
        if not self._over:
            self._is_ready.clear()
        if self.link is not None:
            self._on_purpose = True
            await self._leave(self.link, end_session=True)
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._is_ready.wait(), _CLEAN_WITHIN)
        if self._over or not self._is_ready.is_set():
            raise ConnectionLost(f"the connection to {self._dialer.url} did not come back with a new session")

    # Opening one link

    async def _open_first(self) -> Link:
        brokers, errors = self._dialer.brokers, list[Exception]()
        while True:
            try:
                return await self._open_first_at_one()
            except (BrokerUnreachable, BrokerNotSupported, ConnectionLost, ConnectionRefused) as error:
                errors.append(error)
                brokers.advance()
                if len(errors) == len(brokers):
                    raise most_telling(errors) from error.__cause__
                logger.warning("%s; trying %s", error, brokers)

    async def _open_first_at_one(self) -> Link:
        for attempt in range(_FIRST_ATTEMPTS):
            link = await self._open()
            try:
                await self._set_up(link)
            except ConnectionLost:
                # rumqttd sometimes mistakes the end of an earlier connection for the end of the new connection.
                if attempt == _FIRST_ATTEMPTS - 1:
                    raise
            except BaseException:
                await surely(self._leave(link, end_session=True))
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
        self._dialer.tell_shortcomings(link.limits)
        self._subscriber.prepare(link.limits)
        return link

    async def _set_up(self, link: Link) -> None:
        """Subscribe first, then send the waiting messages: an answer must find its subscription.

        Raises:
            TransportError: The link was lost meanwhile, or the broker refuses a subscription.
        """
        self.link = link
        try:
            await self._subscriber.open(link)
        except ConnectionLost as error:
            hint = f"while {self._dialer.client_id!r} subscribed: brokers may do this when they do not allow a topic"
            raise ConnectionLost(f"{error}, {hint}", reason_code=error.reason_code) from error
        if self.link is not link:  # the link was lost together with the last answer to the subscriptions
            raise self._lost.result()
        self._ready = True
        self._is_ready.set()
        self._outbox.open(link, link.limits)

    async def _leave(self, link: Link, *, end_session: bool) -> None:
        link.disconnect(end_session=end_session)
        await link.wait_closed()

    def _on_lost(self, reason: TransportError) -> None:
        self.forget()
        self._subscriber.close()
        self._outbox.close(reason)
        if not self._lost.done():
            self._lost.set_result(reason)

    # One link after the other

    async def _keep_up(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        while True:
            opened_at = loop.time()
            reason = await self._wait_lost(link)
            if isinstance(reason, ConnectionLost) and reason.reason_code == TAKEN_OVER:
                self._on_taken_over(
                    SessionTakenOver(
                        f"another process, or another object of this process, connected to {self._dialer.url} as "
                        f"{self._dialer.client_id!r}: give each an agent id of its own, or call stop() before "
                        "you start the same name again"
                    )
                )
                return
            if self._is_fought_over(link, loop.time() - opened_at):
                self._on_taken_over(
                    SessionTakenOver(
                        f"{self._dialer.url} closed the connection of {self._dialer.client_id!r} again and again, as a "
                        "broker does when another process connects with the same client id: give each process an agent "
                        "id or a client id of its own"
                    )
                )
                return
            self._waits.note_break(loop.time() - opened_at)
            lost_at, lost = loop.time(), self._dialer.url
            on_purpose, self._on_purpose = self._on_purpose, False
            if on_purpose:
                logger.info("a new session begins at %s", lost)
            elif not self._renewal.under_way:
                self._lost_at = lost_at
                self._warned = True
                logger.warning("%s; reconnecting", reason)
            renewed = self._renewal.under_way
            link = await self._reconnect()
            _reconnects.add("token_renewal" if renewed else "connection_lost")
            # After a warning, this is a warning too. Else the last line on a console is a problem that is over.
            level = logging.WARNING if self._warned else logging.INFO
            away = loop.time() - lost_at
            if self._dialer.url == lost:
                logger.log(level, "connected to %s again after %.1f s", self._dialer.url, away)
            else:
                logger.log(level, "connected to %s in place of %s after %.1f s", self._dialer.url, lost, away)
            self._warned = self._on_purpose = False
            self._announce(link)

    def _is_fought_over(self, link: Link, lived: float) -> bool:
        """Whether another process with the same client id and this process disconnect each other."""
        if self._dialer.clean_start or self._renewal.under_way:
            return False
        now = asyncio.get_running_loop().time()
        return self._takeovers.note(
            now, lived, quietly=link.closed_quietly, session_present=link.limits.session_present
        )

    async def _wait_lost(self, link: Link) -> TransportError:
        """Wait until the link is lost, or ended because its token is about to expire."""
        renewing = asyncio.create_task(self._renew(link), name="mqtt-agent renew")
        try:
            reason = await self._lost
        finally:
            renewing.cancel()
        # If the next link opened earlier, the broker might see a takeover, and publish the Last Will.
        await link.wait_closed()
        return reason

    async def _renew(self, link: Link) -> None:
        if not self._dialer.clean_start:  # with a clean start, there would be no session to come back to
            await self._renewal.leave_in_time(link)

    async def _reconnect(self) -> Link:
        """Try until a link is open and set up."""
        logged: dict[BrokerURL, str] = {}
        refused_since = math.inf
        while True:
            if not self._renewal.under_way:
                await asyncio.sleep(self._waits.next_wait())
            errors: list[Exception] = []
            for _ in range(len(self._dialer.brokers)):  # the session is at the latest broker, so that one is the first
                link: Link | None = None
                try:
                    link = await self._open()
                    await self._set_up(link)
                    return link
                except Exception as error:
                    self._drop(link)
                    errors.append(error)
                    if repr(error) != logged.get(self._dialer.url):
                        logged[self._dialer.url] = repr(error)
                        self._log_failure(error)
                    self._dialer.brokers.advance()
                finally:
                    self._renewal.end()
            self._waits.note_failure(errors)
            refused_since = self._note_refusal(errors, refused_since)
            self._takeovers.clear()  # a broker that does not let this client in ended the earlier links itself

    def _note_refusal(self, errors: list[Exception], since: float) -> float:
        """Tell those that wait about a login or a subscription that is refused for a while. The attempts go on.

        The broker refuses the login, or a topic filter that the endpoint needs, or the token service refuses to issue a
        login. In all these cases somebody must change a right, and may do so at any time.

        Args:
            errors: Why the attempts have failed, at each of the brokers. While one of them only does not answer, it may
                be back soon.
            since: Loop time of the first refusal; infinite when the attempt before was not refused.

        Returns:
            The same time for the next attempt.
        """
        refusals = [each for each in errors if isinstance(each, _REFUSALS)]
        if len(refusals) < len(errors) or not all(map(_is_lasting, refusals)):
            return math.inf
        now = asyncio.get_running_loop().time()
        if now - since >= _REFUSED_FOR:
            for listener in tuple(self._on_refused):
                listener(refusals[0])
        return min(since, now)

    def _drop(self, link: Link | None) -> None:
        if link is not None:
            link.abort()
        self.forget()
        self._subscriber.close()

    def _log_failure(self, error: Exception) -> None:
        url = self._dialer.url
        self._warned = True
        if isinstance(error, (MQTTAgentError, OSError)):
            logger.warning("reconnecting to %s failed and will be tried again: %s", url, error)
        else:  # the user's credentials function or a handler raised: only a traceback shows where
            logger.error("reconnecting to %s failed and will be tried again", url, exc_info=error)

    def _announce(self, link: Link) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
        self._announcing = asyncio.create_task(self._tell_endpoints(link), name="mqtt-agent announce")

    async def _tell_endpoints(self, link: Link) -> None:
        for listener in tuple(self._on_reconnected):
            try:
                await listener(link.limits.session_present)
            except Exception:  # the failure of one endpoint must not stop the others
                logger.exception("an endpoint could not announce itself after a reconnect")


def _is_lasting(error: ConnectionRefused | TokenNotIssued | TopicNotAuthorized | SubscriptionRefused) -> bool:
    """Whether the error repeats until somebody changes the login, or the rules of the broker or token service."""
    if isinstance(error, TokenNotIssued):
        return error.refused
    return not isinstance(error, ConnectionRefused) or error.reason_code in LASTING_REFUSALS
