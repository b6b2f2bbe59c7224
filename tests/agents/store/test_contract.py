"""The rules that every store must follow, from the docstring of TaskStore, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from functools import partial
from typing import Any

import pytest
from mqtt_agent.agents.store import ACTIVE, OPEN, RESERVED_SEQS, Outline, TaskRecord, TaskStore
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState
from support import soon

from .conftest import AGENT, new_record

S = TaskState
TERMINAL = [state for state in TaskState if state.terminal]


async def add(store: TaskStore, record: TaskRecord) -> TaskRecord:
    added, new = await soon(store.add(record))
    assert new
    return added


def ids(records: list[TaskRecord]) -> list[str]:
    return [record.task_id for record in records]


class TestAdding:
    async def test_a_record_comes_back_as_it_went_in(self, store: TaskStore) -> None:
        record = new_record(
            role="delegated",
            peer=None,
            state=S.INPUT_REQUIRED,
            attempt=3,
            seq=17,
            saved={"page": 3},
            inputs=[{"input_id": "1", "prompt": "Which year?", "answer": "2024"}],
            result={"status": "completed", "result": None},
            reply_to="a2a/v1/writer/results",
            settled=True,
            cancel_requested=True,
            created_at=1.25,
            updated_at=2.5,
            expires_at=3.75,
        )
        added = await add(store, record)
        record.position = added.position
        assert added == record
        assert await soon(store.get(record.key)) == record

    async def test_the_defaults_of_a_record_come_back_too(self, store: TaskStore) -> None:
        record = new_record()
        added = await add(store, record)
        assert (added.saved, added.result, added.expires_at, added.inputs) == (None, None, None, [])
        assert (added.settled, added.cancel_requested) == (False, False)

    async def test_a_second_record_with_the_same_key_is_not_added(self, store: TaskStore) -> None:
        first = await add(store, new_record("1", digest="first"))
        assert await soon(store.add(new_record("1", digest="second"))) == (first, False)
        assert await soon(store.get(first.key)) == first

    async def test_one_of_many_who_add_the_same_key_at_once_does_it(self, store: TaskStore) -> None:
        answers = await soon(asyncio.gather(*(store.add(new_record("1", digest=str(n))) for n in range(50))))
        assert [new for _, new in answers].count(True) == 1
        assert len({record.digest for record, _ in answers}) == 1

    async def test_agents_and_roles_do_not_mix(self, store: TaskStore) -> None:
        keys = [("a", "received"), ("a", "delegated"), ("b", "received")]
        for agent, role in keys:
            await add(store, new_record("1", agent=agent, role=role, digest=f"{agent}{role}"))  # pyright: ignore[reportArgumentType]
        found = [await soon(store.find(agent, role)) for agent, role in keys]  # pyright: ignore[reportArgumentType]
        assert [[record.digest for record in records] for records in found] == [
            ["areceived"], ["adelegated"], ["breceived"]
        ]  # fmt: skip
        assert await soon(store.claim("c")) is None
        claimed = await soon(store.claim("b"))
        assert claimed is not None
        assert claimed.key.agent == "b"
        assert await soon(store.reopen("a")) == 0

    async def test_each_requester_has_task_ids_of_its_own(self, store: TaskStore) -> None:
        requesters = ["", "planner", "stranger"]
        for requester in requesters:
            await add(store, new_record("1", requester=requester, peer=requester or None, digest=requester))
        for requester in requesters:
            key = new_record("1", requester=requester).key
            found = await soon(store.get(key))
            assert found is not None
            assert (found.key, found.digest) == (key, requester)
        changed = await soon(store.change(new_record("1", requester="planner").key, OPEN, state=S.CANCELED))
        assert changed is not None
        assert [record.state for record in await soon(store.find(AGENT, "received"))] == [
            S.SUBMITTED, S.CANCELED, S.SUBMITTED
        ]  # fmt: skip
        assert await soon(store.get(new_record("1", requester="nobody").key)) is None

    async def test_a_requester_that_is_removed_leaves_the_same_id_of_others(self, store: TaskStore) -> None:
        await add(store, new_record("1", requester="planner", state=S.COMPLETED, updated_at=1))
        await add(store, new_record("1", requester="stranger", state=S.COMPLETED, updated_at=5))
        assert await soon(store.sweep(AGENT, 2)) == 1
        assert await soon(store.get(new_record("1", requester="planner").key)) is None
        assert await soon(store.get(new_record("1", requester="stranger").key)) is not None

    async def test_a_record_that_is_not_there_is_none(self, store: TaskStore) -> None:
        record = new_record()
        assert await soon(store.get(record.key)) is None
        assert await soon(store.change(record.key, OPEN, state=S.WORKING)) is None

    async def test_positions_rise_and_are_never_used_again(self, store: TaskStore) -> None:
        first = await add(store, new_record(state=S.COMPLETED, updated_at=1))
        assert await soon(store.sweep(AGENT, 2)) == 1
        second = await add(store, new_record(position=first.position))
        assert second.position > first.position


class TestValues:
    @pytest.mark.parametrize(
        "value",
        [
            "grüße 你好 🐙 \u2028 \x7f",
            "a\0b\0",
            "",
            10**40,
            -(2**70),
            10**5000,
            [0.1, 1e308, 5e-324, 1.0, 1],
            {"": {"a\0b": [None, True, False, {}, []]}},
            "x" * 3_000_000,
            list(range(100_000)),
        ],
        ids=["unicode", "nul", "empty", "huge", "low", "digits", "floats", "nested", "megabytes", "long"],
    )
    async def test_json_comes_back_the_same(self, store: TaskStore, value: Any) -> None:
        record = new_record(task={"data": value}, saved=value, inputs=[{"answer": value}], result={"result": value})
        await add(store, record)
        got = await soon(store.get(record.key))
        assert got is not None
        assert (got.task, got.saved, got.inputs, got.result) == (
            record.task, record.saved, record.inputs, record.result
        )  # fmt: skip

    async def test_deep_values_come_back_the_same(self, store: TaskStore) -> None:
        value: Any = 1
        for _ in range(240):
            value = [value]
        record = await add(store, new_record(saved=value))
        assert record.saved == value

    @pytest.mark.parametrize("text", ["a\0b", "é", "e\u0301", "🐙", " ", "'; DROP TABLE tasks; --", "%", "x" * 5000])
    async def test_names_are_told_apart_exactly(self, store: TaskStore, text: str) -> None:
        other = text[:-1] + chr(ord(text[-1]) + 1)
        for name in (text, other):
            await add(store, new_record(name, agent=name, peer=name, digest=name, reply_to=name))
        for name in (text, other):
            (found,) = await soon(store.find(name, "received", peer=name))
            assert (found.task_id, found.peer, found.digest, found.reply_to) == (name, name, name, name)

    async def test_a_value_without_a_json_form_is_refused_and_harms_no_other(self, store: TaskStore) -> None:
        good = new_record()
        answers = await soon(
            asyncio.gather(
                store.add(new_record("bad", saved=object())),
                store.add(good),
                store.add(new_record("worse", task={"text": "\ud800"})),
                store.add(new_record("worst", seq=2**63)),
                return_exceptions=True,
            )
        )
        assert [type(answer) for answer in answers] == [StoreError, tuple, StoreError, StoreError]
        assert all(answer.permanent for answer in answers if isinstance(answer, StoreError))
        assert "'bad'" in str(answers[0])
        assert "'saved'" in str(answers[0])
        with pytest.raises(StoreError):
            await soon(store.change(good.key, OPEN, saved={1, object()}))
        assert ids(await soon(store.find(AGENT, "received"))) == [good.task_id]

    @pytest.mark.parametrize("number", [float("inf"), float("nan")])
    async def test_infinity_is_refused_as_on_the_wire(self, store: TaskStore, number: float) -> None:
        with pytest.raises(StoreError, match="'saved'"):
            await soon(store.add(new_record(saved=[number])))
        record = await add(store, new_record(saved=["NaN", "Infinity"]))
        assert record.saved == ["NaN", "Infinity"]


class TestRepeats:
    """An answer of a store may get lost. So an agent calls again, and the second call must do no harm."""

    async def test_a_repeated_add_gives_the_record_that_is_there(self, store: TaskStore) -> None:
        record = new_record("1", state=S.WORKING, attempt=1)
        stored = await add(store, record)
        for _ in range(2):
            assert await soon(store.add(record)) == (stored, False)

    async def test_a_repeated_result_changes_nothing_and_the_first_can_be_read(self, store: TaskStore) -> None:
        record = await add(store, new_record(state=S.WORKING, attempt=1))
        result = {"status": "completed", "result": [0.1, 1e300, "ü", None]}
        for made in (True, False):
            done = await soon(store.change(record.key, ACTIVE, expected_attempt=1, state=S.COMPLETED, result=result))
            assert (done is not None) is made
        stored = await soon(store.get(record.key))
        assert stored is not None
        assert (stored.state, stored.attempt, stored.result) == (S.COMPLETED, 1, result)

    async def test_a_task_that_was_claimed_unnoticed_can_be_found_and_set_back(self, store: TaskStore) -> None:
        record = await add(store, new_record("1"))
        await soon(store.claim(AGENT))
        (lost,) = await soon(store.find(AGENT, "received", states=ACTIVE))
        for _ in range(2):
            await soon(store.change(record.key, ACTIVE, expected_attempt=lost.attempt, state=S.SUBMITTED))
        assert await soon(store.count(AGENT, "received", [S.SUBMITTED])) == 1
        again = await soon(store.claim(AGENT))
        assert again is not None
        assert again.attempt == 2


class TestCopies:
    async def test_what_went_in_is_not_what_is_kept(self, store: TaskStore) -> None:
        record = new_record(saved={"pages": [1]})
        kept = (await add(store, record)).copy()
        record.task["prompt"] = "other"
        record.saved["pages"].append(2)
        record.inputs.append({})
        record.state = S.FAILED
        assert await soon(store.get(kept.key)) == kept

    async def test_what_comes_out_is_not_what_is_kept(self, store: TaskStore) -> None:
        record = new_record(saved={"pages": [1]}, inputs=[{"input_id": "1"}], result={"a": [1]})
        kept = (await add(store, record)).copy()
        for _ in range(2):
            for got in (
                (await soon(store.add(record)))[0],
                await soon(store.get(record.key)),
                await soon(store.change(record.key, OPEN)),
                *await soon(store.find(AGENT, "received")),
            ):
                assert got == kept
                assert got is not None
                got.task.clear()
                got.saved["pages"].append(2)
                got.inputs[0]["answer"] = 1
                assert got.result is not None
                got.result["a"].append(2)

    async def test_what_was_changed_in_is_not_what_is_kept(self, store: TaskStore) -> None:
        record = await add(store, new_record())
        saved = {"pages": [1]}
        await soon(store.change(record.key, OPEN, saved=saved))
        saved["pages"].append(2)
        got = await soon(store.get(record.key))
        assert got is not None
        assert got.saved == {"pages": [1]}


class TestChanging:
    async def test_named_fields_change_and_no_others(self, store: TaskStore) -> None:
        before = await add(store, new_record(saved="old", seq=5))
        after = await soon(
            store.change(
                before.key, [S.SUBMITTED], seq=9, attempt=2, saved={"page": 1}, inputs=[{"input_id": "1"}],
                reply_to="there", settled=True, cancel_requested=True, result={"a": 1},
            )
        )  # fmt: skip
        assert after is not None
        assert (after.seq, after.attempt, after.saved, after.inputs) == (9, 2, {"page": 1}, [{"input_id": "1"}])
        assert (after.reply_to, after.settled, after.cancel_requested, after.result) == ("there", True, True, {"a": 1})
        assert (after.task, after.created_at, after.position, after.state) == (
            before.task, before.created_at, before.position, before.state
        )  # fmt: skip
        assert await soon(store.get(before.key)) == after

    async def test_values_can_be_taken_away(self, store: TaskStore) -> None:
        record = await add(store, new_record(saved=1, result={}, reply_to="there", settled=True))
        after = await soon(store.change(record.key, OPEN, saved=None, result=None, reply_to=None, settled=False))
        assert after is not None
        assert (after.saved, after.result, after.reply_to, after.settled) == (None, None, None, False)

    async def test_only_a_change_of_state_is_an_update(self, store: TaskStore) -> None:
        record = await add(store, new_record(updated_at=1.0))
        for changes in ({"saved": 1}, {"state": S.SUBMITTED}, {}):
            after = await soon(store.change(record.key, OPEN, **changes))  # pyright: ignore[reportArgumentType]
            assert after is not None
            assert after.updated_at == 1.0
        started = time.time()
        after = await soon(store.change(record.key, OPEN, state=S.WORKING))
        assert after is not None
        assert started <= after.updated_at <= time.time()

    async def test_another_state_than_expected_changes_nothing(self, store: TaskStore) -> None:
        record = await add(store, new_record())
        for expected in ([S.WORKING], ACTIVE, []):
            assert await soon(store.change(record.key, expected, state=S.COMPLETED)) is None
        assert await soon(store.get(record.key)) == record

    async def test_another_attempt_than_expected_changes_nothing(self, store: TaskStore) -> None:
        record = await add(store, new_record(attempt=2))
        for attempt in (0, 1, 3):
            assert await soon(store.change(record.key, OPEN, expected_attempt=attempt, saved=1)) is None
        assert await soon(store.get(record.key)) == record
        assert await soon(store.change(record.key, OPEN, expected_attempt=2, saved=1)) is not None

    async def test_of_many_who_expect_the_same_one_wins(self, store: TaskStore) -> None:
        record = await add(store, new_record())
        answers = await soon(
            asyncio.gather(*(store.change(record.key, [S.SUBMITTED], state=S.WORKING, saved=n) for n in range(100)))
        )
        (won,) = [answer for answer in answers if answer]
        assert await soon(store.get(record.key)) == won

    async def test_a_field_that_does_not_change_is_refused(self, store: TaskStore) -> None:
        record = await add(store, new_record())
        with pytest.raises(TypeError, match="digest"):
            await soon(store.change(record.key, OPEN, digest="1"))  # pyright: ignore[reportCallIssue]
        assert await soon(store.get(record.key)) == record


class TestTheEnd:
    @pytest.mark.parametrize("state", TERMINAL)
    async def test_a_terminal_state_never_changes(self, store: TaskStore, state: TaskState) -> None:
        record = await add(store, new_record(state=state, result={"status": state.value}))
        attempts: list[dict[str, Any]] = [
            {"state": S.WORKING}, {"state": state}, {"state": S.CANCELED, "settled": True}, {"result": {}},
            {"result": None, "reply_to": "x"}, {"saved": 1}, {"seq": 1}, {"attempt": 1}, {"inputs": []},
            {"cancel_requested": True},
        ]  # fmt: skip
        for changes in attempts:
            assert await soon(store.change(record.key, list(TaskState), **changes)) is None
        assert await soon(store.claim(AGENT)) is None
        assert await soon(store.reopen(AGENT)) == 0
        assert await soon(store.get(record.key)) == record

    @pytest.mark.parametrize("state", TERMINAL)
    async def test_whether_and_where_its_result_goes_may_change(self, store: TaskStore, state: TaskState) -> None:
        record = await add(store, new_record(state=state, result={"a": 1}, updated_at=1.0))
        after = await soon(store.change(record.key, [state], settled=True, reply_to="there"))
        assert after is not None
        assert (after.settled, after.reply_to, after.state, after.result) == (True, "there", state, {"a": 1})
        assert after.updated_at == 1.0
        assert await soon(store.change(record.key, [S.WORKING], settled=False)) is None

    async def test_many_tasks_are_settled_at_once_each_only_in_its_state(self, store: TaskStore) -> None:
        over = [await add(store, new_record(f"t{number}", state=S.COMPLETED, result={"a": 1})) for number in range(3)]
        other = await add(store, new_record("other", state=S.FAILED))
        await soon(store.settle([(each.key, S.COMPLETED) for each in (*over[:2], other)]))
        await soon(store.settle([(over[0].key, S.COMPLETED)]))  # a repeat does no harm
        found = await soon(store.find(AGENT, "received", unsettled=True))
        assert ids(found) == ["t2", "other"]
        kept = await soon(store.get(over[0].key))
        assert kept is not None
        assert (kept.settled, kept.state, kept.result) == (True, S.COMPLETED, {"a": 1})


class TestClaiming:
    async def test_the_oldest_is_first(self, store: TaskStore) -> None:
        records = [await add(store, new_record()) for _ in range(5)]
        claimed = [await soon(store.claim(AGENT)) for _ in range(6)]
        assert [record and record.task_id for record in claimed] == [*ids(records), None]

    async def test_a_claim_begins_an_attempt_and_sets_event_numbers_aside(self, store: TaskStore) -> None:
        record = await add(store, new_record(seq=7, attempt=1, saved={"page": 1}, updated_at=1.0))
        claimed = await soon(store.claim(AGENT))
        assert claimed is not None
        assert (claimed.state, claimed.attempt, claimed.seq) == (S.WORKING, 2, 7 + RESERVED_SEQS)
        assert claimed.saved == {"page": 1}
        assert claimed.updated_at > 1.0
        assert await soon(store.get(record.key)) == claimed

    async def test_delegated_tasks_are_not_claimed(self, store: TaskStore) -> None:
        await add(store, new_record(role="delegated"))
        assert await soon(store.claim(AGENT)) is None

    async def test_only_submitted_tasks_are_claimed(self, store: TaskStore) -> None:
        for state in TaskState:
            await add(store, new_record(state.value, state=state))
        claimed = await soon(store.claim(AGENT))
        assert claimed is not None
        assert claimed.task_id == "submitted"
        assert await soon(store.claim(AGENT)) is None

    async def test_each_task_is_claimed_once_by_many_at_once(self, store: TaskStore) -> None:
        records = [await add(store, new_record()) for _ in range(100)]
        claimed = await soon(asyncio.gather(*(store.claim(AGENT) for _ in range(150))))
        assert sorted(ids([record for record in claimed if record])) == sorted(ids(records))
        assert all(record.attempt == 1 for record in claimed if record)

    async def test_each_task_is_claimed_once_by_several_event_loops(self, store: TaskStore) -> None:
        records = [await add(store, new_record()) for _ in range(200)]
        claimed: list[TaskRecord] = []
        together = threading.Barrier(4)

        async def claim_all() -> None:
            async with store:
                together.wait(10)
                while record := await soon(store.claim(AGENT)):
                    claimed.append(record)

        await soon(asyncio.gather(*(asyncio.to_thread(asyncio.run, claim_all()) for _ in range(4))), 30)
        assert sorted(ids(claimed)) == sorted(ids(records))

    async def test_reopened_tasks_come_first_again_and_count_their_attempts(self, store: TaskStore) -> None:
        first, second = [await add(store, new_record()) for _ in range(2)]
        await soon(store.claim(AGENT))
        assert await soon(store.reopen(AGENT)) == 1
        again = await soon(store.claim(AGENT))
        assert again is not None
        assert (again.task_id, again.attempt, again.seq) == (first.task_id, 2, 2 * RESERVED_SEQS)
        after = await soon(store.claim(AGENT))
        assert after is not None
        assert after.task_id == second.task_id

    async def test_reopening_takes_all_that_a_handler_had_begun_with(self, store: TaskStore) -> None:
        for state in TaskState:
            await add(store, new_record(state.value, state=state, updated_at=1.0))
            await add(store, new_record(state.value, state=state, role="delegated"))
        assert await soon(store.reopen(AGENT)) == len(ACTIVE)
        reopened = await soon(store.find(AGENT, "received", states=[S.SUBMITTED]))
        assert set(ids(reopened)) == {state.value for state in OPEN}
        assert {record.task_id for record in reopened if record.updated_at > 1} == {state.value for state in ACTIVE}
        for state in TaskState:
            (same,) = await soon(store.find(AGENT, "delegated", states=[state]))
            assert same.task_id == state.value
        assert await soon(store.reopen(AGENT)) == 0


class TestFinding:
    async def test_records_come_in_the_order_of_adding(self, store: TaskStore) -> None:
        states = [S.COMPLETED, S.SUBMITTED, S.WORKING, S.FAILED, S.SUBMITTED, S.COMPLETED]
        records = [await add(store, new_record(state=state)) for state in states]
        await soon(store.change(records[1].key, OPEN, state=S.WORKING))
        await soon(store.change(records[1].key, OPEN, state=S.SUBMITTED))
        assert ids(await soon(store.find(AGENT, "received"))) == ids(records)

    @pytest.mark.parametrize("states", [None, [], [S.SUBMITTED], OPEN, TERMINAL, list(TaskState)])
    @pytest.mark.parametrize("peer", [None, "a", "b", "nobody"])
    @pytest.mark.parametrize("unsettled", [False, True])
    async def test_all_that_fit_are_found_and_no_others(
        self, store: TaskStore, states: Any, peer: str | None, unsettled: bool
    ) -> None:
        records = [
            await add(store, new_record(state=state, peer=other, settled=settled))
            for settled in (False, True)
            for state in TaskState
            for other in ("a", "b", None)
        ]
        fitting = [
            record
            for record in records
            if (states is None or record.state in states)
            and (peer is None or record.peer == peer)
            and not (unsettled and record.settled)
        ]
        found = await soon(store.find(AGENT, "received", states=states, peer=peer, unsettled=unsettled))
        assert found == fitting
        pages: list[TaskRecord] = []
        while page := await soon(
            store.find(
                AGENT, "received", states=states, peer=peer, unsettled=unsettled, limit=4,
                after=pages[-1].position if pages else 0,
            )
        ):  # fmt: skip
            assert len(page) <= 4
            pages += page
        assert pages == fitting

    async def test_a_search_follows_every_change(self, store: TaskStore) -> None:
        record = await add(store, new_record())
        await soon(store.claim(AGENT))
        assert await soon(store.find(AGENT, "received", states=[S.SUBMITTED])) == []
        await soon(store.change(record.key, ACTIVE, state=S.COMPLETED))
        assert ids(await soon(store.find(AGENT, "received", states=[S.COMPLETED], unsettled=True))) == [record.task_id]
        await soon(store.change(record.key, TERMINAL, settled=True))
        assert await soon(store.find(AGENT, "received", unsettled=True)) == []
        await soon(store.change(record.key, TERMINAL, settled=False))
        assert len(await soon(store.find(AGENT, "received", unsettled=True, peer="planner"))) == 1

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_no_more_than_the_limit_is_found_also_when_it_is_none(self, store: TaskStore, limit: int) -> None:
        await add(store, new_record(state=S.COMPLETED, updated_at=1.0))
        assert await soon(store.find(AGENT, "received", limit=limit)) == []
        assert await soon(store.sweep(AGENT, 2.0, limit=limit)) == 0

    @pytest.mark.parametrize("states", [[], [S.SUBMITTED], OPEN, TERMINAL, [S.FAILED, S.FAILED]])
    async def test_outlines_agree_with_finding(self, store: TaskStore, states: Any) -> None:
        for number, state in enumerate(list(TaskState) * 2):
            fields: dict[str, Any] = {"reply_to": "a/b\0", "expires_at": 7.5, "cancel_requested": True, "peer": None}
            given = dict(list(fields.items())[: number % 5])
            await add(store, new_record(f"t-{number}\0", state=state, requester="r\0" * (number % 2), **given))
        await add(store, new_record(role="delegated"))
        await add(store, new_record(agent="a2a/v1/other"))
        found = await soon(store.outlines(AGENT, "received", states))
        assert found == await soon(TaskStore.outlines(store, AGENT, "received", states))
        assert [each.task_id for each in found] == ids(await soon(store.find(AGENT, "received", states=states)))
        pages: list[Outline] = []
        while page := await soon(
            store.outlines(AGENT, "received", states, after=pages[-1].position if pages else 0, limit=3)
        ):
            assert len(page) <= 3
            pages += page
        assert pages == found
        assert await soon(store.outlines(AGENT, "received", states, limit=0)) == []

    async def test_counting_agrees_with_finding(self, store: TaskStore) -> None:
        for number, state in enumerate(TaskState):
            for _ in range(number):
                await add(store, new_record(state=state))
        for states in ([], [S.WORKING], OPEN, TERMINAL, list(TaskState), [S.FAILED, S.FAILED]):
            found = await soon(store.find(AGENT, "received", states=states))
            assert await soon(store.count(AGENT, "received", states)) == len(found)
        assert await soon(store.count(AGENT, "delegated", list(TaskState))) == 0

    async def test_tasks_are_counted_for_each_peer(self, store: TaskStore) -> None:
        for peer, number in ((None, 1), ("planner", 2), ("with\0nul", 3)):
            for state in (S.SUBMITTED, S.WORKING, S.COMPLETED):
                for _ in range(number):
                    await add(store, new_record(state=state, peer=peer))
        await add(store, new_record(state=S.SUBMITTED, peer="other", role="delegated"))
        for count in (store.count_by_peer, partial(TaskStore.count_by_peer, store)):
            found = await soon(count(AGENT, "received", [S.SUBMITTED, S.WORKING]))
            assert found == {None: 2, "planner": 4, "with\0nul": 6}
            assert await soon(count(AGENT, "received", [S.FAILED])) == {}


class TestSweeping:
    async def test_what_ended_before_the_moment_goes_and_nothing_else(self, store: TaskStore) -> None:
        for state in TaskState:
            for moment in (1.0, 2.0, 3.0):
                await add(store, new_record(f"{state}{moment}", state=state, updated_at=moment))
        assert await soon(store.sweep(AGENT, 2.0)) == len(TERMINAL)
        left = ids(await soon(store.find(AGENT, "received")))
        assert set(left) == {
            f"{state}{moment}"
            for state in TaskState
            for moment in (1.0, 2.0, 3.0)
            if not (state.terminal and moment < 2.0)
        }
        assert await soon(store.get(new_record("failed1.0").key)) is None

    async def test_the_end_counts_and_not_the_beginning(self, store: TaskStore) -> None:
        record = await add(store, new_record(created_at=1.0, updated_at=1.0))
        await soon(store.change(record.key, OPEN, state=S.COMPLETED))
        assert await soon(store.sweep(AGENT, time.time() - 60)) == 0
        assert await soon(store.sweep(AGENT, time.time() + 60)) == 1

    async def test_it_goes_in_pieces_the_oldest_first_in_both_roles(self, store: TaskStore) -> None:
        for moment in (5, 3, 1, 4, 2):
            role = "received" if moment % 2 else "delegated"
            await add(store, new_record(str(moment), role=role, state=S.FAILED, updated_at=moment))
        assert await soon(store.sweep(AGENT, 9.0, limit=2)) == 2
        assert ids(await soon(store.find(AGENT, "received"))) == ["5", "3"]
        assert ids(await soon(store.find(AGENT, "delegated"))) == ["4"]
        assert [await soon(store.sweep(AGENT, 9.0, limit=2)) for _ in range(3)] == [2, 1, 0]

    async def test_the_tasks_of_other_agents_stay(self, store: TaskStore) -> None:
        for agent in (AGENT, "a2a/v1/writer-2", "other/writer", "writer"):
            await add(store, new_record("1", agent=agent, state=S.COMPLETED, updated_at=1.0))
        assert await soon(store.sweep(AGENT, 2.0)) == 1
        assert await soon(store.sweep(AGENT, 2.0)) == 0
        left = [await soon(store.find(agent, "received")) for agent in ("a2a/v1/writer-2", "other/writer", "writer")]
        assert [ids(records) for records in left] == [["1"], ["1"], ["1"]]

    async def test_a_swept_key_can_be_added_again(self, store: TaskStore) -> None:
        await add(store, new_record("1", state=S.COMPLETED, updated_at=1.0))
        await soon(store.sweep(AGENT, 2.0))
        await add(store, new_record("1", state=S.COMPLETED, updated_at=3.0))
        assert await soon(store.sweep(AGENT, 2.0)) == 0
        assert await soon(store.sweep(AGENT, 4.0)) == 1


class TestOpening:
    async def test_tasks_are_there_when_it_is_opened_again(self, store: TaskStore) -> None:
        record = await add(store, new_record())
        await soon(store.close())
        await soon(store.open())
        assert await soon(store.get(record.key)) == record

    async def test_it_stays_open_until_its_last_user_closes_it(self, store: TaskStore) -> None:
        async with store, store:
            pass
        await add(store, new_record())

    async def test_closing_too_often_does_no_harm(self, store: TaskStore) -> None:
        await soon(store.close())
        await soon(store.close())
        await soon(store.open())
        await add(store, new_record())

    async def test_many_may_open_it_at_once(self, store: TaskStore) -> None:
        await soon(store.close())
        await soon(asyncio.gather(*(store.open() for _ in range(20))))
        await add(store, new_record())
        await soon(asyncio.gather(*(store.close() for _ in range(19))))
        assert await soon(store.count(AGENT, "received", OPEN)) == 1

    async def test_a_canceled_call_leaves_the_others_alone(self, store: TaskStore) -> None:
        calls = [asyncio.create_task(store.add(new_record(str(number)))) for number in range(60)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        done, _ = await asyncio.wait(calls, timeout=10)
        assert done == set(calls)
        for call in calls[1::2]:
            assert (await call)[1]
        for call in calls[::2]:
            with contextlib.suppress(asyncio.CancelledError):
                await call
        kept = set(ids(await soon(store.find(AGENT, "received"))))
        assert kept >= {str(number) for number in range(1, 60, 2)}
