"""A message about a task that arrives while the task's handler begins finds this handler, and begins no second one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent import Agent, Connection, MemoryStore, TaskContext, TaskHandle, TaskState, errors
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.wire import Control, Topics, encode
from support import soon, until

from ..conftest import MakeAgent


class SlowToTell(MemoryStore):
    """A store in which a task has begun, and which reports this only when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.begun = asyncio.Event()
        self.tell = asyncio.Event()
        self.looked_up = 0

    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        added = await super().add(record)
        await self._tell(added[0])
        return added

    async def claim(self, agent: str) -> TaskRecord | None:
        record = await super().claim(agent)
        await self._tell(record)
        return record

    async def get(self, key: TaskKey) -> TaskRecord | None:
        record = await super().get(key)
        self.looked_up += 1
        return record

    async def _tell(self, record: TaskRecord | None) -> None:
        if self.slow and record is not None and record.state is TaskState.WORKING:
            self.begun.set()
            await self.tell.wait()


class Beginning:
    """A task that has begun in the store. Its handler is called in a moment."""

    handle: TaskHandle

    def __init__(self, store: SlowToTell, planner: Connection, topics: Topics) -> None:
        self.runs = 0
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()
        self._store = store
        self._planner = planner
        self._topics = topics

    async def say(self, action: Any) -> None:
        """Send a control message about the task, and let the handler begin once the message has arrived."""
        looked_up = self._store.looked_up
        word = Control(task_id=self.handle.task_id, action=action, sender="planner")
        await self._planner.publish(self._topics.bound.control("writer", "planner"), encode(word))
        await until(lambda: self._store.looked_up > looked_up)
        self._store.tell.set()


@pytest.fixture(params=["at once", "after another one"])
async def beginning(
    request: pytest.FixtureRequest, broker: Broker, namespace: str, make_agent: MakeAgent, planner: Agent
) -> AsyncIterator[Beginning]:
    store = SlowToTell()
    writer = make_agent("writer", store=store, max_concurrency=1)
    connection = Connection(broker.url, client_id="words")
    await soon(connection.start())
    made = Beginning(store, connection, Topics(namespace))
    busy, free = asyncio.Event(), asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> None:
        if task.data == "first":
            busy.set()
            await free.wait()
            return
        made.runs += 1
        try:
            await made.go_on.wait()
        except asyncio.CancelledError:
            made.stopped.set()
            raise

    await soon(writer.start())
    if request.param == "after another one":
        await soon(planner.delegate("writer", data="first"))
        await soon(busy.wait())
    store.slow = True
    made.handle = await soon(planner.delegate("writer", data="second"))
    free.set()
    await soon(store.begun.wait())
    store.slow = False
    yield made
    await soon(connection.stop())


async def test_a_task_that_is_asked_after_while_it_begins_runs_once(beginning: Beginning) -> None:
    beginning.go_on.set()
    await beginning.say("get")
    await soon(beginning.handle.result())
    assert beginning.runs == 1


async def test_a_task_that_is_canceled_while_it_begins_is_stopped(beginning: Beginning) -> None:
    await beginning.say("cancel")
    with pytest.raises(errors.TaskCanceled):
        await soon(beginning.handle.result())
    await soon(beginning.stopped.wait())
