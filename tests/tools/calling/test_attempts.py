"""How often a call was begun is counted in each way by which its server is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import CallHandle, ToolClient, ToolContext, ToolServer
from proxy import Proxy
from support import becomes, soon, until

from ...conformance.stranger import NOW, StrangeServer

LATER = NOW.replace("05.123", "09.123")
FIRST: dict[str, Any] = {"features": ["query"], "started": NOW, "epoch": 1, "session_present": False}
PARTIAL = {"seq": 1, "content": "begun", "server": "odd"}


def asking(client: ToolClient) -> bool:
    """Whether the client asks the servers for its calls."""
    task = client._follow_up._asking
    return task is not None and not task.done()


async def test_a_call_whose_server_is_lost_while_the_others_are_asked_for_it_counts_a_new_attempt(
    mosquitto: Mosquitto, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_agent.tools.calling.followup._EVERY", 0.05)
    monkeypatch.setattr("mqtt_agent.tools.calling.followup._ASKED_EVERY", 1)

    ended = asyncio.Event()

    def offering(server: ToolServer) -> ToolServer:
        async def work(ctx: ToolContext) -> str:
            await ctx.stream(server.replica)
            if server.replica == "lost":
                await ended.wait()
            return server.replica

        server.add_tool("work", work, read_only=True)
        return server

    def serving(replica: str, url: str) -> ToolServer:
        return offering(ToolServer("pair", replica=replica, broker=url, namespace=namespace, will_delay=1))

    async def online(client: ToolClient, *replicas: str) -> bool:
        return {card.replica for card in await client.list_servers()} == {*replicas}

    async with Proxy(mosquitto.url) as near_client, Proxy(mosquitto.url) as near_lost:
        async with (
            serving("lost", near_lost.url) as lost,
            ToolClient("caller", broker=near_client.url, namespace=namespace) as client,
            ToolClient("observer", broker=mosquitto.url, namespace=namespace) as observer,
        ):
            await becomes(lambda: online(client, "lost"))
            handle = await soon(client.submit("work", wait_online=True, timeout=60))
            assert await soon(anext(handle.partials())) == "lost"
            async with serving("other", mosquitto.url):
                await becomes(lambda: online(client, "lost", "other"))
                await becomes(lambda: online(observer, "lost", "other"))
                near_client.hold(up=False)
                await near_lost.cut()
                await becomes(lambda: online(observer, "other"))
                await until(lambda: asking(client))
                near_client.release()
                assert await soon(handle.result(), 20) == "other"
                assert handle.attempt == 2
                ended.set()
                await near_lost.mend()
                await until(lambda: lost.connection.connected)


@contextlib.asynccontextmanager
async def silent(url: str, namespace: str) -> AsyncIterator[tuple[StrangeServer, ToolClient, CallHandle]]:
    """A silent server of two replicas, a client, and a call that runs at the first replica."""
    server = StrangeServer(url, namespace, "odd")
    server.silent = True
    await soon(server.start())
    await server.show_tool(status="online", supports_streaming=True)
    await server.show(**FIRST)
    async with ToolClient("caller", broker=url, namespace=namespace) as client:
        await becomes(client.list_servers)
        handle = await soon(client.submit("strange", timeout=60, wait_online=True))
        call = await server.next_call()
        await server.tell(f"tools/strange/stream/{call['call_id']}", {"call_id": call["call_id"], **PARTIAL})
        assert await soon(anext(handle.partials())) == "begun"
        assert (handle.server, handle.attempt) == ("odd", 1)
        yield server, client, handle
    await soon(server.stop())


@pytest.mark.rule("LATE-6")
async def test_a_response_of_a_new_process_that_has_not_said_yet_that_it_has_the_call_counts_a_new_attempt(
    mosquitto: Mosquitto, namespace: str
) -> None:
    async with silent(mosquitto.url, namespace) as (server, _, handle):
        await server.show(**{**FIRST, "started": LATER, "session_present": True})
        await until(lambda: server.queries)
        await server.reply(server.calls[0], status="ok", result=7, server="odd")
        assert await soon(handle.result()) == 7
        assert handle.attempt == 2


async def test_a_response_of_another_replica_that_has_not_said_yet_that_it_has_the_call_counts_a_new_attempt(
    mosquitto: Mosquitto, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with silent(mosquitto.url, namespace) as (server, client, handle):
        other = {"server": "odd:2", "name": "odd", "tools": ["strange"], "status": "online", "features": ["query"]}
        await server.tell("servers/odd:2/card", other, retain=True)
        await server.listen("servers/odd:2/query")

        async def both() -> bool:
            return len(await client.list_servers()) == 2

        await becomes(both)
        await server.show(**{**FIRST, "status": "offline"})
        await until(lambda: server.read("servers/odd:2/query"))
        for replica in ("odd:2", "odd"):
            await server.reply(server.calls[0], status="ok", result=7, server=replica)
        assert await soon(handle.result()) == 7
        assert (handle.server, handle.attempt) == ("odd:2", 2)
        assert await soon(client._catalog.barrier())  # so the late response of the lost replica has arrived too
    assert "was sent once" not in caplog.text


async def test_two_responses_to_a_call_that_was_sent_again_are_no_sign_of_a_bridge(
    mosquitto: Mosquitto, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mqtt_agent.tools.calling.followup._EVERY", 0.05)
    server = StrangeServer(mosquitto.url, namespace, "odd")  # says that it has not got the call
    await soon(server.start())
    await server.show_tool()
    await server.show(features=["query"])
    async with ToolClient("caller", broker=mosquitto.url, namespace=namespace) as client:
        await becomes(client.list_tools)
        handle = await soon(client.submit("strange", timeout=30, retry=True))
        call = await server.next_call(2)
        await server.reply(call, status="ok", result=1, server="one")
        await server.reply(call, status="ok", result=1, server="two")
        assert await soon(handle.result()) == 1
        assert await soon(client._catalog.barrier())  # so the second response has arrived too
    await soon(server.stop())
    assert "was sent once" not in caplog.text
