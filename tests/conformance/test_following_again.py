"""When an endpoint begins and ends to follow all cards, and what it knows meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import Broker, Mosquitto
from mqtt_agent import Agent, MemoryStore, ToolClient
from mqtt_agent.endpoints import listing
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.errors import ToolUnavailable
from packets import Packet, PacketProxy
from scripted import ScriptedBroker
from skips import inapplicable
from support import soon, until

from ..tools.conftest import MakeClient, MakeServer
from .stranger import StrangeServer

FEATURES = ["query", "listed"]


@pytest.fixture
def short_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    """All cards are followed for a moment only, if nobody needs them for longer."""
    monkeypatch.setattr(listing, "_LISTED_FOR", 0.05)


async def test_a_listing_after_a_reconnect_waits_for_the_cards_that_the_broker_sends_again(
    broker: Broker, namespace: str, make_server: MakeServer
) -> None:
    async with PacketProxy(broker.url) as proxy, ToolClient("caller", broker=proxy.url, namespace=namespace) as client:
        assert await soon(client.list_tools()) == []
        await proxy.cut()
        server = make_server("newcomer")
        server.add_tool("fresh", lambda: "done")
        await soon(server.start())
        proxy.passed.clear()
        returned: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def look(session_present: bool) -> None:
            assert await client._catalog.complete(once=True)
            packets = [each for each in proxy.passed if isinstance(each, Packet) and not each.up]
            returned.set_result(any(MARKER_PREFIX.encode() in each.payload for each in packets))

        client.connection.on_reconnected.append(look)
        await proxy.mend()
        assert await soon(returned)
        assert client._catalog.is_online("fresh")


@pytest.mark.rule("LOST-10")
async def test_a_call_is_not_sent_again_when_the_broker_does_not_let_the_client_see_all_servers() -> None:
    async with ScriptedBroker(suback=lambda topic_filter: 0x87 if topic_filter.endswith("/+/card") else None) as broker:
        server = StrangeServer(broker.url, "ns", "odd")
        await soon(server.start())
        await server.show(name="odd", features=FEATURES)
        await server.show_tool(replicas=["odd:1"])
        async with ToolClient("caller", broker=broker.url, namespace="ns") as client:
            handle = await soon(client.submit("strange", call_id="c-1", resume=True))
            with pytest.raises(ToolUnavailable) as caught:
                await soon(handle.result())
        assert caught.value.maybe_executed
        assert (len(server.queries), server.calls) == (1, [])
        await soon(server.stop())


@pytest.mark.rule("DISC-8")
async def test_a_client_follows_all_cards_only_as_long_as_the_card_of_its_tool_lists_no_servers(
    broker: Broker, strange_server: StrangeServer, make_client: MakeClient, short_listings: None
) -> None:
    if not broker.shared_subscriptions:
        inapplicable("at this broker, a client follows all cards as long as it calls tools")
    strange_server.answer_at_once = {"status": "ok", "result": "done"}
    await strange_server.show(name="odd", features=FEATURES)
    await strange_server.show_tool()
    client = await make_client("caller")
    assert await soon(client.call("strange")) == "done"
    assert client._catalog._listing.active
    await strange_server.show_tool(replicas=["odd:1"])
    await until(lambda: not client._catalog._listing.active)
    await strange_server.show_tool()
    await until(lambda: client._catalog._listing.active)


@pytest.mark.rule("DISC-8")
async def test_all_cards_are_followed_no_longer_when_their_watcher_is_closed(
    mosquitto: Mosquitto, namespace: str, short_listings: None
) -> None:
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace}
    async with ToolClient("caller", **where) as client, Agent("agent", store=MemoryStore(), **where) as agent:
        watchers: list[Any] = [client.watch_tools(), agent.watch_peers()]
        listings = client._catalog._listing, agent._peers._listing
        await until(lambda: all(each.active for each in listings))
        for watcher in watchers:
            await watcher.aclose()
        await until(lambda: not any(each.active for each in listings))


async def test_a_tool_that_is_wanted_again_while_it_is_left_is_followed(
    make_client: MakeClient, make_server: MakeServer
) -> None:
    client = await make_client("caller")
    assert await soon(client.get_tool("late")) is None
    assert client._catalog._retained._leaving
    await soon(client._catalog.find("late"))
    server = make_server()
    server.add_tool("late", lambda: "done")
    await soon(server.start())
    await until(lambda: client._catalog.is_online("late"))
