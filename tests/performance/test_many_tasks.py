"""The cost of tasks in large numbers, counted and not timed: messages, records that are read, commits and turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import Agent, SqliteStore, TaskContext
from mqtt_agent.agents import TaskHandle
from mqtt_agent.agents.store import TaskKey, TaskRecord, TaskRole, rows
from mqtt_agent.agents.store.worker import Job, Outcome
from mqtt_agent.agents.store.writer import SqliteEngine
from mqtt_agent.errors import ConnectionLost
from mqtt_agent.wire import Task, TaskState
from support import soon, until

from ..conformance.foreign import ForeignExecutor
from .counting import CountingProxy

COUNT, CANCELED = 1000, 300


class Counted:
    """What the stores of this process have done since :meth:`forget`."""

    def __init__(self) -> None:
        self.commits = 0
        self.records = 0

    def forget(self) -> None:
        self.commits = self.records = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    run, to_record = SqliteEngine.run, rows.to_record

    def counting_run(self: SqliteEngine, batch: list[Job]) -> list[Outcome]:
        counted.commits += any(job.writes for job in batch)
        return run(self, batch)

    def counting_record(row: Any, *written: Any) -> TaskRecord:
        counted.records += 1
        return to_record(row)

    monkeypatch.setattr(SqliteEngine, "run", counting_run)
    for module in ("sqlite", "threaded"):
        monkeypatch.setattr(f"mqtt_agent.agents.store.{module}.to_record", counting_record)
    return counted


async def filled(path: Path, namespace: str, role: TaskRole, state: TaskState) -> SqliteStore:
    """A store with many tasks that ``planner`` has given to ``writer``."""
    store, received = SqliteStore(path, synchronous="normal"), role == "received"

    def record(number: int) -> TaskRecord:
        task = Task(task_id=f"t-{number}", sender="planner", to="writer", prompt="write")
        return TaskRecord(
            TaskKey(f"{namespace}/{'writer' if received else 'planner'}", role, task.task_id, "planner" * received),
            "planner" if received else "writer",
            task.model_dump(by_alias=True, exclude_none=True),
            task.digest,
            state=state,
            reply_to=f"{namespace}/tasks/planner/results/writer",
        )

    async with store:
        await asyncio.gather(*(store.add(record(number)) for number in range(COUNT)))
    return store


class Silent(ForeignExecutor):
    """An executor that answers questions according to its card, and says nothing."""

    async def start(self, *topics: str) -> None:
        await super().start(f"tasks/{self.name}/inbox/+", f"tasks/{self.name}/control/+", *topics)
        card = {"name": self.name, "status": "online", "features": ["ask", "bound"]}
        await self.say(f"agents/{self.name}/card", card, retain=True)

    def questions(self) -> list[dict[str, Any]]:
        return self.on(f"tasks/{self.name}/control/planner")


@pytest.fixture
async def silent(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[Silent]:
    peer = Silent(mosquitto.url, namespace, "writer")
    await soon(peer.start())
    yield peer
    await soon(peer.stop())


async def test_asking_again_for_many_tasks_costs_a_message_for_a_hundred_and_reads_no_record(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path, counted: Counted, silent: Silent
) -> None:
    store = await filled(tmp_path / "planner.db", namespace, "delegated", TaskState.WORKING)
    counted.forget()
    async with CountingProxy(mosquitto.url) as near:
        planner = Agent("planner", broker=near.url, namespace=namespace, store=store)
        async with planner:
            await until(lambda: sum(len(each["task_ids"]) for each in silent.questions()) >= COUNT)
            assert len(silent.questions()) == COUNT / 100
            assert silent.raw("tasks/writer/inbox/planner") == []
            assert counted.records == 0
            assert counted.commits <= 2  # the start sets begun tasks back, and removes old tasks


async def test_many_tasks_are_canceled_with_few_messages_and_few_commits(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path, counted: Counted
) -> None:
    writer = Agent("writer", broker=mosquitto.url, namespace=namespace, store=tmp_path / "writer.db", max_concurrency=1)

    @writer.on_task
    async def wait(task: TaskContext) -> None:
        await asyncio.Event().wait()

    async with writer, CountingProxy(mosquitto.url) as near:
        planner = Agent("planner", broker=near.url, namespace=namespace, store=tmp_path / "planner.db")
        async with planner:
            tasks = await soon(asyncio.gather(*(planner.delegate("writer", "write") for _ in range(CANCELED))), 60)
            await until(lambda: writer._executor.waiting == CANCELED - 1, 60)
            near.forget()
            counted.forget()
            await soon(asyncio.gather(*(task.cancel() for task in tasks)), 60)
            ended = await soon(asyncio.gather(*(task.result() for task in tasks), return_exceptions=True), 60)
            assert Counter(type(each).__name__ for each in ended) == {"TaskCanceled": CANCELED}
            # A task takes part in four commits: the wish, the cancel, its result, and that the broker has the result.
            # How many changes share a commit depends on how busy the machine is: an idle one needs a twentieth.
            assert counted.commits <= CANCELED / 2
            assert Counter(near.sent.packets)["PUBLISH"] <= CANCELED / 20


async def test_a_start_with_many_tasks_reads_no_records(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path, counted: Counted
) -> None:
    store = await filled(tmp_path / "writer.db", namespace, "received", TaskState.WORKING)
    counted.forget()
    writer = Agent("writer", broker=mosquitto.url, namespace=namespace, store=store, max_concurrency=1, drain_timeout=0)
    begun = asyncio.Event()

    @writer.on_task
    async def wait(task: TaskContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with writer:
        await soon(begun.wait())
        await until(lambda: len(writer._executor.background) == 1)  # the handler; the list of the tasks has been read
        assert writer._executor.waiting == COUNT - 1
        assert counted.records == 1


async def test_a_store_that_answers_many_at_once_lets_the_event_loop_turn(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "tasks.db", synchronous="normal") as store:
        loop, ended, turns = asyncio.get_running_loop(), 0, list[int]()

        def count_turn() -> None:
            turns.append(ended)
            if ended < COUNT:
                loop.call_soon(count_turn)

        async def one(number: int) -> None:
            nonlocal ended
            await store.get(TaskKey("a2a/v1/writer", "received", f"t-{number}"))
            ended += 1

        reading = asyncio.gather(*(one(number) for number in range(COUNT)))
        loop.call_soon(count_turn)
        await soon(reading)
        most = max(after - before for before, after in zip(turns, [*turns[1:], ended], strict=True))
        assert most <= 120  # 100 of one batch, and batches of a single job


async def test_an_agent_that_stops_with_many_open_tasks_lets_the_event_loop_turn(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path, silent: Silent
) -> None:
    store = await filled(tmp_path / "planner.db", namespace, "delegated", TaskState.WORKING)
    planner = Agent("planner", broker=mosquitto.url, namespace=namespace, store=store)
    await soon(planner.start())
    handles = await soon(planner.delegations(), 60)
    ended, turns, loop = 0, list[int](), asyncio.get_running_loop()

    async def follow(handle: TaskHandle) -> None:
        nonlocal ended
        with contextlib.suppress(ConnectionLost):
            await handle.result()
        ended += 1

    def count_turn() -> None:
        turns.append(ended)
        if ended < COUNT:
            loop.call_soon(count_turn)

    following = asyncio.gather(*(follow(each) for each in handles))
    await asyncio.sleep(0)
    loop.call_soon(count_turn)
    await soon(planner.stop(), 60)
    await soon(following)
    assert ended == COUNT
    assert max(after - before for before, after in zip(turns, [*turns[1:], ended], strict=True)) <= 100
