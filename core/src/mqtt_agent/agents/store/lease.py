"""The lease of a pool's member: a thread renews it, and takes the tasks of members whose lease has ended."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from mqtt_agent.agents.store.base import ACTIVE
from mqtt_agent.errors import StoreError
from mqtt_agent.logs import logger_of
from mqtt_agent.wire import TaskState, utc_now

if TYPE_CHECKING:
    from mqtt_agent.agents.store.postgres_engine import PostgresEngine
    from mqtt_agent.agents.store.postgres_sets import Statement

__all__ = ["Beat", "Lease", "Pool"]

logger: logging.Logger = logger_of(__name__)

_ACTIVE = ", ".join(repr(state.value) for state in sorted(ACTIVE))
_UNTIL = "clock_timestamp() + make_interval(secs => %(lease)s)"
# A statement may wait for a lock or a disk, and then run much later than it was sent. What has kept this member from
# renewing its lease meanwhile may have kept the others from it too.
_FRESH = (
    "own.agent = %(agent)s AND own.member = %(member)s"
    " AND own.lease_until > clock_timestamp() + make_interval(secs => %(missed)s)"
)
_LIVE = "agent = %(agent)s AND lease_until > clock_timestamp()"

# The row of the pool is locked until the transaction ends. So of two members that join or leave together, the second
# sees the row of the first, or sees that this row is gone.
OPEN_POOL = (
    "INSERT INTO {schema}.pools (agent, started, epoch) VALUES (%(agent)s, %(now)s, 1)"
    " ON CONFLICT (agent) DO UPDATE SET epoch = pools.epoch + 1"
)
RESTART_POOL = (
    "UPDATE {schema}.pools SET started = %(now)s WHERE agent = %(agent)s"
    f" AND NOT EXISTS (SELECT 1 FROM {{schema}}.members WHERE {_LIVE}) AND started < %(now)s"
)
JOIN = f"INSERT INTO {{schema}}.members (agent, member, lease_until) VALUES (%(agent)s, %(member)s, {_UNTIL})"
READ_POOL = "SELECT started, epoch FROM {schema}.pools WHERE agent = %(agent)s"
RENEW = (
    f"INSERT INTO {{schema}}.members (agent, member, lease_until) VALUES (%(agent)s, %(member)s, {_UNTIL})"
    " ON CONFLICT (agent, member) DO UPDATE SET lease_until = excluded.lease_until RETURNING xmax = 0"
)
REAP = (
    "WITH lapsed AS MATERIALIZED (DELETE FROM {schema}.members WHERE agent = %(agent)s AND member <> %(member)s"
    f" AND EXISTS (SELECT 1 FROM {{schema}}.members AS own WHERE {_FRESH})"
    " AND lease_until < clock_timestamp() + CASE WHEN member = ANY(%(suspects)s)"
    " THEN make_interval(secs => %(missed)s) ELSE make_interval() END RETURNING member),"
    " orphans AS MATERIALIZED (SELECT ctid AS place FROM {schema}.tasks AS task"
    f" WHERE agent = %(agent)s AND role = 'received' AND state IN ({_ACTIVE})"
    " AND (member IS NULL OR member IN (SELECT member FROM lapsed) OR NOT EXISTS (SELECT 1 FROM {schema}.members"
    " AS owner WHERE owner.agent = task.agent AND owner.member = task.member)) FOR UPDATE SKIP LOCKED),"
    f" reopened AS (UPDATE {{schema}}.tasks SET state = '{TaskState.SUBMITTED}', member = NULL,"
    " updated_at = extract(epoch FROM clock_timestamp())"
    " WHERE ctid = ANY (ARRAY (SELECT place FROM orphans)) RETURNING 1)"
    " SELECT (SELECT count(*) FROM lapsed), (SELECT count(*) FROM reopened)"
)
GIVE_BACK = (
    f"UPDATE {{schema}}.tasks SET state = '{TaskState.SUBMITTED}', member = NULL,"
    " updated_at = extract(epoch FROM clock_timestamp())"
    f" WHERE agent = %(agent)s AND role = 'received' AND state IN ({_ACTIVE}) AND member = %(member)s"
)
LEAVE = "DELETE FROM {schema}.members WHERE agent = %(agent)s AND member = %(member)s"
LOCK_POOL = "SELECT 1 FROM {schema}.pools WHERE agent = %(agent)s FOR UPDATE"
COUNT_LIVE = f"SELECT count(*) FROM {{schema}}.members WHERE {_LIVE} AND member <> %(member)s"

_BEATS = 3
"""How many times a lease is renewed in its length."""
_LOOKS = 12
"""How many times a member looks for ended leases in the length of a lease."""
_SURE = 2
"""How many renewals without a break a member needs before it may end the leases of others."""
_LATE = 1.5
"""How many intervals may pass between two renewals without a break."""
_CONTRADICTED_WITHIN = 2.0
"""Seconds in which a suspect may say that it is online, before the suspicion counts: anybody may name any member."""
_MOST_SUSPECTS = 100
"""How many members are suspected at once. Further ones push the first ones out: anybody may name any member."""


class Pool(NamedTuple):
    """What all members of a pool have in common.

    Attributes:
        started: When the first of the present members joined, ISO 8601 UTC.
        epoch: A number that grows whenever a member joins.
    """

    started: str
    epoch: int


class Beat(NamedTuple):
    """What a look at the leases has changed.

    Attributes:
        lost: Whether this member's own lease had ended: other members have its tasks.
        lapsed: How many members were removed, because their leases had ended.
        reopened: How many tasks are ``submitted`` again.
    """

    lost: bool
    lapsed: int
    reopened: int


class Lease:
    """The lease of one member. A thread renews it, so that a busy event loop does not lose its lease.

    All times are those of the database. When the database was away, all leases may have ended although their members
    live. So only a member that has renewed its own lease twice without a break ends the leases of others.

    A member whose connection to the broker is lost is suspected for the length of a lease, unless it says within two
    seconds, or later, that it is online. When a suspect has missed a renewal, it counts as dead, and nobody waits for
    the end of its lease. A suspect that has lost only the broker renews its lease, and keeps it.

    Args:
        engine: A connection to the database that nothing else uses.
        statement: Makes a statement for the engine.
        agent: The agent, see :attr:`TaskKey.agent`, as the database has it.
        member: The member, as the database has it.
        seconds: The length of a lease.
        on_beat: Called in the thread when a look at the leases has changed something.
    """

    def __init__(
        self,
        engine: PostgresEngine,
        statement: Callable[[str, dict[str, Any]], Statement],
        agent: str,
        member: str,
        seconds: float,
        on_beat: Callable[[Beat], None],
    ) -> None:
        self._engine = engine
        self._make = statement
        self._values: dict[str, Any] = {
            "agent": agent,
            "member": member,
            "lease": seconds,
            "missed": seconds * (1 - _LATE / _BEATS),
        }
        self._seconds = seconds
        self._on_beat = on_beat
        self._ending = threading.Event()
        self._renewed_at = 0.0
        self._renewals = 0
        """How many times the lease was renewed without a break."""
        self._failing = False
        self._suspects: dict[str, float] = {}
        """When the broker has lost the connection of a member, by the member's id."""
        self._suspecting = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._joined: asyncio.Future[Pool] = self._loop.create_future()
        self._left: asyncio.Future[bool] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, name="mqtt-agent-lease", daemon=True)

    async def join(self) -> Pool:
        """Add the member to the pool, and begin to renew the lease.

        Raises:
            StoreError: The database cannot be used.
        """
        self._thread.start()
        return await asyncio.shield(self._joined)

    async def leave(self) -> bool:
        """Give the member's tasks back, and remove the member from the pool.

        Returns:
            Whether no other member is left.

        Raises:
            StoreError: The database cannot be used. Then the lease ends by itself, and others take the tasks.
        """
        self._ending.set()
        return await asyncio.shield(self._left)

    def suspect(self, member: str) -> None:
        """Note that the broker has lost the connection of a member: the member may be dead. Safe in any thread."""
        with self._suspecting:
            if member in self._suspects:  # the time of the first status counts
                return
            while len(self._suspects) >= _MOST_SUSPECTS:
                del self._suspects[next(iter(self._suspects))]
            self._suspects[member] = time.monotonic()

    def trust(self, member: str) -> None:
        """Note that a member has said that it is online: it is no suspect any more. Safe in any thread."""
        with self._suspecting:
            self._suspects.pop(member, None)

    # In the thread

    def _main(self) -> None:
        try:
            try:
                pool = self._join()
            except BaseException as error:
                self._tell(self._joined, error=error)
                return
            self._tell(self._joined, pool)
            while not self._ending.wait(self._seconds / _LOOKS):
                self._look()
            try:
                self._tell(self._left, self._leave())
            except BaseException as error:
                self._tell(self._left, error=error)
        finally:
            self._engine.close()

    def _tell(self, future: asyncio.Future[Any], value: Any = None, error: BaseException | None = None) -> None:
        def tell() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(tell)
        except RuntimeError:  # the loop is closed: nothing waits any more
            return

    def _execute(self, *statements: str) -> list[Any]:
        values = {**self._values, "now": utc_now(), "suspects": self._present_suspects()}
        return self._engine.execute(*(self._make(each, values) for each in statements))

    def _present_suspects(self) -> list[str]:
        now = time.monotonic()
        with self._suspecting:
            self._suspects = {each: since for each, since in self._suspects.items() if since > now - self._seconds}
            return [each for each, since in self._suspects.items() if since <= now - _CONTRADICTED_WITHIN]

    def _join(self) -> Pool:
        self._renewed_at = time.monotonic()
        (started, epoch) = self._execute(OPEN_POOL, RESTART_POOL, JOIN, READ_POOL)[-1][0]
        return Pool(started, epoch)

    def _leave(self) -> bool:
        return self._execute(LOCK_POOL, GIVE_BACK, LEAVE, COUNT_LIVE)[-1][0][0] == 0

    def _look(self) -> None:
        """Renew the lease if it is time, and end the leases of others if this is allowed."""
        try:
            lost = self._renew() if time.monotonic() - self._renewed_at >= self._seconds / _BEATS else False
            lapsed = reopened = 0
            if self._renewals >= _SURE and not self._is_late(time.monotonic()):
                ((lapsed, reopened),) = self._execute(REAP)[0]
        except StoreError as error:
            if not self._failing:
                logger.warning(
                    "the lease of member %s was not renewed, and is tried again every %.1f s; if the lease ends before "
                    "this works, other members take the tasks of this member: %s",
                    self._values["member"],
                    self._seconds / _LOOKS,
                    error,
                )
            self._failing, self._renewals = True, 0
            return
        self._failing = False
        if lost or lapsed or reopened:
            self._on_beat(Beat(lost, lapsed, reopened))

    def _renew(self) -> bool:
        """Renew the lease. Returns whether it had ended, and was removed by another member."""
        now = time.monotonic()
        ((lost,),) = self._execute(RENEW)[0]
        self._renewals = 1 if lost or self._is_late(now) else self._renewals + 1
        self._renewed_at = now
        return lost

    def _is_late(self, now: float) -> bool:
        return now - self._renewed_at > _LATE * self._seconds / _BEATS
