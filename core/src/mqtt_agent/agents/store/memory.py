"""A store in memory: for tests, and for agents whose tasks may be lost with their process."""

from __future__ import annotations

import heapq
import threading
import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Any, cast

from typing_extensions import Unpack, override

from mqtt_agent.agents.store.base import ACTIVE, Changes, Outline, TaskKey, TaskRecord, TaskRole, TaskStore
from mqtt_agent.agents.store.rows import (
    OUTLINED,
    Row,
    at_position,
    claim_row,
    decide_change,
    encode_changes,
    to_outline,
    to_record,
    to_row,
)
from mqtt_agent.aio.forks import in_child
from mqtt_agent.wire import TaskState

__all__ = ["MemoryStore"]


class MemoryStore(TaskStore):
    """Keeps tasks in memory. They survive a restart of the agent, but not of the process.

    The store follows the rules of :class:`TaskStore`, also between threads. It is always open: :meth:`close` removes no
    task.
    """

    def __init__(self) -> None:
        self.since: float = time.time()
        self._renew_lock()
        in_child(self._renew_lock)  # another thread may hold the lock at the fork
        self._rows: dict[int, Row] = {}
        self._positions: dict[TaskKey, int] = {}
        self._last_position = 0
        self._by_state = _Index()
        self._by_peer = _Index()
        self._unsettled = _Index()
        self._over: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        """For each agent, a heap of the times at which its tasks ended, with the positions of the tasks."""

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    @override
    async def open(self) -> None:
        """Do nothing: the store is always open."""

    @override
    async def close(self) -> None:
        """Do nothing: the tasks stay in memory."""

    @override
    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        row = to_row(record)
        with self._lock:
            position = self._positions.get(record.key)
            if position is not None:
                return to_record(self._rows[position]), False
            self._last_position += 1
            row = row._replace(position=self._last_position)
            self._positions[TaskKey(*record.key)] = row.position
            self._put(None, row)
        return at_position(record, row.position), True

    @override
    async def get(self, key: TaskKey) -> TaskRecord | None:
        with self._lock:
            position = self._positions.get(key)
            return None if position is None else to_record(self._rows[position])

    @override
    async def change(
        self,
        key: TaskKey,
        expected: Collection[TaskState],
        *,
        expected_attempt: int | None = None,
        **changes: Unpack[Changes],
    ) -> TaskRecord | None:
        columns = encode_changes(key, changes)
        with self._lock:
            position = self._positions.get(key)
            if position is None:
                return None
            row = self._rows[position]
            decided = decide_change(row, expected, expected_attempt, columns, time.time())
            if decided is None:
                return None
            return to_record(self._update(row, decided), changes)

    @override
    async def claim(self, agent: str) -> TaskRecord | None:
        with self._lock:
            waiting = self._by_state[agent, "received", TaskState.SUBMITTED]
            if not waiting:
                return None
            row = self._rows[waiting[0]]
            return to_record(self._update(row, claim_row(row, time.time())))

    @override
    async def reopen(self, agent: str) -> int:
        with self._lock:
            positions = [position for state in ACTIVE for position in self._by_state[agent, "received", state]]
            columns = {"state": TaskState.SUBMITTED.value, "updated_at": time.time()}
            for position in positions:
                self._update(self._rows[position], columns)
            return len(positions)

    @override
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
        wanted = frozenset(TaskState if states is None else states)
        found: list[TaskRecord] = []
        with self._lock:
            # Each of these choices has all matching records, in order, and other records. The shortest is the fastest.
            choices = [[self._by_state[agent, role, state] for state in wanted]]
            if peer is not None:
                choices.append([self._by_peer[agent, role, peer]])
            if unsettled:
                choices.append([self._unsettled[agent, role]])
            shortest = min(choices, key=lambda lists: sum(map(len, lists)))
            for position in heapq.merge(*(_beyond(positions, after) for positions in shortest)):
                if len(found) >= limit:
                    break
                row = self._rows[position]
                if row.state in wanted and peer in (None, row.peer) and not (unsettled and row.settled):
                    found.append(to_record(row))
        return found

    @override
    async def outlines(
        self, agent: str, role: TaskRole, states: Collection[TaskState], *, after: int = 0, limit: int = 1000
    ) -> list[Outline]:
        with self._lock:
            lists = [self._by_state[agent, role, state] for state in frozenset(states)]
            positions = islice(heapq.merge(*(_beyond(each, after) for each in lists)), max(0, limit))
            return [to_outline(agent, role, _outlined(self._rows[position])) for position in positions]

    @override
    async def count(self, agent: str, role: TaskRole, states: Collection[TaskState]) -> int:
        with self._lock:
            return sum(len(self._by_state[agent, role, state]) for state in frozenset(states))

    @override
    async def count_by_peer(self, agent: str, role: TaskRole, states: Collection[TaskState]) -> dict[str | None, int]:
        with self._lock:
            positions = (each for state in frozenset(states) for each in self._by_state[agent, role, state])
            return dict(Counter(self._rows[each].peer for each in positions))

    @override
    async def sweep(self, agent: str, before: float, *, limit: int = 1000) -> int:
        removed = 0
        with self._lock:
            over = self._over[agent]
            while removed < limit and over and over[0][0] < before:
                _, position = heapq.heappop(over)
                self._put(self._rows[position], None)
                removed += 1
        return removed

    def _update(self, row: Row, columns: dict[str, Any]) -> Row:
        new = row._replace(**columns)
        self._put(row, new)
        return new

    def _put(self, old: Row | None, new: Row | None) -> None:
        for index, key_of in ((self._by_state, _state_key), (self._by_peer, _peer_key), (self._unsettled, _open_key)):
            before, after = old and key_of(old), new and key_of(new)
            if before == after:
                continue
            if old and before:
                index.remove(before, old.position)
            if new and after:
                index.add(after, new.position)
        if new:
            self._rows[new.position] = new
            if TaskState(new.state).terminal and not (old and old.state == new.state):
                heapq.heappush(self._over[new.agent], (new.updated_at, new.position))
        elif old:
            del self._rows[old.position]
            del self._positions[TaskKey(old.agent, cast("TaskRole", old.role), old.task_id, old.requester)]


class _Index:
    """For each key, the positions of its records in ascending order."""

    def __init__(self) -> None:
        self._lists: defaultdict[Hashable, list[int]] = defaultdict(list)

    def __getitem__(self, key: Hashable) -> list[int]:
        return self._lists.get(key, [])

    def add(self, key: Hashable, position: int) -> None:
        positions = self._lists[key]
        positions.insert(bisect_left(positions, position), position)

    def remove(self, key: Hashable, position: int) -> None:
        positions = self._lists[key]
        del positions[bisect_left(positions, position)]
        if not positions:
            del self._lists[key]


def _state_key(row: Row) -> Hashable:
    return row.agent, row.role, row.state


def _peer_key(row: Row) -> Hashable:
    return (row.agent, row.role, row.peer) if row.peer is not None else None


def _open_key(row: Row) -> Hashable:
    return (row.agent, row.role) if not row.settled else None


_outlined = attrgetter(*OUTLINED)


def _beyond(positions: list[int], after: int) -> Iterator[int]:
    return (positions[index] for index in range(bisect_right(positions, after), len(positions)))
