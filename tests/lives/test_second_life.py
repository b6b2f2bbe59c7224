"""An endpoint that is stopped and started again, on another event loop, does everything that it did before."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from brokers import Broker, Ejabberd, Mosquitto
from mqtt_agent import Agent, MemoryStore, TaskContext, TaskState, ToolClient, ToolServer, sync
from mqtt_agent.agents.requesting import reminders
from mqtt_agent.errors import CallError, ConnectionLost, TaskExpired
from mqtt_agent.transport import Connection, Token
from support import soon, until

RUN_ON = [Mosquitto]
LIVES = (1, 2, 3)


def live(life: Callable[[int], Awaitable[object]]) -> None:
    """Run each life on an event loop of its own."""

    async def run(number: int) -> None:
        await soon(life(number), 60)

    for number in LIVES:
        asyncio.run(run(number))


def make_agent(name: str, broker: Broker, namespace: str, **options: Any) -> Agent:
    options = {"will_delay": 1, "drain_timeout": 5, "store": MemoryStore(), **options}
    agent = Agent(name, broker=broker.url, namespace=namespace, **options)

    @agent.on_task
    async def echo(task: TaskContext) -> str:
        return f"{task.prompt} by {name}"

    return agent


# Agents


def test_a_task_that_got_lost_is_sent_again_in_each_life(own_broker: Broker, namespace: str) -> None:
    planner = make_agent("planner", own_broker, namespace)
    writer = make_agent("writer", own_broker, namespace)

    async def life(number: int) -> None:
        async with planner:
            if number > 1:  # the task that the life before has left open
                async with writer:
                    assert await (await planner.resume(f"left-{number - 1}")).result() == "left by writer"
            async with writer:
                assert await planner.request("writer", "first") == "first by writer"
            lost = await planner.delegate("writer", "lost")
            await planner.delegate("writer", "left", task_id=f"left-{number}")
            own_broker.restart(keep_state=False)
            await until(lambda: planner.connection.connected)
            async with writer:
                assert await lost.result() == "lost by writer"
            await planner.delegate("writer", "left", task_id=f"left-{number}")

    live(life)


def test_a_task_expires_in_each_life(broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reminders, "_EXPIRY_GRACE", 0.2)
    planner = make_agent("planner", broker, namespace)
    writer = make_agent("writer", broker, namespace)

    async def life(number: int) -> None:
        async with planner:
            async with writer:
                assert await planner.request("writer", "first") == "first by writer"
            expires_at = datetime.now(timezone.utc) + timedelta(seconds=0.3)
            handle = await planner.delegate("writer", "late", expires_at=expires_at)
            with pytest.raises(TaskExpired):
                await soon(handle.result())

    live(life)


def test_stop_waits_for_running_tasks_in_each_life(broker: Broker, namespace: str) -> None:
    planner = make_agent("planner", broker, namespace)
    writer = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore(), will_delay=1)
    begun: list[Callable[[], object]] = []

    @writer.on_task
    async def work(task: TaskContext) -> str:
        go = asyncio.Event()
        begun.append(go.set)
        await go.wait()
        return "finished"

    async def life(number: int) -> None:
        async with planner:
            await soon(writer.start())
            handle = await planner.delegate("writer", "work", wait_online=True)
            await until(lambda: begun)
            stopping = asyncio.ensure_future(writer.stop())
            await until(lambda: "stopped" in repr(writer))
            begun.pop()()
            await soon(stopping)
            assert await soon(handle.result()) == "finished"
            assert handle.attempt == 1

    live(life)


def test_many_tasks_wait_for_their_turn_in_each_life(broker: Broker, namespace: str) -> None:
    planner = make_agent("planner", broker, namespace)
    writer = make_agent("writer", broker, namespace)

    async def life(number: int) -> None:
        async with writer, planner:
            handles = await asyncio.gather(*(planner.delegate("writer", str(n), wait_online=True) for n in range(300)))
            results = await asyncio.gather(*(handle.result() for handle in handles))
            assert results == [f"{n} by writer" for n in range(300)]

    live(life)


def test_a_question_is_answered_in_each_life(broker: Broker, namespace: str) -> None:
    planner = make_agent("planner", broker, namespace)
    writer = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore(), max_concurrency=1)

    @writer.on_task
    async def ask(task: TaskContext) -> Any:
        return await task.ask("which?")

    async def life(number: int) -> None:
        async with writer, planner:
            handle = await planner.delegate("writer", "x", wait_online=True)
            await until(lambda: handle.state is TaskState.INPUT_REQUIRED)
            await asyncio.gather(handle.send("this"), handle.send("this"))
            assert await handle.result() == "this"

    live(life)


# Tools


def test_calls_survive_a_restart_of_the_broker_in_each_life(own_broker: Broker, namespace: str) -> None:
    server = ToolServer("server", broker=own_broker.url, namespace=namespace, will_delay=1)
    client = ToolClient("client", broker=own_broker.url, namespace=namespace)
    running: list[Callable[[], object]] = []

    @server.tool(read_only=True)
    async def work() -> str:
        go = asyncio.Event()
        running.append(go.set)
        await go.wait()
        return "finished"

    @server.tool
    async def echo(text: str) -> str:
        return text

    async def life(number: int) -> None:
        running.clear()
        await asyncio.gather(server.start(), server.start())
        await asyncio.gather(client.start(), client.start())
        calls = [asyncio.ensure_future(client.call("work")) for _ in range(3)]
        await until(lambda: len(running) == 3)
        own_broker.restart(keep_state=False, kill=True)
        await until(lambda: client.connection.connected and server.connection.connected)
        assert await soon(client.call("echo", {"text": "again"}, wait_online=True)) == "again"
        stopping = asyncio.ensure_future(server.stop())
        await until(lambda: "stopped" in repr(server) or not server._presence.announced)
        for go in running:
            go()
        await soon(stopping)
        for call in calls:
            assert await soon(call) == "finished"
        with pytest.raises(CallError):
            await client.call("echo", {"text": "nobody"})
        await asyncio.gather(client.stop(), client.stop())

    live(life)


def test_replicas_on_standby_take_over_in_each_life(ejabberd: Ejabberd, namespace: str) -> None:
    servers = [ToolServer("server", broker=ejabberd.url, namespace=namespace, replica=name) for name in "ab"]
    client = ToolClient("client", broker=ejabberd.url, namespace=namespace)
    for server in servers:
        server.add_tool("who", lambda replica=server.replica: replica, input_schema={"type": "object"})

    async def life(number: int) -> None:
        async with client:
            await servers[0].start()
            await servers[1].start()
            assert await client.call("who") == "a"
            await servers[0].stop()
            assert await client.call("who", wait_online=True) == "b"
            await servers[1].stop()

    live(life)


# Connections


class Issuer:
    """Returns tokens that are valid for 2.2 seconds."""

    def __call__(self) -> str:
        parts = {"alg": "HS256"}, {"exp": time.time() + 2.2}
        encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
        return ".".join([*encoded, "signature"])


def test_credentials_are_renewed_in_each_life(broker: Broker, namespace: str) -> None:
    connection = Connection(broker.url, credentials=Token(Issuer()))

    async def life(number: int) -> None:
        await asyncio.gather(connection.start(), connection.start())
        before, topic = connection.epoch, f"{namespace}/a"
        while connection.epoch < before + 1 or not connection.connected:
            # During a renewal, an unsubscribe waits until the renewal is over.
            with contextlib.suppress(ConnectionLost):
                await connection.subscribe(topic, print)
            await connection.unsubscribe(topic, print)
        await asyncio.gather(connection.stop(), connection.stop())
        assert not connection.started

    live(life)


def test_subscriptions_and_messages_of_one_life_are_not_those_of_the_next(broker: Broker, namespace: str) -> None:
    connection = Connection(broker.url)
    heard: list[bytes] = []

    def on_message(message: Any) -> None:
        heard.append(message.payload)

    async def life(number: int) -> None:
        await connection.start()
        await connection.subscribe(f"{namespace}/a", on_message)
        await connection.publish(f"{namespace}/a", b"%d" % number)
        await until(lambda: len(heard) == number)
        await connection.unsubscribe(f"{namespace}/a", on_message)
        await connection.stop()

    live(life)
    assert heard == [b"%d" % number for number in LIVES]


# The blocking classes


def test_the_blocking_classes_work_in_each_life(broker: Broker, namespace: str) -> None:
    options: dict[str, Any] = {"broker": broker.url, "namespace": namespace}
    planner = sync.Agent("planner", store=MemoryStore(), **options)
    writer = sync.Agent("writer", store=MemoryStore(), **options)
    server, client = sync.ToolServer("server", **options), sync.ToolClient("client", **options)
    go = threading.Event()

    @writer.on_task
    def slow(task: TaskContext) -> str:
        go.wait(10)
        return f"{task.prompt} written"

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    for number in LIVES:  # each life ends the background loop
        go.clear()
        with planner, server, client:
            assert client.call("add", {"a": number, "b": 1}) == number + 1
            with writer:
                handle = planner.delegate("writer", "late", wait_online=True)
                while writer.running_tasks == 0:
                    time.sleep(0.01)
                threading.Timer(0.1, go.set).start()
            # The writer's stop has waited for the handler.
            assert handle.result(timeout=10) == "late written"
            open_task = planner.delegate("writer", "open", task_id=f"open-{number}")
            assert open_task.queued
        with planner, writer:
            assert planner.resume(f"open-{number}").result(timeout=10) == "open written"


# Another loop


@contextlib.contextmanager
def running_elsewhere(endpoint: Any) -> Iterator[None]:
    """Start an endpoint on the event loop of another thread."""
    started, stop = threading.Event(), threading.Event()

    async def run() -> None:
        await endpoint.start()
        started.set()
        await asyncio.to_thread(stop.wait)
        await endpoint.stop()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert started.wait(10)
        yield
    finally:
        stop.set()
        thread.join(20)


MAKERS: list[Callable[..., Any]] = [
    lambda **options: Agent("agent", store=MemoryStore(), **options),
    lambda **options: ToolServer("server", **options),
    lambda **options: ToolClient("client", **options),
    lambda broker, namespace: Connection(broker),
]
NAMES = ["agent", "server", "client", "connection"]


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_an_endpoint_that_runs_on_another_loop_says_what_to_do(
    make: Callable[..., Any], broker: Broker, namespace: str
) -> None:
    endpoint = make(broker=broker.url, namespace=namespace)
    with running_elsewhere(endpoint):
        with pytest.raises(RuntimeError, match="runs on another event loop.*stop.*or make another"):
            asyncio.run(endpoint.start())
        with pytest.raises(RuntimeError, match="runs on another event loop"):
            asyncio.run(endpoint.stop())
    asyncio.run(_start_and_stop(endpoint))  # the other loop has stopped it


async def _start_and_stop(endpoint: Any) -> None:
    await endpoint.start()
    await endpoint.stop()


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_an_endpoint_whose_loop_ended_without_a_stop_says_what_to_do(
    make: Callable[..., Any], broker: Broker, namespace: str
) -> None:
    endpoint = make(broker=broker.url, namespace=namespace)
    asyncio.run(endpoint.start())
    with pytest.raises(RuntimeError, match="event loop has ended without.*stop.*make a new"):
        asyncio.run(endpoint.start())


def test_the_methods_of_a_running_endpoint_say_that_it_runs_on_another_loop(broker: Broker, namespace: str) -> None:
    agent = make_agent("agent", broker, namespace)
    client = ToolClient("client", broker=broker.url, namespace=namespace)
    with running_elsewhere(agent), running_elsewhere(client):
        for use in (
            lambda: agent.delegate("peer", "x"),
            lambda: agent.peers(),
            lambda: client.call("tool"),
            lambda: client.list_tools(),
        ):
            with pytest.raises(RuntimeError, match="runs on another event loop"):
                asyncio.run(soon(use()))
