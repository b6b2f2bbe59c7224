"""What a store in PostgreSQL knows of a pool: its members, and which member has which task. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from mqtt_agent.agents.store.base import ACTIVE, TaskKey
from mqtt_agent.agents.store.postgres import PostgresStore, escape, unescape

__all__ = ["Member", "members", "members_of"]

_ACTIVE = ", ".join(repr(state.value) for state in sorted(ACTIVE))

MEMBERS = (
    "SELECT member, extract(epoch FROM joined)::float8, extract(epoch FROM lease_until - clock_timestamp())::float8,"
    " (SELECT count(*) FROM {schema}.tasks WHERE tasks.agent = members.agent AND tasks.role = 'received'"
    f" AND tasks.state IN ({_ACTIVE})"
    " AND tasks.member = members.member)"
    " FROM {schema}.members WHERE agent = %(agent)s ORDER BY joined, member"
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


async def members(store: PostgresStore, agent: str) -> list[Member]:
    """The members of a pool, oldest first.

    Args:
        store: The pool's store, which must be open.
        agent: The agent of the pool; see :attr:`TaskKey.agent`.

    Raises:
        StoreError: The database cannot be used.
    """
    return [Member(*row) for row in await store.rows(MEMBERS, {"agent": escape(agent)})]


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
