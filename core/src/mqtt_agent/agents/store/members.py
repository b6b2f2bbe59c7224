"""A store in PostgreSQL as one member of a pool uses it: several processes do the tasks of one agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from typing_extensions import override

from mqtt_agent.agents.store.base import ACTIVE, OPEN, TaskKey, TaskRecord
from mqtt_agent.agents.store.lease import Beat, Lease, Pool
from mqtt_agent.agents.store.pool_view import Member, members
from mqtt_agent.agents.store.postgres import CLAIM, COLUMNS, KEY, PostgresStore, escape, unescape
from mqtt_agent.wire import TaskState

__all__ = ["Holding", "MemberStore"]

_OVER = ", ".join(repr(state.value) for state in TaskState if state.terminal)

_ACTIVE = ", ".join(repr(state.value) for state in sorted(ACTIVE))
_OPEN = ", ".join(repr(state.value) for state in sorted(OPEN))

CLAIM_OWN = CLAIM.replace("attempt = attempt + 1", "attempt = attempt + 1, member = %(member)s")
_SAME = (
    "SELECT 1 FROM {schema}.tasks AS other WHERE other.context = tasks.context AND other.agent = tasks.agent"
    " AND other.state"
)
_TURN = (
    f"(context IS NULL OR NOT (EXISTS ({_SAME} IN ({_ACTIVE})) OR EXISTS ({_SAME} = '{TaskState.SUBMITTED}'"
    " AND other.position < tasks.position)))"
)
CLAIM_IN_TURN = CLAIM_OWN.replace(" ORDER BY position LIMIT", f" AND {_TURN} ORDER BY position LIMIT")
COUNT_IN_TURN = (
    "SELECT count(*) FROM (SELECT 1 FROM {schema}.tasks WHERE agent = %(agent)s AND role = 'received'"
    f" AND state = '{TaskState.SUBMITTED}' AND {_TURN} LIMIT 1000) AS found"
)
OWN = " UNION ALL ".join(
    "SELECT task_id, requester, attempt FROM {schema}.tasks"
    f" WHERE state = '{state}' AND agent = %(agent)s AND role = 'received' AND member = %(member)s"
    for state in sorted(ACTIVE)
)
OWNER = (
    f"SELECT member FROM {{schema}}.tasks WHERE {KEY} AND member IN"
    " (SELECT member FROM {schema}.members WHERE agent = %s AND lease_until > clock_timestamp())"
)
ENDED = (
    "SELECT task_id FROM {schema}.tasks WHERE agent = %(agent)s AND role = 'delegated' AND task_id = ANY(%(tasks)s)"
    f" AND requester = '' AND (state IN ({_OVER})) IS TRUE"  # IS TRUE: a search by the keys
)
ADOPT = (
    "UPDATE {schema}.tasks SET member = %(member)s WHERE agent = %(agent)s AND role = 'delegated'"
    f" AND state IN ({_OPEN}) AND (member IS NULL OR NOT EXISTS (SELECT 1 FROM {{schema}}.members AS owner"
    f" WHERE owner.agent = tasks.agent AND owner.member = tasks.member)) RETURNING {COLUMNS}"
)
NEXT_EPOCH = "UPDATE {schema}.pools SET epoch = epoch + 1 WHERE agent = %(agent)s RETURNING epoch"


class Holding(NamedTuple):
    """A task that a member works on, according to the store.

    Attributes:
        key: The key of the task's record.
        attempt: The number of the attempt.
    """

    key: TaskKey
    attempt: int


class MemberStore(PostgresStore):
    """A store in PostgreSQL for one member of a pool, which notes which tasks the member has begun and given.

    It uses the thread and the connection of the pool's store.

    A member has a lease. When the member dies, the lease ends, and another member sets its tasks back to ``submitted``.
    :meth:`reopen` does nothing, because the tasks of the other members go on.

    Args:
        store: The store of the pool.
        agent: The agent of the pool; see :attr:`TaskKey.agent`.
        member: The member's id, a new one for each process.
        on_beat: Called on the event loop when members have died, or when this member's own lease has ended.
        context_of: Returns the context of a received task, or None. Tasks of one context run one after the other, in
            the order in which they were added. Without this function, all tasks may run at once.

    Attributes:
        member: The member's id.
        ordered: Whether tasks of one context run one after the other.
        pool: What all members have in common. Set by :meth:`join`.
    """

    def __init__(
        self,
        store: PostgresStore,
        agent: str,
        member: str,
        on_beat: Callable[[Beat], None],
        context_of: Callable[[TaskRecord], str | None] | None = None,
    ) -> None:
        super().__init__(store._url, schema=store.schema, patience=store._patience, lease=store.lease)
        self.member: str = member
        self.ordered: bool = context_of is not None
        self._context_of = context_of
        self.pool: Pool
        self._store = store
        self._agent = agent
        self._on_beat = on_beat
        self._lease: Lease | None = None

    # Membership

    async def join(self) -> None:
        """Become a member of the pool. The store must be open.

        Raises:
            StoreError: The database cannot be used.
        """
        loop, store = asyncio.get_running_loop(), self._store

        def beat(beat: Beat) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._note, beat)

        agent = escape(self._agent)
        # A renewal that takes longer than the lease is too late. No lock may keep the thread from a renewal.
        engine = store.new_engine(silent_for=store.lease, lock_timeout=max(1.0, store.lease / 6))
        lease = Lease(engine, self.statement, agent, self.member, store.lease, beat)
        self._lease = lease  # before the wait: when the start is canceled there, the lease must be given back
        self.pool = await lease.join()

    def _note(self, beat: Beat) -> None:
        self.restart_search(self._agent)
        if self._lease is not None:
            self._on_beat(beat)

    async def leave(self) -> bool:
        """Give the tasks back that this member works on, and leave the pool.

        Returns:
            Whether no other member is left. False when this member has not joined.

        Raises:
            StoreError: The database cannot be used. The lease then ends by itself.
        """
        lease, self._lease = self._lease, None
        return lease is not None and await lease.leave()

    def suspect(self, member: str) -> None:
        """Note that the broker has lost the connection of a member; see :meth:`Lease.suspect`."""
        if self._lease is not None:
            self._lease.suspect(member)

    def trust(self, member: str) -> None:
        """Note that a member has said that it is online; see :meth:`Lease.trust`."""
        if self._lease is not None:
            self._lease.trust(member)

    async def next_epoch(self) -> int:
        """Count the pool's epoch up, and return it; see :attr:`Pool.epoch`."""
        ((epoch,),) = await self.rows(NEXT_EPOCH, {"agent": escape(self._agent)})
        return epoch

    async def members(self) -> list[Member]:
        """The members of the pool, oldest first."""
        return await members(self, self._agent)

    # Tasks

    async def own(self) -> list[Holding]:
        """The received tasks that this member works on, according to the store."""
        rows = await self.rows(OWN, {"agent": escape(self._agent), "member": self.member})
        return [
            Holding(TaskKey(self._agent, "received", unescape(task_id), unescape(requester)), attempt)
            for task_id, requester, attempt in rows
        ]

    async def owner(self, key: TaskKey) -> str | None:
        """The member that has begun a task last, if its lease has not ended."""
        rows = await self.rows(OWNER, (*map(escape, key), escape(self._agent)))
        return rows[0][0] if rows else None

    async def ended(self, task_ids: Iterable[str]) -> list[str]:
        """The ids of those delegated tasks that are over."""
        values: dict[str, Any] = {"agent": escape(self._agent), "tasks": list(map(escape, task_ids))}
        return [unescape(task_id) for (task_id,) in await self.rows(ENDED, values)]

    async def adopt(self) -> list[TaskRecord]:
        """Become the member that asks for those open delegated tasks whose member has left the pool or has died.

        Returns:
            The records of these tasks.
        """
        return await self.records(ADOPT, {"agent": escape(self._agent), "member": self.member})

    @override
    async def open(self) -> None:
        await self._store.open()

    @override
    async def close(self) -> None:
        await self._store.close()

    @override
    async def _submit(self, work: Any, *, writes: bool) -> Any:
        return await self._store._submit(work, writes=writes)

    @override
    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        received = record.key.role == "received"
        context = self._context_of(record) if self._context_of is not None and received else None
        if context is not None:  # it is claimed when it is its turn
            return await self.add_with(record, context=escape(context))
        if not received or record.state in ACTIVE:
            return await self.add_with(record, member=self.member)
        return await super().add(record)

    @override
    async def claim(self, agent: str) -> TaskRecord | None:
        if self.ordered:
            return await self.claim_in_turn(agent, CLAIM_IN_TURN, member=self.member)
        return await self.claim_with(agent, CLAIM_OWN, member=self.member)

    @override
    async def reopen(self, agent: str) -> int:
        return 0

    async def count_in_turn(self, agent: str) -> int:
        """Count the tasks that may begin now, up to 1,000."""
        ((count,),) = await self.rows(COUNT_IN_TURN, {"agent": escape(agent)})
        return count
