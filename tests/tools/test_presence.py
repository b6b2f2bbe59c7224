"""Presence: which servers are shown as online while replicas start and stop and networks are interrupted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker, Ejabberd, Mosquitto
from mqtt_agent import Connection, ToolClient, ToolServer
from mqtt_agent.tools import ToolChange
from mqtt_agent.wire import ServerCard, Topics, decode
from proxy import Proxy
from support import soon, until

from .conftest import MakeClient, MakeServer

RUN_ON = ALL_BROKERS
LONG_ON = [Ejabberd]


def who() -> str:
    return "me"


async def changes_until(client: ToolClient, action: asyncio.Future[None]) -> list[ToolChange]:
    """The changes that a client reports during a block."""
    seen: list[ToolChange] = []
    changes = client.watch_tools()

    async def follow() -> None:
        async for change in changes:
            seen.append(change)

    following = asyncio.ensure_future(follow())
    await soon(action, 30)
    await soon(client.list_servers())
    following.cancel()
    return seen


async def offline(client: ToolClient) -> list[ServerCard]:
    """Wait until no server is online."""
    changes = client.watch_tools()
    while await client.list_servers():
        await changes.__anext__()
    return await client.list_servers()


@pytest.mark.rule("PRES-7", "PRES-8")
async def test_a_hundred_starts_and_stops_leave_the_cards_right(broker: Broker, namespace: str) -> None:
    async with ToolClient(broker=broker.url, namespace=namespace) as client:

        async def come_and_go() -> None:
            for _ in range(25):
                server = ToolServer("server", broker=broker.url, namespace=namespace)
                server.add_tool("who", who)
                await soon(server.start(), 30)
                assert await soon(client.call("who", wait_online=True)) == "me"
                await soon(server.stop(), 30)

        await asyncio.gather(*(come_and_go() for _ in range(4)))
        assert await soon(offline(client)) == []
        async with ToolClient(broker=broker.url, namespace=namespace) as newcomer:
            assert await newcomer.list_tools() == []
            [card] = await newcomer.list_tools(online_only=False)
            assert card.status == "offline"


@pytest.mark.rule("PRES-2")
async def test_a_blip_shorter_than_the_will_delay_changes_nothing_that_a_client_sees(
    broker: Broker, make_client: MakeClient, namespace: str
) -> None:
    async with Proxy(broker.url) as proxy:
        server = ToolServer("server", broker=proxy.url, namespace=namespace, will_delay=20)
        server.add_tool("who", who)
        async with server:
            client = await make_client()
            assert await soon(client.call("who", wait_online=True)) == "me"

            async def blip() -> None:
                epoch = server.connection.epoch
                proxy.drop()
                await until(lambda: server.connection.connected and server.connection.epoch > epoch)
                assert await soon(client.call("who")) == "me"

            assert await changes_until(client, asyncio.ensure_future(blip())) == []


@pytest.mark.rule("LATE-1", "LATE-2")
async def test_the_will_of_an_earlier_connection_is_no_news(
    broker: Broker, make_client: MakeClient, make_server: MakeServer, namespace: str
) -> None:
    server = make_server(replica="one")
    server.add_tool("who", who)
    await soon(server.start())
    client = await make_client()
    assert await soon(client.call("who", wait_online=True)) == "me"
    topic = Topics(namespace).server_card(server.server_id)
    cards: list[ServerCard] = []

    async def late_will() -> None:
        raw = Connection(broker.url)
        await raw.subscribe(topic, lambda message: cards.append(decode(ServerCard, message.payload)), snapshot=True)
        await raw.start()
        await until(lambda: cards)
        old = cards[0].model_copy(update={"status": "offline", "epoch": 1, "started": "2020-01-01T00:00:00.000Z"})
        await raw.publish(topic, old.model_dump_json(exclude_none=True).encode(), retain=True)
        await until(lambda: [card.status for card in cards[-2:]] == ["offline", "online"])
        await raw.stop(end_session=True)

    assert await changes_until(client, asyncio.ensure_future(late_will())) == []


async def test_a_last_will_fits_also_when_the_capabilities_are_too_long_for_it(
    mosquitto: Mosquitto, namespace: str
) -> None:
    server = ToolServer("large", broker=mosquitto.url, namespace=namespace)

    async def answer(*_: Any) -> None: ...

    server.answer_requests(answer, {"resources": {}, "experimental": {"large": "x" * 70_000}})
    async with server:
        assert server.connection.connected
