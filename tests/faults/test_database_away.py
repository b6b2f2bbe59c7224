"""Agents whose tasks are in PostgreSQL, while the database is killed: no task is lost, and no handler runs again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Embedded
from databases import Postgres
from processes import AgentProcesses
from support import require, until

TASKS = [f"t-{number}" for number in range(24)]


@pytest.fixture
def database() -> Iterator[Postgres]:
    require(Postgres)
    with Postgres(durable=True) as database:
        yield database


async def test_tasks_go_on_while_the_database_is_killed_and_each_result_arrives_once(
    database: Postgres, embedded: Embedded, namespace: str, tmp_path: Path
) -> None:
    agents = AgentProcesses(tmp_path, namespace, database.url())
    try:
        await agents.start("writer", embedded.url, executes=True)
        planner = await agents.start("planner", embedded.url)
        for number, task_id in enumerate(TASKS):
            await planner.delegate("writer", task_id, n=number, save="page 3", seconds=0.2)
        for kills in range(2):
            goal = 4 + 8 * kills
            await until(lambda goal=goal: len(planner.told("result")) >= goal, 30)
            await asyncio.to_thread(database.kill)
            await asyncio.to_thread(database.start)
        for number, task_id in enumerate(TASKS):
            assert await planner.result(task_id) == {"square": number**2, "saved": "page 3"}
        assert agents.executions == dict.fromkeys(TASKS, 1)
        assert planner.told("error") == []
    finally:
        await agents.close()
