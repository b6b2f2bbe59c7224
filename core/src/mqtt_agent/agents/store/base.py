"""What a store of tasks must do."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from typing_extensions import Self, TypedDict, Unpack

from mqtt_agent.wire import TaskState

__all__ = ["ACTIVE", "OPEN", "RESERVED_SEQS", "Changes", "TaskKey", "TaskRecord", "TaskRole", "TaskStore"]

TaskRole = Literal["received", "delegated"]

OPEN = frozenset(state for state in TaskState if not state.terminal)
"""The states in which a task is not over."""

ACTIVE = OPEN - {TaskState.SUBMITTED}
"""The states in which a handler has begun with a task."""

RESERVED_SEQS = 1000
"""How many event numbers :meth:`TaskStore.claim` sets aside for one attempt."""


class TaskKey(NamedTuple):
    """Names one record.

    Attributes:
        agent: Whose it is: namespace and agent id, ``a2a/v1/writer``. Several agents may share one store.
        role: Whether the agent does the task or wants it done.
        task_id: Which task.
    """

    agent: str
    role: TaskRole
    task_id: str


@dataclass
class TaskRecord:
    """One task, as one of its two agents knows it. All values are plain JSON.

    Attributes:
        key: Its name.
        peer: The other agent: who wants the task done, or who is to do it; None when a requester did not say.
        task: The task as it is on the wire.
        digest: Of the task's content, to tell a repeat from another task with the same id.
        state: Where it stands.
        attempt: How often a handler began with it; for a delegated task, how often its peer said so.
        seq: The highest event number given out, or set aside to be; for a delegated task, the highest seen.
        saved: What the handler saved last.
        inputs: The questions asked so far, and their answers: ``{"input_id", "prompt", "schema", "answer"}``, where
            ``answer`` is missing until there is one. For a delegated task, the answers given: ``{"input_id",
            "answer"}``.
        result: The result as it is on the wire, once the task is over.
        reply_to: Where the result goes; None for the default.
        settled: Whether nothing is left to do for it: the broker has taken the result of a received task.
        cancel_requested: Whether the requester wants it canceled.
        created_at: When it was added, Unix seconds.
        updated_at: When its state last changed, Unix seconds.
        expires_at: When it is to be given up, Unix seconds; None for never.
        position: The order of adding; set by the store.
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
        """Which task it is."""
        return self.key.task_id

    def copy(self) -> TaskRecord:
        """The same, sharing nothing that can be changed."""
        return replace(
            self,
            task=copy.deepcopy(self.task),
            saved=copy.deepcopy(self.saved),
            inputs=copy.deepcopy(self.inputs),
            result=copy.deepcopy(self.result),
        )


class Changes(TypedDict, total=False):
    """What :meth:`TaskStore.change` may change; see :class:`TaskRecord`."""

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
    """Keeps tasks, so that no death of a process loses one or runs one to completion twice.

    The rules, for every implementation:

    - A method that changes something returns when the change is as durable as the store can make it, not before. When
      the awaiting task is canceled the change may still be made.
    - Each method is atomic, also against other processes that use the same store.
    - A record's state only changes by :meth:`change`, :meth:`claim` and :meth:`reopen`, which are compare-and-set.
    - A terminal state never changes, nor does the result that came with it; :meth:`change` refuses, whatever the caller
      expects.
    - What goes in and comes out are copies: changing a returned record changes nothing in the store.
    - Values are JSON, never pickled.

    All methods but :meth:`open` raise :class:`StoreError` when the store cannot be read or written.
    """

    @abstractmethod
    async def open(self) -> None:
        """Make it ready; each call needs a :meth:`close`, and only the first does something.

        Raises:
            StoreError: It is damaged, made by a newer version, or cannot be reached. It is left as it was.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what is under way; the last user's call releases everything."""

    @abstractmethod
    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        """Add a record unless there is one with its key.

        Returns:
            The record that is in the store now, and whether this call has put it there.
        """

    @abstractmethod
    async def get(self, key: TaskKey) -> TaskRecord | None:
        """The record with this key."""

    @abstractmethod
    async def change(
        self,
        key: TaskKey,
        expected: Collection[TaskState],
        *,
        expected_attempt: int | None = None,
        **changes: Unpack[Changes],
    ) -> TaskRecord | None:
        """Change a record, if it is as expected: compare-and-set.

        ``updated_at`` becomes now when the state changes. On a record in a terminal state, only ``settled`` and
        ``reply_to`` may change; a call that names anything else changes nothing there.

        Args:
            key: Which record.
            expected: The states it may be in.
            expected_attempt: The attempt it must be at; None for any.
            changes: Fields and their new values.

        Returns:
            The record after the change, or None when it was not as expected or does not exist, and nothing changed.
        """

    @abstractmethod
    async def claim(self, agent: str) -> TaskRecord | None:
        """Begin with the agent's oldest received task that is ``submitted``.

        It becomes ``working``, with ``attempt`` one higher, and ``seq`` higher by ``RESERVED_SEQS``, so that the
        attempt can number its events without asking the store.

        Returns:
            The record after that, or None when nothing waits.
        """

    @abstractmethod
    async def reopen(self, agent: str) -> int:
        """Make the agent's received tasks that a handler had begun with ``submitted`` again.

        Returns:
            How many there were.
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
        """Some records, in the order in which they were added.

        Args:
            agent: Whose.
            role: Which.
            states: Only those in one of these states.
            peer: Only those with this other agent.
            unsettled: Only those that are not settled.
            after: Only those with a higher ``position``, to go on where an earlier call ended.
            limit: At most so many.
        """

    @abstractmethod
    async def count(self, agent: str, role: TaskRole, states: Collection[TaskState]) -> int:
        """How many records are in one of these states."""

    @abstractmethod
    async def sweep(self, before: float, *, limit: int = 1000) -> int:
        """Remove records of all agents that have been in a terminal state since before a moment.

        Args:
            before: Unix seconds.
            limit: At most so many, so that other work gets its turn in between.

        Returns:
            How many were removed.
        """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
