"""This process as a member of a pool: its id, its lease, and the messages by which members wake each other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.agents.store.lease import Beat
from mqtt_agent.agents.store.members import MemberStore
from mqtt_agent.agents.store.postgres import PostgresStore
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.waiting import within
from mqtt_agent.display.suggestions import counted
from mqtt_agent.errors import MQTTAgentError, StoreError, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import MemberNote, Topics, decode, encode

__all__ = ["PoolMember"]

logger: logging.Logger = logger_of(__name__)

_LOOK_EVERY = 2.0
"""Seconds between two looks at the store."""
_TOLD_EVERY = 0.1
"""Seconds between two messages that tasks wait."""
_READ_EVERY = 0.1
"""Seconds between two rounds in which the messages of other members are read."""
_MOST_NOTES = 1000
"""How many different messages are read in one round. What the others say is found at the next look at the store."""
_LONGEST_ID = 64
"""The length of the longest member id that is read in the status of another member."""
_ABOUT_A_TASK = frozenset(("task", "refused", "ended"))
"""The actions of messages that are about one task."""


class PoolMember:
    """A member of a pool of processes with one agent id.

    The database is the truth: each member looks there every two seconds. Messages between members only save time, so
    they may get lost. Anybody may write any number of them: equal messages are read once in a tenth of a second, and a
    message about a task that this member does not know reads nothing from the database.

    Args:
        store: The store of the pool.
        connection: The member's connection to the broker.
        topics: The topics of the namespace.
        agent_id: The agent id of the pool.
        context_of: Returns the context of a received task; see :class:`MemberStore`.

    Attributes:
        id: The member's id, a new one for each life of the agent.
        store: The pool's store, as this member uses it.
        looks: Functions that compare this process with the store.
        on_note: By action, the functions to call with the messages of other members.
        on_reaped: Functions to call when this member has found that others have died.
        agent_id: The agent id of the pool.
    """

    def __init__(
        self,
        store: PostgresStore,
        connection: Connection,
        topics: Topics,
        agent_id: str,
        context_of: Callable[[TaskRecord], str | None] | None = None,
    ) -> None:
        self.id: str = uuid.uuid4().hex[:12]
        self.agent_id: str = agent_id
        owner = f"{topics.namespace}/{agent_id}"
        self.store: MemberStore = MemberStore(store, owner, self.id, self._on_beat, context_of)
        self.looks: list[Callable[[], Awaitable[None]]] = []
        self.on_note: dict[str, Callable[[MemberNote], Awaitable[None]]] = {}
        self.on_reaped: list[Callable[[], None]] = []
        self._connection = connection
        self._topics = topics
        self._tasks = BackgroundTasks(self._on_failure)
        self._faults = FaultLog(logger)
        self._woken = asyncio.Event()
        self._notes: dict[tuple[Any, ...], MemberNote] = {}
        """The messages of other members that are not read yet. Equal messages have equal keys."""
        self._working: set[tuple[Any, ...]] = set()
        """The keys of the messages that are worked on."""
        self._reading = False
        self._telling: asyncio.TimerHandle | None = None
        self._joined = False

    # Life

    async def join(self) -> None:
        """Join the pool. The store must be open.

        Raises:
            StoreError: The database cannot be used.
        """
        self._joined = True
        await self.store.join()

    async def start(self) -> None:
        """Take the messages of the other members, and begin to look at the store."""
        for member in (self.id, None):
            await self._connection.subscribe(self.control(member), self._on_control)
        self._tasks.start(self._keep_looking(), name="mqtt-agent pool")

    async def leave(self) -> bool:
        """Give this member's tasks back, leave the pool, and wake the other members. A second call does nothing.

        Returns:
            Whether the pool has no other member, or this is not known because the database does not answer. Then the
            caller reports the pool offline: a live member answers this, and peers wait for its answer.
        """
        if not self._joined:
            return False
        self._joined = False
        if self._telling is not None:
            self._telling.cancel()
        self._tasks.cancel()
        await self._tasks.wait()
        try:
            last = await self.store.leave()
        except StoreError as error:
            logger.warning(
                "member %s of agent %s could not give its tasks back, so they wait until its lease has ended (at most "
                "%g s); then another member or the next start runs them again: %s",
                self.id,
                self.agent_id,
                self.store.lease,
                error,
            )
            return True
        if not last:
            self._tell(None, "tasks")
            self._tell(None, "left")
        return last

    def waits_for_turn(self, context_id: str | None) -> bool:
        """Whether a new task may have to wait for another task of its context."""
        return self.store.ordered and context_id is not None

    def on_run_end(self) -> None:
        """Note that a handler has ended: the next task of its context may begin, here or at another member."""
        if self.store.ordered:
            self.look_soon()
            self.tell_waiting()

    async def unsubscribe(self) -> None:
        """Remove the handlers of :meth:`start`."""
        for member in (self.id, None):
            await self._connection.unsubscribe(self.control(member), self._on_control)

    def control(self, member: str | None) -> str:
        """The topic of the messages to a member; None for the topic of all members."""
        return self._topics.member_control(self.agent_id, member or "all")

    # Messages of members

    async def wake(self, key: TaskKey, *, listen: bool = False, fault: str | None = None, asked: bool = False) -> bool:
        """Tell the member that works on a task that the task has changed in the store.

        Args:
            key: The key of the task's record.
            listen: Whether the requester wants events from now on.
            fault: Why an answer to the open question was not accepted.
            asked: Whether the requester has only asked for the task. At a broker without shared subscriptions, the
                member that works on the task has the same message, and is not told.

        Returns:
            Whether another live member works on the task.
        """
        owner = await self.store.owner(key)
        if owner is None or owner == self.id:
            return False
        if asked and not self._connection.shared_subscriptions:
            return True
        action = "task" if fault is None else "refused"
        self._tell(
            owner, action, task_id=key.task_id, requester=key.requester or None, listen=listen or None, reason=fault
        )
        return True

    def tell_waiting(self) -> None:
        """Tell the other members that a task waits, at most ten times a second."""
        if self._telling is None and self._joined:
            self._telling = asyncio.get_running_loop().call_later(_TOLD_EVERY, self._tell_waiting)

    def _tell_waiting(self) -> None:
        self._telling = None
        self._tell(None, "tasks")

    def tell_ended(self, task_id: str) -> None:
        """Tell the other members that a delegated task is over: one of them may wait for the result."""
        self._tell(None, "ended", task_id=task_id)

    def _tell(self, member: str | None, action: str, **fields: Any) -> None:
        note = MemberNote(action=action, member=self.id, **fields)
        with contextlib.suppress(MQTTAgentError):  # the other members look at the store
            self._connection.publish_soon(self.control(member), encode(note)).add_done_callback(_ignore)

    def _on_control(self, message: InboundMessage) -> None:
        try:
            note = decode(MemberNote, message.payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable message of a member", error)
            return
        if note.action not in self.on_note or note.member == self.id or not self._joined:
            return
        about = (note.task_id, note.requester, note.listen) if note.action in _ABOUT_A_TASK else ()
        if len(self._notes) < _MOST_NOTES:
            self._notes[(note.action, *about)] = note
        if not self._reading:
            self._reading = True
            self._tasks.start(self._read_notes())

    async def _read_notes(self) -> None:
        """Work on the messages of other members, on equal ones together, until there are no more."""
        while self._notes:
            for key in self._notes.keys() - self._working:
                self._working.add(key)
                note = self._notes.pop(key)
                work = self._tasks.start(self._apart(self.on_note[note.action](note)))
                work.add_done_callback(partial(self._on_worked, key))
            await asyncio.sleep(_READ_EVERY)
        self._reading = False

    def _on_worked(self, key: tuple[Any, ...], _: asyncio.Task[None]) -> None:
        self._working.discard(key)

    # Looking at the store

    def suspect(self, member: str) -> None:
        """Note that the broker has lost the connection of a member; see :meth:`MemberStore.suspect`."""
        if len(member) <= _LONGEST_ID and member.isascii() and member.isalnum():  # anybody may write the status
            self.store.suspect(member)

    def trust(self, member: str) -> None:
        """Note that a member has said that it is online; see :meth:`MemberStore.trust`."""
        self.store.trust(member)

    def look_soon(self) -> None:
        """Compare this process with the store now, and not only after two seconds."""
        self._woken.set()

    def _on_beat(self, beat: Beat) -> None:
        if beat.lost:
            logger.warning(
                "the lease of member %s of agent %s has ended, because the database was not reached in time: other "
                "members have its tasks, and its handlers are canceled",
                self.id,
                self.agent_id,
            )
        if beat.lapsed or beat.reopened:
            gone, again = counted(beat.lapsed, "member"), counted(beat.reopened, "task")
            logger.warning("agent %s: gone: %s; run again: %s", self.agent_id, gone, again)
            for listener in self.on_reaped:
                listener()
            self.tell_waiting()
        self.look_soon()

    async def _keep_looking(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._woken.wait(), _LOOK_EVERY)
            self._woken.clear()
            for look in self.looks:
                await self._apart(look())

    async def _apart(self, work: Awaitable[None]) -> None:
        try:
            await work
        except StoreError as error:  # the next look does this work
            logger.debug("member %s of agent %s could not look at the store: %s", self.id, self.agent_id, error)
        except MQTTAgentError as error:
            logger.warning("member %s of agent %s: %s", self.id, self.agent_id, error)
        except Exception:  # such as a record that cannot be read: a member that does not look would lose its tasks
            logger.exception("member %s of agent %s could not do its work", self.id, self.agent_id)

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        logger.error("member %s of agent %s could not do its work", self.id, self.agent_id, exc_info=error)


def _ignore(confirmed: asyncio.Future[int]) -> None:
    if not confirmed.cancelled():
        confirmed.exception()
