"""Discovery: a client's knowledge of tools and of their servers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import ToolChange, ToolClient, ToolContext
from mqtt_agent.endpoints import listing
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import ServerCard, ToolCard, Topics, decode, encode
from support import soon, until

from ..conftest import MakeClient, MakeServer

RUN_ON = ALL_BROKERS


class Watcher:
    """Collects the changes that a client reports."""

    def __init__(self, client: ToolClient) -> None:
        self.changes: list[ToolChange] = []
        self._changes = client.watch_tools()
        self._task = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        async for change in self._changes:
            self.changes.append(change)

    async def see(self, kind: str, tool: str) -> ToolChange:
        def found() -> list[ToolChange]:
            return [change for change in self.changes if (change.kind, change.tool) == (kind, tool)]

        await until(found)
        return found()[-1]

    def stop(self) -> None:
        self._task.cancel()


async def retained(url: str, topic_filter: str, count: int) -> dict[str, bytes]:
    """The messages that an independent client sees on the broker."""
    seen: dict[str, bytes] = {}
    connection = Connection(url)

    def on_message(message: InboundMessage) -> None:
        seen[message.topic] = message.payload

    await soon(connection.start())
    await connection.subscribe(topic_filter, on_message, qos=0, snapshot=True)
    await until(lambda: len(seen) >= count)
    await connection.stop(end_session=True)
    return seen


@pytest.mark.rule("TCARD-1", "TCARD-2", "TCARD-4", "SCARD-1", "SCARD-2", "TOPIC-1", "TOPIC-2")
async def test_the_cards_on_the_broker_are_those_of_the_specification(
    broker: Broker, namespace: str, make_server: MakeServer
) -> None:
    server = make_server("weather", replica="a")

    @server.tool(read_only=True, title="Forecast", version="2.1")
    async def forecast(city: str, ctx: ToolContext) -> dict[str, Any]:
        """Weather forecast for a city."""
        return {}

    await soon(server.start())
    cards = await retained(broker.url, f"{namespace}/mcp/#", 2)
    tool = json.loads(cards[f"{namespace}/mcp/tools/forecast/card"])
    assert tool["version"] == "1"
    assert (tool["tool"], tool["server"], tool["namespace"]) == ("forecast", "weather", namespace)
    assert tool["description"] == "Weather forecast for a city."
    assert tool["input_schema"]["required"] == ["city"]
    assert tool["supports_streaming"] is True
    assert tool["status"] == "online"
    assert tool["annotations"] == {"title": "Forecast", "readOnlyHint": True}
    assert tool["version_info"]["tool"] == "2.1"
    assert tool["last_seen"].endswith("Z")
    card = json.loads(cards[f"{namespace}/mcp/servers/weather:a/card"])
    assert (card["server"], card["tools"], card["status"]) == ("weather:a", ["forecast"], "online")
    assert (card["name"], card["replica"]) == ("weather", "a")


@pytest.mark.rule("PRES-5", "PRES-7")
async def test_a_client_lists_what_is_online(make_server: MakeServer, make_client: MakeClient) -> None:
    client = await make_client()
    assert await soon(client.list_tools()) == []
    one, two = make_server("one"), make_server("two")
    one.add_tool("b", lambda: 1)
    one.add_tool("a", lambda: 1)
    two.add_tool("c", lambda: 1)
    watcher = Watcher(client)
    await soon(one.start())
    await soon(two.start())
    for tool in "abc":
        await watcher.see("online", tool)
    assert [card.tool for card in await soon(client.list_tools())] == ["a", "b", "c"]
    assert [card.tool for card in await soon(client.list_tools(server="one"))] == ["a", "b"]
    assert [card.tool for card in await soon(client.list_tools(server=two.server_id))] == ["c"]
    await soon(one.stop())
    for tool in "ab":
        assert (await watcher.see("offline", tool)).servers == ()
    assert [card.tool for card in await soon(client.list_tools())] == ["c"]
    listed = {card.tool: card.status for card in await soon(client.list_tools(online_only=False))}
    assert listed == {"a": "offline", "b": "offline", "c": "online"}
    watcher.stop()


@pytest.mark.rule("DISC-1", "DISC-3")
async def test_a_late_client_sees_all_cards_at_once(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    for n in range(300):
        server.add_tool(f"tool-{n:03}", lambda: 1)
    await soon(server.start(), 20)
    client = await make_client()
    assert len(await soon(client.list_tools())) == 300


@pytest.mark.rule("DISC-4")
async def test_one_card_is_found_by_its_exact_topic(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    server.add_tool("there", lambda: 1, description="Here.")
    await soon(server.start())
    client = await make_client()
    card = await soon(client.get_tool("there"))
    assert card is not None
    assert (card.tool, card.description, card.status) == ("there", "Here.", "online")
    assert await soon(client.get_tool("nowhere")) is None


@pytest.mark.rule("SHARE-2", "SCARD-2", "PRES-5")
async def test_replicas_share_the_calls_and_the_tool_stays_while_one_is_left(
    broker: Broker, make_server: MakeServer, make_client: MakeClient
) -> None:
    served: dict[str, int] = {"a": 0, "b": 0}
    servers = {name: make_server("pair", replica=name) for name in served}
    for name, server in servers.items():

        def who(name: str = name) -> str:
            served[name] += 1
            return name

        server.add_tool("who", who, input_schema={"type": "object"})
        await soon(server.start())
    client = await make_client()
    watcher = Watcher(client)
    for _ in range(40):
        await soon(client.call("who"))
    assert served["a"] + served["b"] == 40
    assert (min(served.values()) > 0) == broker.shared_subscriptions
    assert [card.server for card in await soon(client.list_servers())] == ["pair:a", "pair:b"]

    await soon(servers["a"].stop())
    if broker.shared_subscriptions:
        assert (await watcher.see("changed", "who")).servers == ("pair:b",)
    assert [await soon(client.call("who")) for _ in range(10)] == ["b"] * 10
    assert [card.status for card in await soon(client.list_tools())] == ["online"]

    await soon(servers["b"].stop())
    await watcher.see("offline", "who")
    with pytest.raises(ToolUnavailable, match="every server that offers it is offline"):
        await client.call("who")
    watcher.stop()


async def test_waiting_for_a_server_is_possible(make_server: MakeServer, make_client: MakeClient) -> None:
    client = await make_client()
    calling = asyncio.ensure_future(client.call("late", wait_online=True))
    with pytest.raises(ToolUnavailable, match="no server came online in time"):
        await soon(client.call("never", wait_online=True, timeout=0.2))
    server = make_server()
    server.add_tool("late", lambda: "here")
    await soon(server.start())
    assert await soon(calling) == "here"


async def test_a_tool_added_to_a_running_server_is_announced(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    await soon(server.start())
    client = await make_client()
    watcher = Watcher(client)
    server.add_tool("new", lambda: 1)
    await watcher.see("online", "new")
    assert await soon(client.call("new")) == 1
    watcher.stop()


@pytest.mark.rule("PRES-7", "PRES-8")
async def test_after_starts_and_stops_the_cards_are_right(
    broker: Broker, namespace: str, make_server: MakeServer
) -> None:
    def replica() -> Any:
        server = make_server("many")
        server.add_tool("job", lambda: 1)
        return server

    async def start_and_stop() -> None:
        server = replica()
        await server.start()
        await server.stop()

    topics = Topics(namespace)
    for _ in range(5):
        await soon(asyncio.gather(*(start_and_stop() for _ in range(10))), 60)
    cards = await retained(broker.url, f"{namespace}/mcp/#", 51)
    assert decode(ToolCard, cards.pop(topics.tool_card("job"))).status == "offline"
    assert {decode(ServerCard, payload).status for payload in cards.values()} == {"offline"}

    stays = replica()
    await soon(stays.start())
    await soon(asyncio.gather(*(start_and_stop() for _ in range(10))), 60)
    cards = await retained(broker.url, f"{namespace}/mcp/#", 62)
    assert decode(ToolCard, cards[topics.tool_card("job")]).status == "online"
    online = [card for card in cards.values() if decode(ServerCard, card).status == "online" and b'"replica"' in card]
    assert [decode(ServerCard, card).server for card in online] == [stays.server_id]


@pytest.mark.rule("PRES-9")
async def test_a_server_that_is_called_offline_by_mistake_puts_it_right(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("robust", replica="r")
    server.add_tool("t", lambda: 1)
    await soon(server.start())
    client = await make_client()
    await soon(client.list_tools())
    watcher = Watcher(client)
    topics = Topics(namespace)
    meddler = Connection(broker.url)
    await soon(meddler.start())
    offline = ServerCard(server="robust:r", tools=["t"], status="offline")
    await soon(meddler.publish(topics.server_card("robust:r"), encode(offline), retain=True))
    await watcher.see("offline", "t")
    await watcher.see("online", "t")
    card = ToolCard(tool="t", server="robust", status="offline")
    await soon(meddler.publish(topics.tool_card("t"), encode(card), retain=True))
    await watcher.see("changed", "t")
    await until(lambda: [change.card for change in watcher.changes][-1].input_schema["properties"] == {})  # type: ignore[union-attr]
    assert await soon(client.call("t")) == 1
    await soon(meddler.stop())
    watcher.stop()


@pytest.mark.rule("HOST-8")
async def test_bad_cards_hide_no_good_ones(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    topics = Topics(namespace)
    meddler = Connection(broker.url)
    await soon(meddler.start())
    bad = [
        (topics.tool_card("bad-json"), b"{"),
        (topics.tool_card("bad-type"), b"[]"),
        (topics.tool_card("bad-name"), encode(ToolCard(tool="other", server="s"))),
        (topics.tool_card("bad-schema"), b'{"tool": "bad-schema", "server": "s", "input_schema": 7}'),
        (topics.server_card("bad"), encode(ServerCard(server="other", tools=["good"], status="offline"))),
        (topics.server_card("worse"), b'{"server": "worse", "tools": [1]}'),
    ]
    for topic, payload in bad:
        await soon(meddler.publish(topic, payload, retain=True))
    server = make_server()
    server.add_tool("good", lambda: 1)
    await soon(server.start())
    client = await make_client()
    assert [card.tool for card in await soon(client.list_tools(online_only=False))] == ["good"]
    assert await soon(client.call("good")) == 1
    for topic, _ in bad:
        await soon(meddler.publish(topic, b"", retain=True))
    await soon(meddler.stop())


@pytest.mark.rule("DISC-5", "PRES-6")
async def test_a_removed_card_is_forgotten(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    topics = Topics(namespace)
    meddler = Connection(broker.url)
    await soon(meddler.start())
    await soon(meddler.publish(topics.tool_card("old"), encode(ToolCard(tool="old", server="s")), retain=True))
    client = await make_client()
    assert [card.tool for card in await soon(client.list_tools())] == ["old"]
    watcher = Watcher(client)
    await soon(meddler.publish(topics.tool_card("old"), b"", retain=True))
    assert (await watcher.see("offline", "old")).card is None
    assert await soon(client.list_tools(online_only=False)) == []
    await soon(meddler.stop())
    watcher.stop()


async def test_a_tool_that_a_call_has_waited_for_is_followed_although_others_have_asked_for_it_in_vain(
    broker: Broker, make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_LISTED_FOR", 0.05)
    client, server, done = await make_client(), make_server(), asyncio.Event()

    @server.tool
    async def slow() -> str:
        await done.wait()
        return "done"

    call = asyncio.create_task(client.call("slow", wait_online=True))
    await until(lambda: "slow" in client._catalog._wanted)
    assert await soon(client.get_tool("slow", timeout=0.1)) is None
    await soon(server.start())
    await until(lambda: server.active_calls)
    if broker.shared_subscriptions:  # otherwise the client goes on to follow all cards
        await until(lambda: not client._catalog._listing.active)
        assert client._catalog._listing._ending is not None
        await client._catalog._listing._ending
    assert client._catalog.is_online("slow")
    done.set()
    assert await soon(call) == "done"
