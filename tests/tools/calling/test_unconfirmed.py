"""A caller loses its connection before the broker has confirmed a call: the call runs once, or the caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from brokers import Broker
from mqtt_agent import CallHandle, ToolClient
from mqtt_agent.aio.backoff import Backoff
from mqtt_agent.errors import ToolUnavailable
from packets import PacketProxy
from support import becomes, soon, until

from ...conformance.stranger import StrangeServer
from ..conftest import MakeClient, MakeServer


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[PacketProxy]:
    """The network of the caller."""
    async with PacketProxy(broker.url) as proxy:
        yield proxy


@pytest.fixture
async def client(make_client: MakeClient, proxy: PacketProxy) -> ToolClient:
    return await make_client(broker=proxy.url)


async def offered(client: ToolClient, tool: str) -> None:
    async def listed() -> bool:
        return tool in [card.tool for card in await client.list_tools()]

    await becomes(listed)


async def lose_the_connection(client: ToolClient, proxy: PacketProxy) -> None:
    before = proxy.connections
    proxy.drop()
    proxy.release()
    await until(lambda: proxy.connections > before and client.connection.connected)


@pytest.mark.parametrize("lost", ["the call", "its confirmation"])
async def test_a_call_that_must_not_run_twice_runs_once(
    lost: str, make_server: MakeServer, client: ToolClient, proxy: PacketProxy
) -> None:
    server, runs, began, go = make_server(), list[int](), asyncio.Event(), asyncio.Event()

    @server.tool
    async def work(n: int) -> int:
        runs.append(n)
        began.set()
        await go.wait()
        return n

    await soon(server.start())
    await offered(client, "work")
    proxy.hold(up=lost == "the call")
    handle: CallHandle = await soon(client.submit("work", {"n": 7}, timeout=30))
    if lost == "its confirmation":
        await soon(began.wait())
    await lose_the_connection(client, proxy)
    go.set()
    assert await soon(handle.result()) == 7
    assert runs == [7]


async def test_a_call_that_a_server_may_have_and_does_not_tell_is_lost_and_not_sent_again(
    broker: Broker, namespace: str, client: ToolClient, proxy: PacketProxy
) -> None:
    server = StrangeServer(broker.url, namespace, "odd")  # its card does not say that it answers queries
    await soon(server.start())
    await server.show_tool()
    await server.show()
    await offered(client, "strange")
    proxy.hold(up=False)
    handle = await soon(client.submit("strange", timeout=30))
    await server.next_call()
    await lose_the_connection(client, proxy)
    with pytest.raises(ToolUnavailable) as caught:
        await soon(handle.result(), 20)
    assert caught.value.maybe_executed
    assert len(server.calls) == 1
    await soon(server.stop())


@pytest.mark.rule("LOST-11")
@pytest.mark.parametrize("then", ["has it", "has it not", "is gone"])
async def test_a_call_is_asked_for_until_a_server_that_is_silent_answers(
    then: str, broker: Broker, namespace: str, client: ToolClient, proxy: PacketProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network of the server is away for a while, too."""
    monkeypatch.setattr("mqtt_agent.tools.calling.queries._TIMEOUT", 0.1)
    monkeypatch.setattr("mqtt_agent.tools.calling.recovery._ASKED_AGAIN_AFTER", 0.05)
    server = StrangeServer(broker.url, namespace, "odd")
    server.silent = True
    await soon(server.start())
    await server.show_tool(status="online")
    await server.show(features=["query"])
    await offered(client, "strange")
    proxy.hold(up=False)
    handle = await soon(client.submit("strange", timeout=30))
    call = await server.next_call()
    await lose_the_connection(client, proxy)
    await until(lambda: len(server.queries) >= 3)
    assert not handle.done
    server.silent = False
    if then == "is gone":
        await server.show(features=["query"], status="offline")
        with pytest.raises(ToolUnavailable) as caught:
            await soon(handle.result(), 20)
        assert caught.value.maybe_executed
    else:
        if then == "has it":
            server.has.add(handle.call_id)
        else:
            call = await server.next_call(2)
        await server.reply(call, status="ok", result=7)
        assert await soon(handle.result(), 20) == 7
    assert len(server.calls) == (2 if then == "has it not" else 1)
    await soon(server.stop())


@pytest.mark.rule("LOST-11")
async def test_a_call_is_asked_for_by_one_task_however_often_the_connection_is_lost(
    mosquitto: Broker, namespace: str, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_agent.tools.calling.queries._TIMEOUT", 0.02)
    monkeypatch.setattr("mqtt_agent.tools.calling.recovery._ASKED_AGAIN_AFTER", 0.1)
    monkeypatch.setattr(Backoff, "next_wait", lambda self: 0.02)
    server = StrangeServer(mosquitto.url, namespace, "odd")
    server.silent = True
    await soon(server.start())
    await server.show_tool(status="online")
    await server.show(features=["query"])
    async with PacketProxy(mosquitto.url) as proxy:
        client = await make_client(broker=proxy.url)
        await offered(client, "strange")
        proxy.hold(up=False)
        handle = await soon(client.submit("strange", timeout=30))
        await server.next_call()
        for asked in (1, 2, 3):
            await lose_the_connection(client, proxy)
            await until(lambda asked=asked: len(server.queries) >= asked)
        tasks, enough = list[int](), len(server.queries) + 6

        def are_asked() -> bool:
            tasks.append(sum("_ask_again" in repr(task.get_coro()) for task in asyncio.all_tasks()))
            return len(server.queries) >= enough

        await until(are_asked)
        assert max(tasks) == 1
        assert not handle.done
        await soon(client.stop())
    await soon(server.stop())
