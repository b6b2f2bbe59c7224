"""Agents get over lost messages, lost answers and lost slots. All agents run in one process."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent import Agent, Connection, MemoryStore, TaskContext, TaskState, errors
from mqtt_agent.agents.peers import Peers
from mqtt_agent.agents.requesting import reminders
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.wire import AgentStatus, Control, Task, TaskResult, encode
from proxy import Proxy
from support import becomes, soon, until
from typing_extensions import override

from .conftest import MakeAgent


class TroubledStore(MemoryStore):
    """A store that fails to change some fields, as often as the test says."""

    def __init__(self, *fields: str) -> None:
        super().__init__()
        self.fields = set(fields)
        self.fails = 0

    @override
    async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
        if self.fails and self.fields & set(changes):
            self.fails -= 1
            raise errors.StoreError("no space is left")
        return await super().change(key, expected, **changes)


async def square(task: TaskContext) -> int:
    return task.data**2


async def test_a_task_that_no_handler_has_any_more_runs_again_when_somebody_asks(
    make_agent: MakeAgent, planner: Agent, namespace: str
) -> None:
    store = MemoryStore()
    writer = make_agent("writer", store=store)
    writer.on_task(square)
    await soon(writer.start())
    # The record of a task with which an old process has begun, after the new process has taken up all tasks.
    task = Task(task_id="t-1", sender="planner", to="writer", data=4)
    key = TaskKey(f"{namespace}/writer", "received", "t-1", "planner")
    begun = TaskRecord(key, "planner", task.model_dump(by_alias=True, exclude_none=True), task.digest)
    begun.state, begun.attempt, begun.seq = TaskState.WORKING, 1, 1000
    await store.add(begun)
    assert await soon(planner.request("writer", data=4, task_id="t-1")) == 16
    record = await store.get(key)
    assert record is not None
    assert record.attempt == 2


@pytest.mark.rule("FAULT-1")
async def test_a_task_whose_handler_has_begun_as_often_as_it_may_fails_and_is_not_begun_again(
    make_agent: MakeAgent, planner: Agent, tmp_path: Path
) -> None:
    begun: list[int] = []

    async def handle(task: TaskContext) -> str:
        begun.append(task.attempt)
        if task.data == "healthy":
            return "done"
        await asyncio.Event().wait()
        raise AssertionError

    async def start() -> Agent:
        writer = make_agent("writer", store=tmp_path / "writer.db", max_attempts=2, drain_timeout=0)
        writer.on_task(handle)
        await soon(writer.start())
        return writer

    writer = await start()
    handle_of_task = await soon(planner.delegate("writer", data="poison"))
    for attempt in (1, 2):
        await until(lambda: len(begun) == attempt)  # noqa: B023
        assert not handle_of_task.done
        await soon(writer.stop())
        writer = await start()
    with pytest.raises(errors.TaskFailed, match=r"begun 2 times and never ended.*\(max_attempts\)") as failed:
        await soon(handle_of_task.result())
    assert failed.value.type == "too_many_attempts"
    assert await soon(planner.request("writer", data="healthy", wait_online=True)) == "done"
    assert begun == [1, 2, 1]


def test_a_handler_may_begin_at_least_once() -> None:
    with pytest.raises(ValueError, match="max_attempts must be 1 or more, or None for no limit, not 0"):
        Agent("writer", max_attempts=0)


async def test_a_repeat_of_a_task_that_an_older_version_has_stored_is_the_same_task(
    make_agent: MakeAgent, planner: Agent, namespace: str
) -> None:
    store = MemoryStore()
    writer = make_agent("writer", store=store)
    task = Task(task_id="t-1", sender="planner", to="writer", prompt="write")
    key = TaskKey(f"{namespace}/writer", "received", "t-1", "planner")
    content = task.model_dump(by_alias=True, exclude_none=True)
    digest = hashlib.sha256(json.dumps({"from": "planner", "prompt": "write"}, separators=(",", ":")).encode())
    result = TaskResult(task_id="t-1", sender="writer", to="planner", status="completed", result="written")
    stored = TaskRecord(key, "planner", content, digest.hexdigest(), TaskState.COMPLETED)
    stored.result = json.loads(encode(result))
    await store.add(stored)
    await soon(writer.start())
    assert await soon(planner.request("writer", "write", task_id="t-1")) == "written"


async def test_a_task_that_an_older_version_has_stored_is_asked_for_again_with_the_same_content_only(
    make_agent: MakeAgent, namespace: str
) -> None:
    store = MemoryStore()
    task = Task(task_id="t-1", sender="planner", to="writer", prompt="write")
    key = TaskKey(f"{namespace}/planner", "delegated", "t-1")
    stored = TaskRecord(key, "writer", json.loads(encode(task)), "0" * 64, TaskState.COMPLETED)
    stored.result = json.loads(encode(TaskResult(task_id="t-1", sender="writer", status="completed", result="written")))
    await store.add(stored)
    planner, writer = make_agent("planner", store=store), make_agent("writer")
    await soon(asyncio.gather(writer.start(), planner.start()))
    await soon(planner.peer("writer"))
    assert await soon(planner.request("writer", "write", task_id="t-1")) == "written"
    with pytest.raises(errors.TaskRejected, match="names another task already"):
        await soon(planner.request("writer", "read", task_id="t-1"))


async def test_a_cancel_that_comes_as_the_handler_begins_stops_it_and_the_others_go_on(
    make_agent: MakeAgent, planner: Agent
) -> None:
    class Slow(MemoryStore):
        """A store in which the handler begins after a cancel has read the task, and before the cancel changes it."""

        @override
        async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
            if changes.get("state") is TaskState.CANCELED:
                go.set()
                await began.wait()
            return await super().change(key, expected, **changes)

    go, began, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
    writer = make_agent("writer", store=Slow(), max_concurrency=1)

    @writer.on_task
    async def handle(task: TaskContext) -> int:
        if task.data == 1:
            await go.wait()
        if task.data == 2:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
        return task.data

    await soon(writer.start())
    first, second, third, fourth = [await soon(planner.delegate("writer", data=number)) for number in (1, 2, 3, 4)]
    await soon(second.cancel())
    assert await soon(first.result()) == 1
    await soon(stopped.wait())
    with pytest.raises(errors.TaskCanceled):
        await soon(second.result())
    assert await soon(third.result()) == 3
    assert await soon(fourth.result()) == 4


async def test_a_handler_is_canceled_when_all_its_event_numbers_are_used_up(writer: Agent, planner: Agent) -> None:
    sent, stopped = asyncio.Event(), asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> None:
        for number in range(999):  # the status "working" was the first of 1,000 events
            await task.stream(number)
        sent.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    task = await soon(planner.delegate("writer"))
    await soon(sent.wait(), 30)
    await soon(task.cancel())
    await soon(stopped.wait())
    with pytest.raises(errors.TaskCanceled):
        await soon(task.result())


async def test_a_result_is_stored_when_the_store_works_again(make_agent: MakeAgent, planner: Agent) -> None:
    store = TroubledStore("seq", "result")
    writer = make_agent("writer", store=store)

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        for number in range(999):
            await task.stream(number)
        store.fails = 2  # one write reserves event numbers, the other write stores the result
        return "kept"

    await soon(writer.start())
    task = await soon(planner.delegate("writer"))
    assert await soon(task.result(), 30) == "kept"
    assert store.fails == 0


async def test_an_answer_that_could_not_be_stored_is_stored_when_the_store_works_again(
    make_agent: MakeAgent, planner: Agent
) -> None:
    store = TroubledStore("inputs")
    writer = make_agent("writer", store=store)

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        return await task.ask("Which year?")

    await soon(writer.start())
    task = await soon(planner.delegate("writer"))
    await until(lambda: task.question)
    store.fails = 2
    await soon(task.send(2024))
    await until(lambda: store.fails == 0)
    await soon(task.send(2025, "1"))  # too late: the first answer is not lost
    assert await soon(task.result()) == 2024


async def test_a_task_that_finds_no_room_in_the_queue_is_stored_and_sent_later(
    broker: Broker, namespace: str, make_agent: MakeAgent, writer: Agent
) -> None:
    writer.on_task(square)
    async with Proxy(broker.url) as proxy:
        narrow = Connection(proxy.url, client_id="narrow", max_queued=2)
        planner = make_agent("narrow", connection=narrow)
        await soon(planner.start())
        await soon(planner.peers())
        await proxy.cut()
        await until(lambda: not narrow.connected)
        tasks = [await soon(planner.delegate("writer", data=number, wait_online=True)) for number in range(6)]
        await proxy.mend()
        assert [await soon(task.result(), 30) for task in tasks] == [0, 1, 4, 9, 16, 25]
        await soon(planner.stop())


async def test_resuming_does_not_wait_for_a_broker_that_is_away(
    broker: Broker, make_agent: MakeAgent, writer: Agent
) -> None:
    go = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        await go.wait()
        return "done"

    async with Proxy(broker.url) as proxy:
        planner = make_agent("planner", broker=proxy.url)
        await soon(planner.start())
        task = await soon(planner.delegate("writer"))
        await soon(planner.stop())
        await soon(planner.start())
        await proxy.cut()
        await until(lambda: not planner.connection.connected)
        again = await soon(planner.resume(task.task_id))
        go.set()
        await proxy.mend()
        assert await soon(again.result()) == "done"


async def test_a_peer_that_comes_back_over_a_new_connection_is_told_of(
    broker: Broker, make_agent: MakeAgent, planner: Agent
) -> None:
    back: list[str] = []
    peers: Peers = planner._peers  # pyright: ignore[reportPrivateUsage]
    async with Proxy(broker.url) as proxy:
        writer = make_agent("writer", broker=proxy.url, will_delay=30)
        await soon(writer.start())
        peers.want("writer")
        await until(lambda: peers.is_online("writer"))
        peers.on_back.append(back.append)
        proxy.drop()
        await until(lambda: back == ["writer"])
        await soon(writer.stop())


async def test_a_result_that_the_broker_dropped_is_asked_for(
    make_agent: MakeAgent, writer: Agent, planner: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reminders, "_FIRST", 0.3)
    dropped: list[Any] = []
    results: Any = planner._delegations.results  # pyright: ignore[reportPrivateUsage]
    take = results._take_result

    async def drop_the_first(result: TaskResult, message: Any, writer: str | None) -> None:
        if dropped:
            await take(result, message, writer)
        else:
            dropped.append(result)
            message.acknowledge()

    monkeypatch.setattr(results, "_take_result", drop_the_first)
    writer.on_task(square)
    task = await soon(planner.delegate("writer", data=3))
    assert await soon(task.result()) == 9
    assert len(dropped) == 1


async def test_a_cancel_that_the_broker_dropped_is_said_again(
    writer: Agent, planner: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reminders, "_FIRST", 0.3)
    dropped: list[Control] = []
    inbox: Any = writer._inbox  # pyright: ignore[reportPrivateUsage]
    handle_control = inbox._handle_control

    async def drop_the_first(word: Control, message: Any, reply_to: str | None) -> None:
        if word.action == "cancel" and not dropped:
            dropped.append(word)
        else:
            await handle_control(word, message, reply_to)

    monkeypatch.setattr(inbox, "_handle_control", drop_the_first)

    @writer.on_task
    async def handle(task: TaskContext) -> None:
        await asyncio.Event().wait()

    task = await soon(planner.delegate("writer"))
    await until(lambda: task.state is TaskState.WORKING)
    await soon(task.cancel())
    with pytest.raises(errors.TaskCanceled):
        await soon(task.result())
    assert len(dropped) == 1


async def test_retained_messages_come_again_after_each_reconnect(
    broker: Broker, namespace: str, planner: Agent
) -> None:
    topic, heard = f"{namespace}/agents/writer/status", list[bytes]()
    status = encode(AgentStatus(name="writer", status="online"))
    await planner.connection.publish(topic, status, retain=True)
    async with Proxy(broker.url) as proxy:
        connection = Connection(proxy.url, client_id="listener")
        await connection.start()
        await connection.subscribe(topic, lambda message: heard.append(message.payload), snapshot=True)
        for number in range(1, 4):
            await until(lambda: len(heard) >= number)  # noqa: B023
            assert heard == [status] * number
            epoch = connection.epoch
            proxy.drop()

            async def back() -> bool:
                return connection.epoch > epoch and connection.connected  # noqa: B023

            await becomes(back)
        await connection.stop()


@pytest.mark.parametrize("follow", ["delegations", "resume"])
async def test_a_handle_that_is_made_while_the_result_is_being_stored_gets_the_result(
    follow: str, make_agent: MakeAgent, writer: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, followed = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        """A store that needs long to store a result."""

        @override
        async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
            if changes.get("result") is not None:
                storing.set()
                await followed.wait()
            return await super().change(key, expected, **changes)

    go = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        await go.wait()
        return "done"

    planner = make_agent("planner", store=Slow())
    await soon(planner.start())
    given = await soon(planner.delegate("writer"))
    await soon(planner.stop())
    results: Any = planner._delegations.results  # pyright: ignore[reportPrivateUsage]
    take, taken = results._take_result, list[TaskResult]()

    async def take_one_only(result: TaskResult, message: Any) -> None:
        taken.append(result)
        if len(taken) == 1:
            await take(result, message)

    monkeypatch.setattr(results, "_take_result", take_one_only)
    go.set()
    await soon(planner.start())
    await soon(storing.wait())
    task = (await planner.delegations())[0] if follow == "delegations" else await planner.resume(given.task_id)
    followed.set()
    assert await soon(task.result()) == "done"
