"""A broker that confirms messages and drops them, or gives them to the session of a dead server."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from brokers.rough import breaks
from mqtt_agent import Agent, MemoryStore, ToolClient, ToolServer
from mqtt_agent.errors import CallError, ToolUnavailable
from proxy import Proxy
from scripted import ScriptedBroker
from support import becomes, soon, until

SMALL_QUEUES = {"most_messages": 512, "most_bytes": 64 * 1024}


@contextlib.asynccontextmanager
async def tools(
    broker: ScriptedBroker, namespace: str, handler: Callable[..., Any], **options: Any
) -> AsyncIterator[ToolClient]:
    """A client whose only server offers the handler as the tool ``work``."""
    server = ToolServer("server", broker=broker.url, namespace=namespace)
    server.add_tool("work", handler, **options)
    async with server, ToolClient("caller", broker=broker.url, namespace=namespace) as client:
        await becomes(client.list_tools)
        yield client


@pytest.mark.rule("LOST-8", "LOST-9")
@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(("calls", "size"), [(500, 20), (10, 40_000)])
async def test_calls_that_the_broker_drops_are_answered_and_run_once(
    read_only: bool, calls: int, size: int, namespace: str
) -> None:
    runs: Counter[int] = Counter()

    def work(number: int, text: str) -> int:
        runs[number] += 1
        return number

    async with ScriptedBroker(**SMALL_QUEUES) as broker, tools(broker, namespace, work, read_only=read_only) as client:
        call = (client.call("work", {"number": number, "text": "x" * size}) for number in range(calls))
        results = await asyncio.wait_for(asyncio.gather(*call), 30)
        assert results == list(range(calls))
        assert sum(broker.dropped.values()) > 0
        assert runs == dict.fromkeys(range(calls), 1)


@pytest.mark.parametrize(("calls", "size"), [(100, 4_000), (10, 40_000)])
async def test_responses_that_the_broker_drops_are_sent_again(calls: int, size: int, namespace: str) -> None:
    running, go_on = set[int](), asyncio.Event()

    async def work(number: int) -> str:
        running.add(number)
        if len(running) >= min(calls, 30):  # so many responses at once are more than the queue holds
            go_on.set()
        await go_on.wait()
        return "x" * size

    async with ScriptedBroker(**SMALL_QUEUES) as broker, tools(broker, namespace, work) as client:
        call = (client.call("work", {"number": number}) for number in range(calls))
        results = await asyncio.wait_for(asyncio.gather(*call), 40)
        assert results == ["x" * size] * calls
        assert sum(broker.dropped.values()) > 0


async def test_a_long_call_is_asked_for_less_and_less_often(namespace: str) -> None:
    ends = asyncio.Event()

    async def work() -> int:
        await ends.wait()
        return 7

    async with ScriptedBroker() as broker, tools(broker, namespace, work) as client:
        calls = [asyncio.ensure_future(client.call("work")) for _ in range(40)]

        def queries() -> int:
            return sum(b'"call_ids":["' in message.payload for message in broker.published)

        await until(lambda: queries() >= 2, 20)  # after two and four seconds: one query for all calls
        assert queries() == 2
        ends.set()
        assert await soon(asyncio.gather(*calls)) == [7] * 40


@pytest.mark.rule("LOST-8")
@pytest.mark.parametrize("read_only", [True, False])
async def test_a_call_that_goes_to_a_dead_session_ends_long_before_its_deadline(
    read_only: bool, namespace: str
) -> None:
    runs: list[str] = []
    async with ScriptedBroker(session_outlives_will=60) as broker, Proxy(broker.url) as near_first:
        servers: list[ToolServer] = []
        for name, url in (("first", near_first.url), ("second", broker.url)):
            server = ToolServer(
                "server", replica=name, broker=url, namespace=namespace, will_delay=1, session_expiry=30
            )
            server.add_tool("work", lambda name=name: runs.append(name), read_only=read_only)
            servers.append(server)
        async with servers[0], servers[1], ToolClient("caller", broker=broker.url, namespace=namespace) as client:

            async def replicas(count: int) -> bool:
                return len(await client.list_servers()) == count

            await becomes(lambda: replicas(2))
            await near_first.cut()
            await becomes(lambda: replicas(1))
            calls = [client.call("work", timeout=60) for _ in range(10)]  # half of them go to the dead session
            # A caller whose own connection has just broken waits 15 s for the servers that left shortly before.
            ended = await soon(asyncio.gather(*calls, return_exceptions=True), 40 if breaks() else 15)
            failed = [error for error in ended if isinstance(error, CallError)]
            assert len(runs) + len(failed) == 10
            assert all(isinstance(error, ToolUnavailable) and error.maybe_executed for error in failed)
            assert bool(failed) is not read_only


@pytest.mark.long
@pytest.mark.rule("LOST-8")
async def test_a_client_that_starts_after_the_loss_of_a_replica_runs_no_call_twice_when_the_replica_comes_back(
    namespace: str,
) -> None:
    runs: Counter[int] = Counter()

    def work(n: int) -> None:
        runs[n] += 1

    async with ScriptedBroker(session_outlives_will=60) as broker, Proxy(broker.url) as near_first:
        first, second = (
            ToolServer("server", broker=url, namespace=namespace, will_delay=1, session_expiry=30)
            for url in (near_first.url, broker.url)
        )
        for server in (first, second):
            server.add_tool("work", work)
        async with first, second:
            async with ToolClient("earlier", broker=broker.url, namespace=namespace) as client:

                async def replicas(count: int) -> bool:
                    return len(await client.list_servers()) == count

                await becomes(lambda: replicas(2))
                await near_first.cut()
                await becomes(lambda: replicas(1))
            async with ToolClient("caller", broker=broker.url, namespace=namespace) as client:
                calls = [client.call("work", {"n": n}, timeout=60) for n in range(10)]  # half go to the dead session
                ended = await soon(asyncio.gather(*calls, return_exceptions=True), 15)
                assert any(isinstance(error, ToolUnavailable) and error.maybe_executed for error in ended)
                epoch = first.connection.epoch
                await near_first.mend()
                await until(lambda: first.connection.epoch > epoch and first.connection.connected, 20)
                await becomes(lambda: replicas(2))
                await soon(client.call("work", {"n": 10}), 20)
    assert set(runs.values()) == {1}


@pytest.mark.rule("SESSION-10")
async def test_the_will_comes_with_the_end_of_the_session(namespace: str) -> None:
    async with ScriptedBroker() as broker, Proxy(broker.url) as proxy:
        server = ToolServer("server", broker=proxy.url, namespace=namespace, will_delay=1)
        server.add_tool("work", lambda: None)
        async with server:
            session = broker.session(server.server_id)
            assert session.will_delay > session.expiry == 1
        agent = Agent("agent", broker=broker.url, namespace=namespace, store=MemoryStore(), will_delay=1)
        async with agent:
            session = broker.session(agent.connection.client_id)
            assert session.will_delay == 1 < session.expiry


@pytest.mark.rule("ASK-9")
@pytest.mark.parametrize(("tasks", "size"), [(10, 40_000), (300, 1_000)])
async def test_tasks_that_the_broker_drops_are_done(tasks: int, size: int, namespace: str) -> None:
    async with ScriptedBroker(**SMALL_QUEUES) as broker:
        async with Agent("worker", broker=broker.url, namespace=namespace, store=MemoryStore()) as worker:

            @worker.on_task
            async def work(task: Any) -> str:
                return "x" * size

            async with Agent("boss", broker=broker.url, namespace=namespace, store=MemoryStore()) as boss:
                await becomes(boss.peers)
                requests = (boss.request("worker", "x" * size) for _ in range(tasks))
                assert await asyncio.wait_for(asyncio.gather(*requests), 40) == ["x" * size] * tasks
                assert sum(broker.dropped.values()) > 0
