"""Random changes of tasks: each store gives the same answers as a very simple model."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from mqtt_agent.agents.store import ACTIVE, OPEN, RESERVED_SEQS, TaskKey, TaskRecord, TaskStore
from mqtt_agent.wire import TaskState
from support import soon

from .conftest import AGENT, STORES, new_record

T = TypeVar("T")

STATES = st.sampled_from(TaskState)
IDS = st.sampled_from("abcdef")
ROLES = st.sampled_from(["received", "delegated"])
REQUESTERS = st.sampled_from(["", "planner"])
MOMENTS = st.integers(0, 10).map(float)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "state": STATES,
        "seq": st.integers(0, 2**63 - 1),
        "attempt": st.integers(0, 3),
        "saved": JSON,
        "inputs": st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=2), max_size=2),
        "result": st.none() | st.dictionaries(st.text(max_size=5), JSON, max_size=2),
        "reply_to": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        "settled": st.booleans(),
        "cancel_requested": st.booleans(),
    },
)


EXAMPLES = {"memory": 40, "sqlite": 40, "postgres": 15, "pooler": 10}


class Lives(RuleBasedStateMachine):
    """The model is a list of records in the order of adding. Each answer is computed from the whole list."""

    make: Any

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.store: TaskStore = type(self).make(Path(self.folder.name) / "tasks.db")
        self.model: list[TaskRecord] = []
        self.ended: dict[int, TaskRecord] = {}
        self.run(self.store.open())

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.close()
        self.folder.cleanup()

    def run(self, awaitable: Awaitable[T]) -> T:
        return self.loop.run_until_complete(soon(awaitable))

    def known(self, key: TaskKey) -> TaskRecord | None:
        return next((record for record in self.model if record.key == key), None)

    def became(self, old: TaskRecord, new: TaskRecord | None) -> None:
        """Replace a record of the model by the record that the store returned, after a check of ``updated_at``."""
        assert new is not None
        if new.state == old.state:
            assert new.updated_at == old.updated_at
        else:
            assert new.updated_at > 1000
        self.model[self.model.index(old)] = new

    @rule(
        task_id=IDS, role=ROLES, requester=REQUESTERS, state=STATES, saved=JSON, settled=st.booleans(), moment=MOMENTS
    )  # fmt: skip
    def add(
        self, task_id: str, role: Any, requester: str, state: TaskState, saved: Any, settled: bool, moment: float
    ) -> None:
        record = new_record(
            task_id, role=role, requester=requester, state=state, saved=saved, settled=settled, updated_at=moment
        )
        there, added = self.run(self.store.add(record))
        known = self.known(record.key)
        assert added == (known is None)
        if known is None:
            assert there == replace(record, position=there.position)
            assert all(there.position > other.position for other in self.model)
            self.model.append(there)
        else:
            assert there == known

    @rule(
        task_id=IDS, role=ROLES, requester=REQUESTERS, expected=st.sets(STATES),
        attempt=st.none() | st.integers(0, 2), changes=CHANGES,
    )  # fmt: skip
    def change(
        self, task_id: str, role: Any, requester: str, expected: set[TaskState], attempt: int | None, changes: Any
    ) -> None:
        key = TaskKey(AGENT, role, task_id, requester)
        after = self.run(self.store.change(key, expected, expected_attempt=attempt, **changes))
        known = self.known(key)
        unexpected = known is None or known.state not in expected or attempt not in (None, known.attempt)
        if known is None or unexpected or (known.state.terminal and set(changes) - {"settled", "reply_to"}):
            assert after is None
        else:
            assert after == replace(known, **changes, updated_at=after.updated_at if after else 0)
            self.became(known, after)

    @rule()
    def claim(self) -> None:
        waiting = [r for r in self.model if r.key.role == "received" and r.state is TaskState.SUBMITTED]
        if any(record.seq > 2**63 - 1 - RESERVED_SEQS for record in waiting):
            return
        claimed = self.run(self.store.claim(AGENT))
        if not waiting:
            assert claimed is None
            return
        first = waiting[0]
        assert claimed is not None
        assert claimed == replace(
            first,
            state=TaskState.WORKING,
            attempt=first.attempt + 1,
            seq=first.seq + RESERVED_SEQS,
            updated_at=claimed.updated_at,
        )
        self.became(first, claimed)

    @rule()
    def reopen(self) -> None:
        begun = [record for record in self.model if record.key.role == "received" and record.state in ACTIVE]
        assert self.run(self.store.reopen(AGENT)) == len(begun)
        for record in begun:
            after = self.run(self.store.get(record.key))
            assert after == replace(record, state=TaskState.SUBMITTED, updated_at=after.updated_at if after else 0)
            self.became(record, after)

    @rule(before=MOMENTS | st.just(1e12), limit=st.integers(1, 3))
    def sweep(self, before: float, limit: int) -> None:
        over = [record for record in self.model if record.state.terminal and record.updated_at < before]
        gone = sorted(over, key=lambda record: (record.updated_at, record.position))[:limit]
        assert self.run(self.store.sweep(AGENT, before, limit=limit)) == len(gone)
        self.model = [record for record in self.model if record not in gone]
        for record in gone:
            self.ended.pop(record.position, None)

    @precondition(lambda self: self.model)
    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.run(self.store.open())

    @rule(
        role=ROLES, states=st.none() | st.sets(STATES), unsettled=st.booleans(), limit=st.integers(0, 4), data=st.data()
    )  # fmt: skip
    def find(self, role: Any, states: Any, unsettled: bool, limit: int, data: Any) -> None:
        after = data.draw(st.sampled_from([0, *(record.position for record in self.model)]))
        fitting = [
            record
            for record in self.model
            if record.key.role == role
            and (states is None or record.state in states)
            and not (unsettled and record.settled)
        ]
        found = self.run(self.store.find(AGENT, role, states=states, unsettled=unsettled, after=after, limit=limit))
        assert found == [record for record in fitting if record.position > after][:limit]
        count = self.run(self.store.count(AGENT, role, OPEN))
        assert count == sum(record.state in OPEN for record in self.model if record.key.role == role)

    @invariant()
    def what_is_over_stays_over(self) -> None:
        for record in self.model:
            if record.state.terminal:
                ended = self.ended.setdefault(record.position, record)
                assert replace(record, settled=ended.settled, reply_to=ended.reply_to) == ended

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        held = [record for role in ("received", "delegated") for record in self.run(self.store.find(AGENT, role))]
        assert sorted(held, key=lambda record: record.position) == self.model


@pytest.mark.parametrize("name", STORES)
def test_any_life_goes_by_the_rules(name: str) -> None:
    machine = type(f"Lives_{name}", (Lives,), {"make": staticmethod(STORES[name])})
    machine.TestCase.settings = settings(max_examples=EXAMPLES[name], stateful_step_count=30, deadline=None)
    machine.TestCase("runTest").runTest()
