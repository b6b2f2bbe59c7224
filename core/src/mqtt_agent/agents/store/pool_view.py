"""What a store in PostgreSQL knows of a pool: its members, and which member has which task. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mqtt_agent.agents.store.base import ACTIVE, TaskKey
from mqtt_agent.agents.store.postgres import PostgresStore, escape, unescape

__all__ = ["Held", "Member", "held", "members", "members_of", "pools"]

_ACTIVE = ", ".join(repr(state.value) for state in sorted(ACTIVE))

_MEMBERS = (
    "SELECT agent, member, extract(epoch FROM joined)::float8,"
    " extract(epoch FROM lease_until - clock_timestamp())::float8,"
    " (SELECT count(*) FROM {schema}.tasks WHERE tasks.agent = members.agent AND tasks.role = 'received'"
    f" AND tasks.state IN ({_ACTIVE})"
    " AND tasks.member = members.member)"
    " FROM {schema}.members WHERE"
)
MEMBERS = f"{_MEMBERS} agent = %(agent)s ORDER BY joined, member"
POOLS = f"{_MEMBERS} starts_with(agent, %(prefix)s) ORDER BY agent, joined, member LIMIT %(most)s"
HELD = (
    "SELECT agent, member, task_id, requester, state, updated_at FROM {schema}.tasks WHERE agent = ANY(%(agents)s)"
    f" AND role = 'received' AND state IN ({_ACTIVE}) AND member IS NOT NULL ORDER BY position LIMIT %(most)s"
)
MEMBERS_OF = (
    "SELECT task_id, requester, member FROM {schema}.tasks WHERE task_id = ANY(%(tasks)s) AND agent = %(agent)s"
    " AND role = 'received' AND member IS NOT NULL"
)


class Member(NamedTuple):
    """A member of a pool.

    Attributes:
        member: The member's id.
        joined: When the member joined, Unix seconds.
        lease: Seconds until the member's lease ends, unless the member renews it. Below 0, the lease has ended.
        tasks: How many tasks the member works on.
    """

    member: str
    joined: float
    lease: float
    tasks: int


class Held(NamedTuple):
    """A task that a member of a pool works on.

    Attributes:
        agent_id: The agent id of the pool.
        member: The member's id.
        task_id: The id of the task.
        requester: The requester of the task, as its :class:`TaskKey` has it.
        state: The state of the task.
        since: When the task got its state, Unix seconds.
    """

    agent_id: str
    member: str
    task_id: str
    requester: str
    state: str
    since: float


async def members(store: PostgresStore, agent: str) -> list[Member]:
    """The members of a pool, oldest first.

    Args:
        store: The pool's store, which must be open.
        agent: The agent of the pool; see :attr:`TaskKey.agent`.

    Raises:
        StoreError: The database cannot be used.
    """
    return [Member(*row) for _, *row in await store.rows(MEMBERS, {"agent": escape(agent)})]


async def pools(store: PostgresStore, namespace: str, most: int) -> dict[str, list[Member]]:
    """The members of all pools of a namespace that are in the store, by agent id.

    Args:
        store: The store, which must be open.
        namespace: The namespace.
        most: How many members are read.

    Raises:
        StoreError: The database cannot be used.
    """
    prefix = f"{escape(namespace)}/"
    found: dict[str, list[Member]] = {}
    for agent, *row in await store.rows(POOLS, {"prefix": prefix, "most": most}):
        agent_id = unescape(agent[len(prefix) :])
        if "/" not in agent_id:  # else it belongs to a namespace whose name begins with this one
            found.setdefault(agent_id, []).append(Member(*row))
    return found


async def held(store: PostgresStore, namespace: str, agent_ids: Sequence[str], most: int) -> list[Held]:
    """The tasks that members of pools work on, oldest first.

    Args:
        store: The store, which must be open.
        namespace: The namespace.
        agent_ids: The pools.
        most: How many tasks are read.

    Raises:
        StoreError: The database cannot be used.
    """
    prefix = f"{escape(namespace)}/"
    values: dict[str, Any] = {"agents": [prefix + escape(each) for each in agent_ids], "most": most}
    return [
        Held(unescape(agent[len(prefix) :]), member, unescape(task_id), unescape(requester), state, since)
        for agent, member, task_id, requester, state, since in await store.rows(HELD, values)
    ]


async def members_of(store: PostgresStore, agent: str, task_ids: Iterable[str]) -> dict[TaskKey, str]:
    """The members that work on received tasks. For a task that is over, the member that has worked on the task last.

    Args:
        store: The pool's store, which must be open.
        agent: The agent of the pool; see :attr:`TaskKey.agent`.
        task_ids: The ids of the tasks.

    Returns:
        By key, the id of the member. A task that waits has no member, and neither has a task of a single process.

    Raises:
        StoreError: The database cannot be used.
    """
    values: dict[str, Any] = {"agent": escape(agent), "tasks": list(map(escape, task_ids))}
    return {
        TaskKey(agent, "received", unescape(task_id), unescape(requester)): member
        for task_id, requester, member in await store.rows(MEMBERS_OF, values)
    }
