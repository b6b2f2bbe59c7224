"""Statements about single records that are written together become one statement about a set of records."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from databases import shared_postgres
from mqtt_agent.agents.store import OPEN, PostgresStore, TaskKey
from mqtt_agent.agents.store.postgres import CLAIM
from mqtt_agent.agents.store.postgres_engine import _SETTINGS  # pyright: ignore[reportPrivateUsage]
from mqtt_agent.agents.store.postgres_sets import (
    SETTLE_SET,
    Part,
    Statement,
    change_set_sql,
    insert_set_sql,
    join,
)
from mqtt_agent.wire import TaskState
from support import soon

from .conftest import AGENT, new_record

S = TaskState
ODD = ["", "é \U0001f600", "a\tb\\u0000\\", '"quoted" \x01', "nul \0", "x" * 100_000]


@pytest.fixture
def url() -> str:
    return shared_postgres().new_database()


@pytest.fixture
async def store(url: str) -> Any:
    async with PostgresStore(url) as store:
        yield store


def part(sql: bytes, task_id: str, **row: str) -> Statement:
    return Statement(b"one", (task_id,), part=Part(sql, (task_id,), row))


def places(batch: list[Statement]) -> list[tuple[bytes, list[int]]]:
    return [(step.sql, step.places) for step in join(batch)]


def test_statements_that_differ_only_in_their_record_are_joined() -> None:
    batch = [part(b"add", "1"), part(b"end", "2"), part(b"add", "3"), part(b"end", "4")]
    assert places(batch) == [(b"add", [0, 2]), (b"end", [1, 3])]


def test_statements_about_one_record_keep_their_order() -> None:
    batch = [part(b"add", "1"), part(b"add", "2"), part(b"end", "1"), part(b"add", "3"), part(b"end", "3")]
    assert places(batch) == [(b"add", [0, 1]), (b"one", [2]), (b"one", [3]), (b"one", [4])]


def test_a_statement_about_no_single_record_stays_between_its_neighbours() -> None:
    batch = [part(b"add", "1"), part(b"add", "2"), Statement(b"claim"), part(b"add", "3"), part(b"add", "4")]
    assert places(batch) == [(b"add", [0, 1]), (b"claim", [2]), (b"add", [3, 4])]


def test_a_set_does_not_grow_without_end_and_a_large_record_is_in_none() -> None:
    many = [part(b"add", str(number), task="x" * 60_000) for number in range(40)]
    assert [len(each) for _, each in places([*many, part(b"add", "y", task="x" * 70_000)])] == [18, 18, 4, 1]


@pytest.mark.parametrize("analyzed", [False, True])
async def test_every_set_is_found_by_the_keys_of_its_records(store: PostgresStore, url: str, analyzed: bool) -> None:
    await soon(asyncio.gather(*(store.add(new_record()) for _ in range(1000))), 30)
    with psycopg.connect(url, autocommit=True) as sql:
        if analyzed:
            sql.execute("ANALYZE")
        for statement, values in (
            (change_set_sql(("state", "result", "settled"), attempt=True), (["{}"] * 64, ["working"])),
            (change_set_sql(("saved",), attempt=False), (["{}"] * 64, ["working"])),
            (SETTLE_SET, (["{}"] * 64,)),
        ):
            with sql.transaction():
                sql.execute(_SETTINGS)
                plan = sql.execute(f"EXPLAIN {statement.format(schema='mqtt_agent')}".encode(), values).fetchall()
            text = "\n".join(line for (line,) in plan)
            assert "using tasks_pkey" in text, text
            assert "Index Cond: ((task_id = " in text, text


async def test_records_that_are_added_together_are_read_as_they_were(store: PostgresStore) -> None:
    records = [
        replace(
            new_record(),
            key=TaskKey(AGENT, "received", f"{number}{text[:50]}", text[:50]),
            task={"prompt": text, "n": [1, 2.5, None, True]},
            saved={"text": text},
            created_at=1764365000.1234567 + number,
            expires_at=None if number % 2 else 1e300,
            seq=2**63 - 1 if number else 0,
        )
        for number, text in enumerate(ODD)
    ]
    added = await soon(asyncio.gather(*map(store.add, records)))
    assert all(was_added for _, was_added in added)
    assert [record.position for record, _ in added] == sorted(record.position for record, _ in added)
    for record, (returned, _) in zip(records, added, strict=True):
        expected = replace(record, position=returned.position)
        assert returned == expected
        assert await soon(store.get(record.key)) == expected


async def test_one_of_the_equal_records_that_are_added_together_is_added(store: PostgresStore) -> None:
    record, others = new_record(), [new_record() for _ in range(5)]
    added = await soon(asyncio.gather(*map(store.add, [record, others[0], record, *others[1:], record])))
    assert [was_added for _, was_added in added] == [True, True, False, True, True, True, True, False]
    assert len({stored.position for stored, _ in added}) == 6


async def test_each_change_of_a_set_is_compare_and_set(store: PostgresStore) -> None:
    records = [replace(new_record(), state=S.WORKING, attempt=number) for number in range(6)]
    await soon(asyncio.gather(*map(store.add, records)))
    changed = await soon(
        asyncio.gather(
            *(
                store.change(
                    record.key, OPEN, expected_attempt=number % 3, state=S.COMPLETED, result={"number": number}
                )
                for number, record in enumerate(records)
            )
        )
    )
    assert [each and each.result for each in changed] == [{"number": 0}, {"number": 1}, {"number": 2}, None, None, None]
    for record, each in zip(records, changed, strict=True):
        stored = await soon(store.get(record.key))
        assert stored is not None
        assert stored.state is (S.WORKING if each is None else S.COMPLETED)
        assert (stored.updated_at == record.updated_at) is (each is None)


async def test_changes_of_one_record_that_are_written_together_keep_their_order(store: PostgresStore) -> None:
    record, other = new_record(), new_record()
    await soon(asyncio.gather(store.add(record), store.add(other)))
    changed = await soon(
        asyncio.gather(
            *(store.change(each.key, OPEN, saved=number) for number in range(20) for each in (record, other))
        )
    )
    assert [each and each.saved for each in changed] == [number for number in range(20) for _ in range(2)]
    stored = await soon(store.get(record.key))
    assert stored is not None
    assert stored.saved == 19


async def test_a_value_that_no_database_takes_fails_alone(store: PostgresStore) -> None:
    records = [replace(new_record(), attempt=1) for _ in range(4)]
    records[1].created_at = float("inf")  # PostgreSQL takes it, and JSON does not
    records[2].reply_to = "\ud800"
    added = await soon(asyncio.gather(*map(store.add, records), return_exceptions=True))
    assert [isinstance(each, BaseException) for each in added] == [False, False, True, False]
    stored = await soon(store.get(records[1].key))
    assert stored is not None
    assert stored.created_at == float("inf")


async def test_only_a_task_that_is_in_its_state_is_settled(store: PostgresStore) -> None:
    records = [replace(new_record(), state=state) for state in (S.COMPLETED, S.FAILED, S.COMPLETED)]
    await soon(asyncio.gather(*map(store.add, records)))
    await soon(store.settle([(record.key, S.COMPLETED) for record in records]))
    found = [await soon(store.get(record.key)) for record in records]
    assert [each and each.settled for each in found] == [True, False, True]
    await soon(store.settle([(records[1].key, S.FAILED)]))
    assert await soon(store.find(AGENT, records[0].key.role, unsettled=True)) == []


def test_an_insert_of_a_set_has_the_types_of_its_columns() -> None:
    text = insert_set_sql(("task_id", "seq", "settled", "created_at"))
    assert "(task_id text, seq bigint, settled boolean, created_at double precision)" in text


def claim(agent: str, first: int) -> Statement:
    return Statement(b"claim", {"agent": agent, "first": first, "now": 1.0, "count": 1}, claims=True)


def test_the_claims_of_one_agent_are_joined_and_come_after_the_changes_of_records() -> None:
    batch = [claim("a", 7), part(b"add", "1"), claim("b", 0), claim("a", 5), part(b"add", "2"), Statement(b"count")]
    steps = join(batch)
    assert [(step.sql, step.places) for step in steps] == [
        (b"add", [1, 4]),
        (b"claim", [0, 3]),
        (b"claim", [2]),
        (b"count", [5]),
    ]
    assert steps[1].values == {"agent": "a", "first": 5, "now": 1.0, "count": 2}
    assert list(steps[1].share([(9, "young")])) == [(0, [(9, "young")]), (3, [])]
    assert list(steps[1].share([(9, "young"), (8, "old")])) == [(0, [(8, "old")]), (3, [(9, "young")])]


async def test_claims_at_once_get_the_oldest_tasks_each_once(store: PostgresStore, url: str) -> None:
    added = [(await soon(store.add(new_record())))[0] for _ in range(7)]
    async with PostgresStore(url) as other:
        claimed = await soon(asyncio.gather(*(each.claim(AGENT) for each in [store, other] * 5)))
    tasks = [record for record in claimed if record is not None]
    assert sorted(record.position for record in tasks) == [record.position for record in added]
    assert {(record.state, record.attempt) for record in tasks} == {(S.WORKING, 1)}


async def test_several_tasks_are_claimed_by_their_places_in_the_table(store: PostgresStore, url: str) -> None:
    await soon(asyncio.gather(*(store.add(new_record()) for _ in range(1000))), 30)
    values = {"agent": AGENT, "first": 0, "now": 1.0, "count": 20}
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("ANALYZE")
        statement = CLAIM.format(schema="mqtt_agent")
        text = "\n".join(line for (line,) in sql.execute(f"EXPLAIN {statement}".encode(), values).fetchall())
    assert "Tid Scan on tasks" in text, text
    assert "Seq Scan" not in text, text
