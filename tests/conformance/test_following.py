"""Which cards a client follows, and how the card of a tool tells its servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from brokers import Broker, Embedded
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.transport import InboundMessage, PublishProperties
from mqtt_agent.wire.cards import OFFLINE_CARD_EXPIRY
from skips import inapplicable
from support import soon, until

from ..tools.conftest import MakeClient, MakeServer
from .stranger import Stranger, StrangeServer


def echo(text: str = "") -> str:
    return text


@pytest.mark.rule("TCARD-10", "SCARD-8")
async def test_the_card_of_a_tool_lists_the_replicas_of_its_server(
    broker: Broker, stranger: Stranger, make_server: MakeServer
) -> None:
    await stranger.listen("tools/echo/card")
    await stranger.listen("servers/+/card")
    for replica in ("a", "b"):
        server = make_server("pair", replica=replica)
        server.add_tool("echo", echo)
        await soon(server.start())
    if broker.shared_subscriptions:
        await until(lambda: stranger.read("tools/echo/card")[-1].get("replicas") == ["pair:a", "pair:b"])
    else:  # the second replica is on standby
        await until(lambda: stranger.read("tools/echo/card")[-1].get("replicas") == ["pair:a"])
    assert "listed" in stranger.read("servers/pair:a/card")[-1]["features"]


@pytest.mark.rule("TCARD-10")
async def test_a_replica_that_the_card_of_its_tool_does_not_list_publishes_the_card_again(
    broker: Broker, stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("pair", replica="a")
    server.add_tool("echo", echo)
    await soon(server.start())
    await stranger.listen("tools/echo/card")
    await until(lambda: stranger.read("tools/echo/card"))
    card = stranger.read("tools/echo/card")[-1]
    assert card["replicas"] == ["pair:a"]
    foreign = ["pair:z", "other:1", "pair:/"]
    await stranger.tell("tools/echo/card", {**card, "replicas": foreign}, retain=True)
    await until(lambda: stranger.read("tools/echo/card")[-1]["replicas"] == ["pair:z", "pair:a"])


@pytest.mark.rule("DISC-8")
async def test_servers_that_the_card_of_their_tool_does_not_list_are_found_with_wildcards(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    strange_server.answer_at_once = {"status": "ok", "result": "done"}
    await strange_server.tell(
        "servers/odd:1/card", {"server": "odd:1", "name": "odd", "tools": ["strange"]}, retain=True
    )
    await strange_server.show_tool()
    client = await make_client("caller")
    assert await soon(client.call("strange")) == "done"
    assert client._catalog._listing.active
    assert client._catalog.servers_of("strange") == ("odd:1",)


async def show_an_unlisted_server(
    server: StrangeServer, status: str, *features_of_its_own: str, expiry: int | None = None
) -> None:
    """Show the server ``odd``, which the tool's card lists, and the server ``odd:9``, which it does not."""
    features = ["query", "listed"]
    await server.show(name="odd", features=features)
    unlisted = {"server": "odd:9", "name": "odd", "tools": ["strange"], "status": status}
    unlisted["features"] = ["query", *features_of_its_own]
    properties = PublishProperties(message_expiry=expiry)
    await server.tell("servers/odd:9/card", unlisted, properties, retain=True)
    await server.show_tool(replicas=["odd:1"])


@pytest.mark.rule("LOST-10")
async def test_a_server_that_is_not_listed_is_asked_before_a_call_is_sent_again(
    broker: Broker, strange_server: StrangeServer, make_client: MakeClient
) -> None:
    asked: list[dict[str, Any]] = []

    def on_query(message: InboundMessage) -> None:
        query = json.loads(message.payload)
        asked.append(query)
        answer = {"call_id": query["query_id"], "status": "ok", "result": {"known": query["call_ids"]}}
        strange_server._send(f"clients/{query['client']}/responses", answer)

    await show_an_unlisted_server(strange_server, "online")
    await soon(strange_server.connection.subscribe(f"{strange_server.mcp}/servers/odd:9/query", on_query))
    client = await make_client("caller")
    handle = await soon(client.submit("strange", call_id="c-1", resume=True))
    await until(lambda: asked)
    assert asked[0]["call_ids"] == ["c-1"]
    await until(lambda: handle.server == "odd:9")
    await strange_server.tell("clients/caller/responses", {"call_id": "c-1", "status": "ok", "result": "old"})
    assert await soon(handle.result()) == "old"
    assert strange_server.calls == []


@pytest.mark.long
@pytest.mark.rule("LOST-10")
async def test_a_call_is_not_sent_again_when_a_server_is_gone_that_was_not_listed(
    broker: Broker, strange_server: StrangeServer, make_client: MakeClient
) -> None:
    await show_an_unlisted_server(strange_server, "offline")
    await check_that_a_call_is_lost(strange_server, make_client)


@pytest.mark.long
@pytest.mark.rule("LOST-10")
async def test_a_call_is_not_sent_again_when_a_replica_has_died_since_then_before_it_was_listed(
    broker: Broker, strange_server: StrangeServer, make_client: MakeClient
) -> None:
    if isinstance(broker, Embedded):
        inapplicable("the embedded broker does not say how old a card is")
    await show_an_unlisted_server(strange_server, "offline", "listed", expiry=OFFLINE_CARD_EXPIRY)
    await check_that_a_call_is_lost(strange_server, make_client)


@pytest.mark.long
@pytest.mark.rule("LOST-10")
async def test_a_call_is_sent_again_although_a_replica_died_long_before(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    await show_an_unlisted_server(strange_server, "offline", "listed", expiry=OFFLINE_CARD_EXPIRY - 60)
    client = await make_client("caller")
    handle = await soon(client.submit("strange"))
    await strange_server.next_call()
    await until(lambda: len(strange_server.calls) == 2, 20)
    await soon(handle.cancel())


async def check_that_a_call_is_lost(server: StrangeServer, make_client: MakeClient) -> None:
    client = await make_client("caller")
    handle = await soon(client.submit("strange"))
    await server.next_call()
    with pytest.raises(ToolUnavailable) as caught:
        await soon(handle.result(), 20)
    assert caught.value.maybe_executed
    assert len(server.calls) == 1


@pytest.mark.rule("LOST-10")
@pytest.mark.parametrize("before", [None, "offline"])
async def test_a_server_that_comes_online_while_others_are_asked_is_asked_before_a_call_is_sent_again(
    broker: Broker, strange_server: StrangeServer, make_client: MakeClient, before: str | None
) -> None:
    mcp, features = strange_server.mcp, ["query", "listed"]
    other = {"server": "odd:9", "name": "odd", "tools": ["strange"], "features": features}

    def on_query(message: InboundMessage) -> None:
        query = json.loads(message.payload)
        has = query["call_ids"] if message.topic.endswith("/odd:9/query") else []
        online = json.dumps({**other, "status": "online"}).encode()
        strange_server.connection.publish_soon(f"{mcp}/servers/odd:9/card", online, retain=True)
        answer = {"call_id": query["query_id"], "status": "ok", "result": {"known": has}}
        strange_server._send(f"clients/{query['client']}/responses", answer)

    await soon(strange_server.connection.unsubscribe(f"{mcp}/servers/odd/query", strange_server._on_query))
    strange_server._retained.add(f"{mcp}/servers/odd:9/card")
    for name in ("odd", "odd:9"):
        await soon(strange_server.connection.subscribe(f"{mcp}/servers/{name}/query", on_query))
    if before is not None:
        await strange_server.tell("servers/odd:9/card", {**other, "status": before}, retain=True)
    await strange_server.show(name="odd", features=features)
    await strange_server.show_tool(replicas=["odd:9"])
    client = await make_client("caller")
    handle = await soon(client.submit("strange", call_id="c-1", resume=True))
    await until(lambda: handle.server or strange_server.calls)
    assert strange_server.calls == []
    assert handle.server == "odd:9"
    await strange_server.tell("clients/caller/responses", {"call_id": "c-1", "status": "ok", "result": "old"})
    assert await soon(handle.result()) == "old"


@pytest.mark.rule("DISC-8")
async def test_a_client_does_not_follow_the_replicas_that_are_gone(
    broker: Broker, strange_server: StrangeServer, make_client: MakeClient
) -> None:
    strange_server.answer_at_once = {"status": "ok", "result": "done"}
    features = ["query", "listed"]
    await strange_server.show(name="odd", features=features)
    await strange_server.show_tool(replicas=["odd:1"])
    for number in range(10, 30):
        gone = {"server": f"odd:{number}", "name": "odd", "tools": ["strange"], "features": features}
        await strange_server.tell(f"servers/odd:{number}/card", {**gone, "status": "offline"}, retain=True)
    client = await make_client("caller")
    assert await soon(client.call("strange")) == "done"
    assert len(await soon(client.list_servers(online_only=False))) == 21
    assert sorted(client._catalog._servers_wanted) == ["odd", "odd:1"]


@pytest.mark.rule("LOST-10")
async def test_a_server_that_claims_the_tools_name_is_asked_before_a_call_is_sent_again(
    strange_server: StrangeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection of the second replica broke between its first calls and the card that lists the tool."""
    monkeypatch.setattr("mqtt_agent.tools.calling.followup._EVERY", 0.05)
    features = ["query", "listed"]
    await strange_server.show(name="odd", features=features)
    await strange_server.show_tool(status="online", replicas=["odd"])
    claiming = {"server": "odd:2", "name": "odd", "tools": [], "claims": ["strange"], "features": features}
    await strange_server.tell("servers/odd:2/card", {**claiming, "status": "online"}, retain=True)
    await strange_server.listen("servers/odd:2/query")
    client = await make_client("caller")
    handle = await soon(client.submit("strange", timeout=30, wait_online=True))
    call = await strange_server.next_call()
    await until(lambda: strange_server.read("servers/odd:2/query") or len(strange_server.calls) > 1)
    for query in strange_server.read("servers/odd:2/query"):
        known = {"call_id": query["query_id"], "result": {"known": [handle.call_id]}, "server": "odd:2"}
        await strange_server.tell("clients/caller/responses", {**known, "status": "ok"})
    await until(lambda: handle.server == "odd:2")
    await strange_server.reply(call, status="ok", result="done", server="odd:2")
    assert await soon(handle.result()) == "done"
    assert len(strange_server.calls) == 1
