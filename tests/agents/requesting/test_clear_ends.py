"""Each way in which a task ends without a result has its own error, which contains the task's id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker, Mosquitto, password_line
from mqtt_agent import Agent, MemoryStore, Password, SqliteStore, TaskContext, TaskState, errors
from mqtt_agent.agents.store import TaskRecord
from proxy import Proxy
from support import becomes, soon, until

from ..conftest import MakeAgent

RUN_ON = ALL_BROKERS


class Fragile(MemoryStore):
    """A store whose disk is full when the test sets a flag."""

    full = False

    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        self._check()
        return await super().add(record)

    async def change(self, *args: Any, **changes: Any) -> TaskRecord | None:
        self._check()
        return await super().change(*args, **changes)

    def _check(self) -> None:
        if self.full:
            raise errors.StoreError("disk full")


@pytest.fixture
async def store() -> Fragile:
    return Fragile()


@pytest.fixture
async def go() -> AsyncIterator[asyncio.Event]:
    event = asyncio.Event()
    yield event
    event.set()


@pytest.fixture
async def writer(make_agent: MakeAgent, go: asyncio.Event) -> Agent:
    agent = make_agent("writer", drain_timeout=0)

    @agent.on_task
    async def handle(task: TaskContext) -> Any:
        if task.prompt == "bug":
            raise KeyError("page")
        if task.prompt == "reject":
            raise errors.TaskRejected("not my job")
        if task.prompt == "wait":
            await go.wait()
        return task.data

    await soon(agent.start())
    return agent


def check_names(error: errors.TaskError, task_id: str, peer: str = "writer") -> None:
    assert (error.task_id, error.peer) == (task_id, peer)


async def test_a_peer_that_never_existed(planner: Agent) -> None:
    with pytest.raises(errors.PeerUnavailable, match="no agent 'nobody'") as unavailable:
        await soon(planner.request("nobody", task_id="t-1"))
    check_names(unavailable.value, "t-1", "nobody")


async def test_for_an_unknown_peer_a_name_like_it_is_suggested(writer: Agent, planner: Agent) -> None:
    await becomes(planner.peers)
    says = f"no agent 'writr' has been seen in namespace {planner.namespace!r}; .*; did you mean 'writer'"
    with pytest.raises(errors.PeerUnavailable, match=says):
        await soon(planner.request("writr"))


async def test_alone_in_a_namespace_an_unknown_peer_raises_doubts_about_the_namespace(planner: Agent) -> None:
    says = "has been seen .*; this namespace has no other agent at all: do all programs use the same broker and the"
    with pytest.raises(errors.PeerUnavailable, match=says):
        await soon(planner.delegate("writer"))


async def test_a_peer_that_came_online_a_moment_ago_is_no_unknown_one(make_agent: MakeAgent, broker: Broker) -> None:
    writer = make_agent("writer")

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        return task.data

    async with Proxy(broker.url) as proxy:
        planner = make_agent("planner", broker=proxy.url)
        await soon(planner.start())
        assert await soon(planner.peers()) == []
        proxy.hold()
        await soon(writer.start())
        giving = asyncio.gather(planner.delegate("writer"), planner.request("writer", data=1))
        proxy.release()
        _, answer = await soon(giving)
        assert answer == 1
        await soon(planner.stop())


async def test_a_peer_that_is_offline(writer: Agent, planner: Agent) -> None:
    await soon(writer.stop())

    async def is_offline() -> bool:
        card = await planner.peer("writer")
        return card is not None and card.status == "offline"

    await becomes(is_offline)
    with pytest.raises(errors.PeerUnavailable, match="offline") as unavailable:
        await soon(planner.request("writer", task_id="t-1"))
    check_names(unavailable.value, "t-1")
    task = await soon(planner.delegate("writer", task_id="t-2", data=1))
    assert task.queued
    await soon(writer.start())
    assert await soon(task.result()) == 1


async def test_an_exception_of_the_handler(writer: Agent, planner: Agent) -> None:
    with pytest.raises(errors.TaskFailed, match="t-1.*page") as failed:
        await soon(planner.request("writer", "bug", task_id="t-1"))
    check_names(failed.value, "t-1")
    assert failed.value.type == "KeyError"


async def test_a_rejection(writer: Agent, planner: Agent) -> None:
    with pytest.raises(errors.TaskRejected, match="t-1.*not my job") as rejected:
        await soon(planner.request("writer", "reject", task_id="t-1"))
    check_names(rejected.value, "t-1")


async def test_a_cancel(writer: Agent, planner: Agent) -> None:
    task = await soon(planner.delegate("writer", "wait", task_id="t-1"))
    await soon(task.cancel())
    with pytest.raises(errors.TaskCanceled, match="t-1") as canceled:
        await soon(task.result())
    check_names(canceled.value, "t-1")


async def test_a_timeout(writer: Agent, planner: Agent, go: asyncio.Event) -> None:
    with pytest.raises(errors.TaskTimeout, match="t-1.*goes on") as timeout:
        await soon(planner.request("writer", "wait", task_id="t-1", timeout=0.1, data=1))
    check_names(timeout.value, "t-1")
    go.set()
    assert await soon((await planner.resume("t-1")).result()) == 1


async def test_an_expiry(writer: Agent, planner: Agent) -> None:
    expires = datetime.now(timezone.utc) + timedelta(seconds=0.5)
    with pytest.raises(errors.TaskExpired, match="t-1") as expired:
        await soon(planner.request("writer", "wait", task_id="t-1", expires_at=expires))
    check_names(expired.value, "t-1")


async def test_a_session_taken_over(make_agent: MakeAgent, writer: Agent, go: asyncio.Event) -> None:
    first = make_agent("planner")
    await soon(first.start())
    task = await soon(first.delegate("writer", "wait", task_id="t-1", data=1))
    second = make_agent("planner")
    await soon(second.start())
    with pytest.raises(errors.SessionTakenOver, match="t-1.*resume"):
        await soon(task.result(), 20)
    with pytest.raises(errors.SessionTakenOver):
        await soon(first.request("writer", task_id="t-2"))
    await until(lambda: second.connection.connected, 20)
    go.set()
    resumed = await soon(second.resume("t-1", peer="writer"))
    assert await soon(resumed.result(), 20) == 1


async def test_a_store_that_is_full_when_a_task_is_given(make_agent: MakeAgent, writer: Agent, store: Fragile) -> None:
    planner = make_agent("planner", store=store)
    await soon(planner.start())
    await becomes(lambda: planner.peer("writer"))
    store.full = True
    for give in (planner.request, planner.delegate):
        with pytest.raises(errors.StoreError, match="t-1.*disk full"):
            await soon(give("writer", task_id="t-1"))
    store.full = False
    assert await soon(planner.request("writer", task_id="t-1", data=1)) == 1


async def test_a_store_that_is_full_when_the_result_comes(
    make_agent: MakeAgent, writer: Agent, store: Fragile, go: asyncio.Event
) -> None:
    planner = make_agent("planner", store=store)
    await soon(planner.start())
    task = await soon(planner.delegate("writer", "wait", data=1))
    await until(lambda: task.state is TaskState.WORKING)
    store.full = True
    go.set()
    with pytest.raises(errors.TaskTimeout):
        await soon(task.result(timeout=0.7))
    store.full = False
    assert await soon(task.result()) == 1


async def test_a_store_that_is_full_at_the_executor(make_agent: MakeAgent, planner: Agent, store: Fragile) -> None:
    writer = make_agent("writer", store=store)

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        store.full = True  # from now on: when the result is stored
        return task.data

    await soon(writer.start())
    store.full = True
    tasks = [await soon(planner.delegate("writer", data=number)) for number in range(3)]
    store.full = False

    async def all_done() -> bool:
        store.full = False
        return all(task.done for task in tasks)

    await becomes(all_done, 20)
    assert [await task.result() for task in tasks] == [0, 1, 2]


@pytest.mark.parametrize("content", [b"junk" * 1000, b"SQLite format 3\x00" + b"\xff" * 4000])
async def test_a_store_that_is_damaged(content: bytes, make_agent: MakeAgent, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_bytes(content)
    agent = make_agent("writer", store=SqliteStore(path))
    with pytest.raises(errors.StoreError, match=str(path)):
        await soon(agent.start())
    assert path.read_bytes() == content
    assert not agent.connection.started


RIGHTS = """\
topic readwrite ns/agents/#
topic read ns/tasks/#
topic write ns/tasks/+/control
"""
ALL = {"inbox": "+/inbox", "results": "+/results", "result": "+/result", "events": "+/events"}


def start_with_rights(make_mosquitto: Callable[..., Mosquitto], **forbidden: set[str]) -> Mosquitto:
    def rights(user: str) -> str:
        allowed = [topic for name, topic in ALL.items() if name not in forbidden.get(user, ())]
        return f"user {user}\n{RIGHTS}" + "".join(f"topic write ns/tasks/{topic}\n" for topic in allowed)

    return make_mosquitto(
        ["acl_file {folder}/acl", "password_file {folder}/passwords"],
        anonymous=False,
        files={
            "acl": "\n".join(rights(user) for user in ("planner", "writer")),
            "passwords": password_line("planner", "secret") + password_line("writer", "secret"),
        },
        credentials={"username": "planner", "password": "secret"},
    )


def agents_at(broker: Mosquitto) -> tuple[Agent, Agent]:
    planner, writer = (
        Agent(
            name,
            broker=broker.url,
            namespace="ns",
            store=MemoryStore(),
            credentials=Password(name, "secret"),
            drain_timeout=0,
        )
        for name in ("planner", "writer")
    )

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        await task.progress(1)
        return task.data

    return planner, writer


async def test_a_requester_that_may_not_use_the_inbox(make_mosquitto: Callable[..., Mosquitto]) -> None:
    planner, writer = agents_at(start_with_rights(make_mosquitto, planner={"inbox"}))
    async with writer, planner:
        for give in (planner.request, planner.delegate):
            with pytest.raises(errors.TopicNotAuthorized, match="tasks/writer/inbox") as refused:
                await soon(give("writer", task_id=f"t-{give.__name__}"))
            assert f"t-{give.__name__}" in str(refused.value)
        assert {task.state for task in await planner.delegations()} == {TaskState.FAILED}


async def test_an_executor_that_may_not_send_results(
    make_mosquitto: Callable[..., Mosquitto], caplog: pytest.LogCaptureFixture
) -> None:
    planner, writer = agents_at(start_with_rights(make_mosquitto, writer={"result", "results"}))
    async with writer, planner:
        with caplog.at_level(logging.WARNING):
            with pytest.raises(errors.TaskTimeout, match="t-1"):
                await soon(planner.request("writer", task_id="t-1", timeout=1))
            await until(lambda: any("refused the result of task t-1" in line for line in caplog.messages))
        record = await writer._received.find("t-1", "planner")
        assert record is not None
        assert (record.state, record.settled) == (TaskState.COMPLETED, False)


async def test_an_executor_that_may_not_send_events(make_mosquitto: Callable[..., Mosquitto]) -> None:
    planner, writer = agents_at(start_with_rights(make_mosquitto, writer={"events"}))
    async with writer, planner:
        task = await soon(planner.delegate("writer", data=1))
        assert await soon(task.result()) == 1
        statuses = [event.status async for event in task.events()]
        assert statuses in ([], ["completed"], ["working", "completed"])  # made from the result


async def test_a_peer_whose_broker_forgets_everything(own_broker: Broker, namespace: str, go: asyncio.Event) -> None:
    runs: list[int] = []
    options: dict[str, Any] = {"broker": own_broker.url, "namespace": namespace, "drain_timeout": 0}
    planner = Agent("planner", store=MemoryStore(), **options)
    writer = Agent("writer", store=MemoryStore(), **options)

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        runs.append(task.attempt)
        await go.wait()
        return task.data

    async with writer, planner:
        task = await soon(planner.delegate("writer", data=1))
        await until(lambda: runs)
        await asyncio.to_thread(own_broker.restart, keep_state=False, kill=True)
        go.set()
        assert await soon(task.result(), 40) == 1
    assert runs == [1]
