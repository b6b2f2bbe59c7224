"""Our cards as an independent peer sees them, and cards of independent peers as our client reads them."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import paho.mqtt.client as paho
import pytest
from brokers import Broker
from mqtt_agent import ToolClient, ToolContext
from mqtt_agent.endpoints import retained
from mqtt_agent.errors import ToolUnavailable
from paho.mqtt.enums import CallbackAPIVersion
from proxy import Proxy
from support import soon, until

from ..tools.conftest import MakeClient, MakeServer
from .stranger import Stranger, StrangeServer

REQUIRED_TOOL_FIELDS = {
    *("version", "tool", "server", "namespace", "description", "input_schema", "supports_streaming"),
    *("requires_auth", "status", "last_seen"),
}
SERVER_FIELDS = {"version", "server", "namespace", "tools", "version_info", "status", "last_seen"}


async def listed(client: ToolClient) -> list[str]:
    return [card.tool for card in await soon(client.list_tools())]


async def online(client: ToolClient, *tools: str) -> None:
    """Wait until exactly these tools can be called."""
    changes = client.watch_tools()

    async def wait() -> None:
        while await listed(client) != sorted(tools):
            await changes.__anext__()

    await soon(wait())


@pytest.mark.rule("MQTT-2", "TCARD-1", "TCARD-2", "TCARD-4", "TCARD-7", "PRES-3")
@pytest.mark.rule("SCARD-1", "SCARD-2", "SCARD-3", "SCARD-4", "SCARD-6")
async def test_a_servers_cards_hold_the_specified_fields_and_come_when_it_takes_calls(
    broker: Broker, stranger: Stranger, make_server: MakeServer, namespace: str
) -> None:
    await stranger.listen("tools/+/card")
    await stranger.listen("servers/+/card")
    server = make_server("weather", replica="a")

    @server.tool(read_only=True, version="2.1", allowed_callers=["agent-a"])
    async def forecast(city: str, ctx: ToolContext) -> None:
        """Weather forecast for a city."""

    starting = asyncio.ensure_future(server.start())
    await until(lambda: any(card["tools"] for card in stranger.read("servers/weather:a/card")))
    await stranger.call("forecast", "at once", arguments={"city": "Oslo"})
    assert (await stranger.answer("at once"))["status"] == "ok"
    await soon(starting)
    await until(lambda: stranger.on("tools/forecast/card"))
    [claimed, tool] = stranger.read("tools/forecast/card")
    [claims, card] = stranger.read("servers/weather:a/card")
    assert {**claimed, "status": "online", "last_seen": ""} == {**tool, "last_seen": ""}
    assert (claimed["status"], claims["claims"], claims["tools"]) == ("offline", ["forecast"], [])
    ours = {"annotations", "features", "replicas"}
    assert set(tool) == REQUIRED_TOOL_FIELDS | {"version_info", "allowed_callers"} | ours
    assert (tool["version"], tool["tool"], tool["server"], tool["namespace"]) == ("1", "forecast", "weather", namespace)
    assert (tool["requires_auth"], tool["allowed_callers"]) == (True, ["agent-a"])
    assert tool["features"] == ["cancel", "progress", "query", "replay"]
    assert set(card) == SERVER_FIELDS | {
        "name",
        "replica",
        "started",
        "epoch",
        "session_present",
        "features",
        "schemas",
    }
    assert (card["server"], card["name"], card["replica"]) == ("weather:a", "weather", "a")
    assert card["epoch"] == server.connection.epoch
    assert card["session_present"] is False or not broker.ends_sessions
    assert card["features"] == ["query", "call", "listed", "bound"]
    order = [message.topic.removeprefix(f"{stranger.mcp}/") for message in stranger.seen if "card" in message.topic]
    assert order == [f"{kind}/card" for kind in ("servers/weather:a", *["tools/forecast"] * 2, "servers/weather:a")]
    assert {message.qos for message in stranger.seen} == {1}


@pytest.mark.rule("MQTT-3", "CALL-2")
async def test_every_message_says_that_it_is_json_text(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    seen: dict[str, Any] = {}
    ready = threading.Event()
    listener = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)

    def on_connect(*args: Any) -> None:
        listener.subscribe(f"{namespace}/#")

    listener.on_connect = on_connect
    listener.on_subscribe = lambda *args: ready.set()
    listener.on_message = lambda client, data, message: seen.setdefault(message.topic.split("/")[-1], message)
    listener.connect("127.0.0.1", broker.port)
    listener.loop_start()
    assert await asyncio.to_thread(ready.wait, 10)
    server = make_server()

    @server.tool
    async def talk(ctx: ToolContext) -> None:
        await ctx.stream("hello")

    await soon(server.start())
    client = await make_client()
    await soon(client.call("talk", call_id="the-stream", on_partial=lambda partial: None))
    await until(lambda: {"card", client.agent_id, server.server_id, "the-stream"} <= set(seen))
    listener.loop_stop()
    for what, message in seen.items():
        assert (what, message.properties.ContentType) == (what, "application/json")
        assert message.properties.PayloadFormatIndicator == 1


@pytest.mark.rule("TCARD-6")
async def test_replicas_publish_the_same_tool_card(stranger: Stranger, make_server: MakeServer) -> None:
    await stranger.listen("tools/+/card")
    for count in (1, 2):
        server = make_server("pair")
        server.add_tool("job", lambda n=1: n, input_schema={"type": "object"}, title="A job")
        await soon(server.start())
        await until(lambda count=count: len(stranger.on("tools/job/card")) == count + 1)
    cards = stranger.read("tools/job/card")
    assert [len(card["replicas"]) for card in cards] == [1, 1, 2]
    claim, one, two = ({**card, "last_seen": "", "replicas": []} for card in cards)
    assert one == two == {**claim, "status": "online"}


@pytest.mark.rule("TCARD-3", "SCARD-5", "MQTT-3", "JSON-5", "JSON-2")
async def test_cards_with_nothing_but_names_are_read(strange_server: StrangeServer, make_client: MakeClient) -> None:
    client = await make_client()
    await strange_server.show_tool(last_seen="yesterday", from_the_future={"a": 1})
    await strange_server.tell("servers/odd/card", {"server": "odd", "tools": ["strange"]}, retain=True)
    await online(client, "strange")
    changes = client.watch_tools()
    while not await soon(client.list_servers()):
        await soon(anext(changes))
    [card] = await soon(client.list_tools())
    assert (card.requires_auth, card.supports_streaming, card.features) == (True, False, None)
    assert (await soon(client.list_servers()))[0].server == "odd"


@pytest.mark.rule("TCARD-5", "HOST-7")
async def test_allowed_callers_is_a_hint_and_the_client_is_who_it_says(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server()
    server.add_tool("secret", lambda: "told", allowed_callers=["somebody"])
    await soon(server.start())
    await stranger.call("secret", "1")
    assert (await stranger.answer("1"))["result"] == "told"


@pytest.mark.rule("PRES-5", "PRES-6")
async def test_a_tool_is_there_when_an_online_server_card_lists_it(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    client = await make_client()
    await strange_server.show_tool(status="online")
    await online(client, "strange")  # no server card names it
    await strange_server.show(status="offline")
    await online(client)
    await strange_server.show()
    await online(client, "strange")
    await strange_server.show_tool(status="offline")
    await strange_server.tell("tools/marker/card", {"tool": "marker", "server": "odd"}, retain=True)
    await online(client, "marker", "strange")


@pytest.mark.rule("PRES-4", "SCARD-3", "LATE-1")
async def test_after_a_reconnect_the_cards_come_again_except_those_that_a_kept_session_has_unchanged(
    broker: Broker, stranger: Stranger, make_server: MakeServer
) -> None:
    await stranger.listen("servers/+/card")
    await stranger.listen("tools/+/card")
    async with Proxy(broker.url) as proxy:
        server = make_server("weather", replica="a", broker=proxy.url, will_delay=30)
        server.add_tool("forecast", lambda: 1)
        await soon(server.start())
        await until(lambda: stranger.on("tools/forecast/card"))
        before = stranger.read("servers/weather:a/card")[-1]
        tools = len(stranger.on("tools/forecast/card"))
        proxy.drop()
        await until(lambda: stranger.read("servers/weather:a/card")[-1]["epoch"] > before["epoch"])
        after = stranger.read("servers/weather:a/card")[-1]
        assert (after["status"], after["started"]) == ("online", before["started"])
        assert after["session_present"] is broker.keeps_shared_messages
        if after["session_present"]:
            assert len(stranger.on("tools/forecast/card")) == tools
        else:
            await until(lambda: len(stranger.on("tools/forecast/card")) > tools)
        await soon(server.stop())


@pytest.mark.rule("PRES-7", "PRES-12")
@pytest.mark.parametrize("replica", ["a", None])
async def test_the_last_card_of_a_made_up_name_expires(
    replica: str | None, broker: Broker, stranger: Stranger, make_server: MakeServer
) -> None:
    await stranger.listen("servers/+/card")
    server = make_server("weather", replica=replica)
    await soon(server.start())
    await soon(server.stop())
    topic = f"servers/{server.server_id}/card"
    await until(lambda: any(card["status"] == "offline" for card in stranger.read(topic)))
    expiries = {message.message_expiry for message in stranger.on(topic) if b"offline" in message.payload}
    assert expiries == {broker.longest_life} if replica else expiries <= {24 * 3600, 24 * 3600 - 1}
    online = next(message for message in stranger.on(topic) if b"online" in message.payload)
    assert online.message_expiry == broker.longest_life


@pytest.mark.rule("DISC-1", "DISC-2", "DISC-3")
async def test_more_cards_than_a_broker_queues_are_all_listed(stranger: Stranger, make_client: MakeClient) -> None:
    cards = ({"tool": f"tool-{n:04}", "server": "many"} for n in range(1500))
    await asyncio.gather(*(stranger.tell(f"tools/{card['tool']}/card", card, retain=True) for card in cards))
    client = await make_client()
    assert await listed(client) == [f"tool-{n:04}" for n in range(1500)]


@pytest.mark.rule("DISC-6")
async def test_cards_that_were_removed_meanwhile_are_forgotten(
    broker: Broker, stranger: Stranger, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retained, "PATIENCE", 0.1)
    for tool in ("old", "stays"):
        await stranger.tell(f"tools/{tool}/card", {"tool": tool, "server": "s"}, retain=True)
    async with Proxy(broker.url) as proxy:
        client = await make_client(broker=proxy.url)
        assert await listed(client) == ["old", "stays"]
        await proxy.cut()
        await until(lambda: not client.connection.connected)
        await soon(stranger.connection.publish(f"{stranger.mcp}/tools/old/card", b"", retain=True))
        await proxy.mend()
        await online(client, "stays")
        await soon(client.stop())


@pytest.mark.rule("LIMIT-5")
async def test_cards_over_the_limit_are_left_out_and_told_once(
    stranger: Stranger, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(6):
        await stranger.tell(f"tools/tool-{n}/card", {"tool": f"tool-{n}", "server": "many"}, retain=True)
    with caplog.at_level(logging.WARNING):
        client = await make_client(max_cards=3)
        assert len(await listed(client)) == 3
    assert [record.getMessage() for record in caplog.records if "too many cards" in record.getMessage()] != []
    assert len(caplog.records) == 1


# Late wills

EARLIER, LATER = "2026-04-21T09:00:00.000Z", "2026-04-21T09:30:00.000Z"


async def seen_all(server: StrangeServer, client: ToolClient) -> None:
    """Wait until the client has received everything that the server has published so far."""
    tool = f"marker-{len(await listed(client))}"
    await server.tell(f"tools/{tool}/card", {"tool": tool, "server": "odd"}, retain=True)
    changes = client.watch_tools()
    while tool not in await listed(client):
        await soon(changes.__anext__())


@pytest.mark.rule("LATE-1", "LATE-2", "LATE-3")
@pytest.mark.parametrize(
    ("known", "will", "late"),
    [
        ((LATER, 2), (LATER, 1), True),
        ((LATER, 1), (EARLIER, 9), True),
        ((LATER, 2), (LATER, 2), False),
        ((EARLIER, 2), (LATER, 1), False),
        ((LATER, 2), (None, None), False),
        ((None, None), (EARLIER, 1), False),
    ],
)
async def test_a_late_will_is_not_taken_for_news(
    known: tuple[Any, Any], will: tuple[Any, Any], late: bool, strange_server: StrangeServer, make_client: MakeClient
) -> None:
    def card(of: tuple[Any, Any]) -> dict[str, Any]:
        return {} if of[0] is None else {"started": of[0], "epoch": of[1]}

    client = await make_client()
    await strange_server.show_tool()
    await strange_server.show(**card(known))
    await online(client, "strange")
    await strange_server.show(status="offline", **card(will))
    await seen_all(strange_server, client)
    assert ("strange" in await listed(client)) == late


@pytest.mark.rule("LATE-4")
async def test_a_process_that_began_anew_without_its_session_has_lost_its_calls(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    client = await make_client()
    await strange_server.show_tool()
    await strange_server.show(started=EARLIER, epoch=3, session_present=True, features=["query"])
    await online(client, "strange")
    handle = await soon(client.submit("strange"))
    await strange_server.next_call()
    await strange_server.show(started=LATER, epoch=1, session_present=False, features=["query"])
    with pytest.raises(ToolUnavailable) as caught:
        await soon(handle.result())
    assert caught.value.maybe_executed


@pytest.mark.rule("LATE-5", "LOST-1")
async def test_a_process_that_lost_its_session_still_has_its_calls(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    client = await make_client()
    await strange_server.show_tool()
    await strange_server.show(started=EARLIER, epoch=1, session_present=False, features=["query"])
    await online(client, "strange")
    handle, waiting = await soon(client.submit("strange")), await soon(client.submit("strange"))
    call, lost = await strange_server.next_call(), await strange_server.next_call(2)
    strange_server.has = {handle.call_id}
    await strange_server.show(started=EARLIER, epoch=2, session_present=False, features=["query"])
    again = await strange_server.next_call(3)
    assert again["call_id"] == lost["call_id"] == waiting.call_id, "it waited at the broker, and was lost there"
    await strange_server.reply(call, result="kept")
    await strange_server.reply(again, result="sent again")
    assert await soon(handle.result()) == "kept"
    assert await soon(waiting.result()) == "sent again"
    assert len(strange_server.calls) == 3
