"""The rules for every store of tasks: what a record holds, and what each method must guarantee."""

from __future__ import annotations

import asyncio
import copy
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from typing_extensions import Self, TypedDict, Unpack

from mqtt_agent.wire import TaskState

__all__ = [
    "ACTIVE",
    "OPEN",
    "RESERVED_SEQS",
    "VERIFIED",
    "Changes",
    "Outline",
    "TaskKey",
    "TaskRecord",
    "TaskRole",
    "TaskStore",
]

TaskRole = Literal["received", "delegated"]

OPEN = frozenset(state for state in TaskState if not state.terminal)
"""The states of a task that is not over."""

ACTIVE = OPEN - {TaskState.SUBMITTED}
"""The states of a task that a handler has started, and that is not over."""

RESERVED_SEQS = 1000
"""How many event numbers :meth:`TaskStore.claim` reserves for an attempt."""


class TaskKey(NamedTuple):
    """The key of a record in a store.

    Attributes:
        agent: The agent that the record belongs to: namespace and agent id, such as ``a2a/v1/writer``. Several agents
            may share one store.
        role: ``received`` when the agent does the task, ``delegated`` when the agent has given the task to a peer.
        task_id: The task's id.
        requester: The agent that gave a received task, because each requester chooses the ids of its own tasks. Empty
            when the task does not name its requester, and always empty for a delegated task.
    """

    agent: str
    role: TaskRole
    task_id: str
    requester: str = ""


VERIFIED: str = "$verified"
"""A key in :attr:`TaskRecord.task` that no message has, because readers drop unknown fields."""


@dataclass
class TaskRecord:
    """One task, as the requester or the executor knows it. All values are plain JSON.

    Attributes:
        key: The key of the record.
        peer: The other agent: the requester of a received task, the executor of a delegated task. None when a requester
            did not name itself.
        task: The task message. In the record of a received task, :data:`VERIFIED` is true if a signature has proven the
            requester.
        digest: The digest of the task's content. A repeat of the task has the same digest; another task with the same
            id has another digest.
        state: The state of the task.
        attempt: How many attempts have begun. Only for received tasks; else 0.
        seq: The highest event number that is used or reserved. Only for received tasks; else 0.
        saved: For a received task, the handler's latest checkpoint. For a delegated task, the latest value from
            :meth:`TaskHandle.save`.
        inputs: For a received task, the questions in the order in which they were asked: ``{"input_id", "prompt",
            "schema", "answer"}`` each. ``answer`` is missing until the question is answered. For a delegated task, the
            answers: ``{"input_id", "answer"}`` each.
        result: The result message, once the task is over.
        reply_to: The topic to which the result goes; None for the default topics. For a delegated task, the
            sender-bound results topic; None when the task was given on a plain topic.
        settled: Whether all work for a finished task is done. A received task is settled when the broker has the
            result.
        cancel_requested: Whether the requester has asked for the task to be canceled.
        created_at: When the record was made, Unix seconds.
        updated_at: When the state last changed, Unix seconds.
        expires_at: When the task expires, Unix seconds; None for never.
        position: The record's place in the order in which records were added. The store sets it.
    """

    key: TaskKey
    peer: str | None
    task: dict[str, Any]
    digest: str
    state: TaskState = TaskState.SUBMITTED
    attempt: int = 0
    seq: int = 0
    saved: Any = None
    inputs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    result: dict[str, Any] | None = None
    reply_to: str | None = None
    settled: bool = False
    cancel_requested: bool = False
    created_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)
    expires_at: float | None = None
    position: int = 0

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.key.task_id

    @property
    def readers(self) -> tuple[str, ...]:
        """Who acts upon messages about the task: the other agent, if it is known."""
        return () if self.peer is None else (self.peer,)

    def copy(self) -> TaskRecord:
        """Copy the record. The copy shares no mutable value with the record."""
        return replace(
            self,
            task=copy.deepcopy(self.task),
            saved=copy.deepcopy(self.saved),
            inputs=copy.deepcopy(self.inputs),
            result=copy.deepcopy(self.result),
        )


class Outline(NamedTuple):
    """The part of a :class:`TaskRecord` that says where its task stands. It is read without decoding any JSON.

    Attributes:
        position: See :class:`TaskRecord`, as for all other attributes.
        key: The key of the record.
        peer: The other agent.
        digest: The digest of the task's content.
        state: The state of the task.
        reply_to: The topic to which the result goes.
        cancel_requested: Whether the requester has asked for the task to be canceled.
        expires_at: When the task expires, Unix seconds; None for never.
    """

    position: int
    key: TaskKey
    peer: str | None
    digest: str
    state: TaskState
    reply_to: str | None
    cancel_requested: bool
    expires_at: float | None

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.key.task_id


class Changes(TypedDict, total=False):
    """The fields of a :class:`TaskRecord` that :meth:`TaskStore.change` may change."""

    state: TaskState
    seq: int
    attempt: int
    saved: Any
    inputs: list[dict[str, Any]]
    result: dict[str, Any] | None
    reply_to: str | None
    settled: bool
    cancel_requested: bool


class TaskStore(ABC):
    """Keeps tasks, so that the death of a process neither loses a task nor completes a task twice.

    Every store follows these rules:

    - A method that changes something returns only when the change is as durable as the store can make it. When the
      asyncio task that awaits the method is canceled, the change may still be made.
    - Each method is atomic, also for other processes that use the same store.
    - Only :meth:`change`, :meth:`claim` and :meth:`reopen` change a record's state. They are compare-and-set.
    - A terminal state never changes, and neither does the result that was stored with it. :meth:`change` refuses such
      changes, whatever states its ``expected`` names.
    - The store takes and returns copies. Changing a returned record changes nothing in the store.
    - Values are stored as JSON, never pickled.
    - Several agents may share one store. A method reads and changes the records of one agent only: the agent of the
      key or of the argument ``agent``.

    Each method raises :class:`StoreError` when the store cannot be read or written. The change may have been made all
    the same, because the answer of the disk or of a database server can get lost. So an agent repeats the call, and a
    repeat must not do harm: :meth:`add` then returns the record that is there, and :meth:`change` refuses to change a
    task that has ended. When no repeat can succeed, the error has ``permanent`` true: a value cannot be stored, or
    a record is damaged.

    Attributes:
        since: The store knows nothing of the time before, as one that lives in memory; Unix seconds. 0 means that the
            store is older than its process.
    """

    since: float = 0.0

    @abstractmethod
    async def open(self) -> None:
        """Make the store ready for use.

        Several users may open one store: each user calls :meth:`open` and later :meth:`close`. The first call of
        :meth:`open` opens the store.

        Raises:
            StoreError: The store is damaged, was made by a newer version, or cannot be reached. The store is left
                unchanged.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish the changes under way. When the last user calls this, the store is closed."""

    @abstractmethod
    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        """Add a record, unless the store has a record with this key.

        Returns:
            The record that the store has now, and whether this call has added it.
        """

    @abstractmethod
    async def get(self, key: TaskKey) -> TaskRecord | None:
        """Read the record with a key; None when there is no such record."""

    @abstractmethod
    async def change(
        self,
        key: TaskKey,
        expected: Collection[TaskState],
        *,
        expected_attempt: int | None = None,
        **changes: Unpack[Changes],
    ) -> TaskRecord | None:
        """Change a record if its state and attempt are as expected: compare-and-set.

        When the state changes, ``updated_at`` becomes now. In a terminal state only ``settled`` and ``reply_to`` may
        change: a call that names any other field changes nothing.

        Args:
            key: The key of the record.
            expected: The states that the record may be in.
            expected_attempt: The value that the record's ``attempt`` must have; None for any value.
            changes: Fields and their new values.

        Returns:
            The record after the change. None when nothing was changed, because the record does not exist or is not as
            expected.
        """

    async def settle(self, tasks: Sequence[tuple[TaskKey, TaskState]]) -> None:
        """Note that all work for some finished tasks is done. When this fails, some of the notes may be stored.

        Args:
            tasks: The keys and the states of the tasks. A task that is in another state stays as it is.
        """
        await asyncio.gather(*(self.change(key, (state,), settled=True) for key, state in tasks))

    @abstractmethod
    async def claim(self, agent: str) -> TaskRecord | None:
        """Begin an attempt at the agent's oldest received task in state ``submitted``.

        The state becomes ``working``, and ``attempt`` grows by 1. ``seq`` grows by ``RESERVED_SEQS``, so that the
        attempt can number its events without asking the store.

        Args:
            agent: The agent, see :attr:`TaskKey.agent`.

        Returns:
            The record after the change, or None when no task is ``submitted``.
        """

    @abstractmethod
    async def reopen(self, agent: str) -> int:
        """Set the agent's received tasks from a state in ``ACTIVE`` back to ``submitted``, so that they run again.

        Args:
            agent: The agent, see :attr:`TaskKey.agent`.

        Returns:
            How many tasks were set back.
        """

    @abstractmethod
    async def find(
        self,
        agent: str,
        role: TaskRole,
        *,
        states: Collection[TaskState] | None = None,
        peer: str | None = None,
        unsettled: bool = False,
        after: int = 0,
        limit: int = 1000,
    ) -> list[TaskRecord]:
        """Read records in the order in which they were added.

        A damaged record is logged and left out: one damaged record must not stop the work on other tasks. Fewer than
        ``limit`` records are returned only when no more records follow.

        Args:
            agent: The agent whose records are read, see :attr:`TaskKey.agent`.
            role: The role of the records.
            states: Only records in one of these states; None for all states.
            peer: Only records with this peer; None for all peers.
            unsettled: Only records that are not settled.
            after: Only records with a higher ``position``. To read the next records, give the ``position`` of the last
                record that was returned.
            limit: How many records are returned at most.
        """

    async def outlines(
        self, agent: str, role: TaskRole, states: Collection[TaskState], *, after: int = 0, limit: int = 1000
    ) -> list[Outline]:
        """Read outlines of records in the order in which the records were added. See :meth:`find` for the arguments.

        A store may leave this method as it is. The stores of this package read only the columns of the outlines, so a
        start with many tasks is fast. A record whose outline is damaged is logged and left out. The outline of a record
        that is damaged elsewhere may be returned.
        """
        found = await self.find(agent, role, states=states, after=after, limit=limit)
        return [
            Outline(
                each.position,
                each.key,
                each.peer,
                each.digest,
                each.state,
                each.reply_to,
                each.cancel_requested,
                each.expires_at,
            )
            for each in found
        ]

    @abstractmethod
    async def count(self, agent: str, role: TaskRole, states: Collection[TaskState]) -> int:
        """Count the records that are in one of these states.

        Args:
            agent: The agent whose records are counted, see :attr:`TaskKey.agent`.
            role: The role of the records.
            states: The states.
        """

    async def count_by_peer(self, agent: str, role: TaskRole, states: Collection[TaskState]) -> dict[str | None, int]:
        """Count the records that are in one of these states, for each peer. See :meth:`count` for the arguments.

        A store may leave this method as it is. The stores of this package count without reading the records.
        """
        counts: Counter[str | None] = Counter()
        after = 0
        while found := await self.outlines(agent, role, states, after=after):
            counts.update(each.peer for each in found)
            after = found[-1].position
        return dict(counts)

    @abstractmethod
    async def sweep(self, agent: str, before: float, *, limit: int = 1000) -> int:
        """Remove the records of an agent's tasks that ended before a given time.

        Other agents may keep their tasks for longer. So their records stay.

        Args:
            agent: The agent whose records are removed, see :attr:`TaskKey.agent`.
            before: The time, Unix seconds.
            limit: How many records are removed at most, so that other work gets its turn between two calls.

        Returns:
            How many records were removed.
        """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
