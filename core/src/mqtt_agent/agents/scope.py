"""The values that all parts of one agent share: its id, topics, connection, store, retries and payload limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from functools import cached_property

from mqtt_agent.agents.dialect import AgentDialect
from mqtt_agent.agents.pool import PoolMember
from mqtt_agent.agents.store import Outline, TaskKey, TaskRecord, TaskRole, TaskStore
from mqtt_agent.agents.store.retrying import StoreRetry
from mqtt_agent.transport import Bound, Connection
from mqtt_agent.wire import TaskState, Topics

__all__ = ["Scope"]

_CHUNK, _OUTLINES = 100, 1000
"""How many records, and how many outlines of records, are read from the store at once."""


@dataclass(frozen=True)
class Scope:
    """The values that all parts of one agent share.

    Attributes:
        agent_id: The agent's id.
        topics: The topics of the agent's namespace.
        connection: The agent's connection to the broker.
        store: The store of the agent's tasks. Other agents may use the same store.
        max_payload: The size of the largest message that the agent reads, in bytes.
        retry: Repeats the work that the store did not accept. All parts share it, so that the log has one line for the
            beginning and one line for the end of a trouble.
        bound: Whether the agent speaks sender-bound topics; see :class:`BrokerSettings`.
        dialect: Which topics the agent uses in its present life, and which topics it uses with each peer.
        pool: This process as a member of a pool; None when the agent is a single process.
    """

    agent_id: str
    topics: Topics
    connection: Connection
    store: TaskStore
    max_payload: int
    retry: StoreRetry
    bound: Bound = "prefer"
    dialect: AgentDialect = field(kw_only=True)
    pool: PoolMember | None = field(default=None, kw_only=True)

    @cached_property
    def owner(self) -> str:
        """Namespace and agent id, which name the agent in its store; see :attr:`TaskKey.agent`."""
        return f"{self.topics.namespace}/{self.agent_id}"

    @property
    def max_result(self) -> int:
        """The size of the largest result that this agent, its connection and its broker take, in bytes."""
        return min(self.max_payload, self.connection.max_payload)

    def key(self, role: TaskRole, task_id: str, requester: str | None = None) -> TaskKey:
        """The key of one of this agent's records; see :class:`TaskKey`."""
        return TaskKey(self.owner, role, task_id, requester or "")

    async def records(
        self, role: TaskRole, states: Collection[TaskState] | None, *, unsettled: bool = False
    ) -> AsyncIterator[list[TaskRecord]]:
        """Iterate over this agent's records in the order in which they were added, in lists of up to 100.

        Args:
            role: Received or delegated tasks.
            states: Only tasks in one of these states; None means all states.
            unsettled: Only tasks that are not settled; see :attr:`TaskRecord.settled`.
        """
        after = 0
        while records := await self.store.find(
            self.owner, role, states=states, unsettled=unsettled, after=after, limit=_CHUNK
        ):
            yield records
            after = records[-1].position

    async def outlines(self, role: TaskRole, states: Collection[TaskState]) -> AsyncIterator[list[Outline]]:
        """Iterate over the outlines of this agent's records in the order in which they were added, in lists.

        Args:
            role: Received or delegated tasks.
            states: Only tasks in one of these states.
        """
        after = 0
        while found := await self.store.outlines(self.owner, role, states, after=after, limit=_OUTLINES):
            yield found
            after = found[-1].position
