"""Cards by message: endpoints ask for cards, and answer, at a broker whose nodes may keep retained messages apart."""

from __future__ import annotations

import json

import pytest
from brokers import Ejabberd, Mosquitto
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.transport import InboundMessage
from mqtt_agent.transport.reasons import NO_MATCHING_SUBSCRIBERS
from support import becomes, soon, until

from ..agents.conftest import MakeAgent
from ..tools.conftest import MakeClient, MakeServer
from .stranger import NOW, Stranger

RUN_ON = [Ejabberd]


@pytest.mark.rule("COPY-1", "COPY-2")
async def test_a_server_answers_a_question_with_copies_of_its_cards(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("weather", replica="a")
    server.add_tool("forecast", lambda: "sun")
    await soon(server.start())
    await stranger.connection.subscribe(f"{stranger.mcp}/+/+/card/stranger", stranger.seen.append)
    await stranger.tell("clients/stranger/query", {}, retain=True)
    await stranger.connection.publish(f"{stranger.mcp}/clients/stranger/query", b"", retain=True)
    await stranger.tell("clients/stranger/query", {})
    await until(lambda: stranger.on("servers/weather:a/card/stranger"))
    [tool] = stranger.read("tools/forecast/card/stranger")[-1:]
    [card] = stranger.read("servers/weather:a/card/stranger")[-1:]
    assert (tool["server"], tool["status"]) == ("weather", "online")
    assert (card["tools"], card["status"]) == (["forecast"], "online")
    assert not any(message.retain for message in stranger.seen)


@pytest.mark.rule("COPY-1", "COPY-2", "COPY-3")
async def test_a_client_takes_the_copies_that_answer_its_question(stranger: Stranger, make_client: MakeClient) -> None:
    def answer(message: InboundMessage) -> None:
        asked.append(message)
        tools = [{"tool": "far", "server": "there", "status": "online"}]
        server = {"server": "there:a", "name": "there", "tools": ["far"], "status": "online"}
        for topic, card in (("tools/far/card", tools[0]), ("servers/there:a/card", server)):
            stranger.connection.publish_soon(f"{stranger.mcp}/{topic}/caller", json.dumps(card).encode())

    asked: list[InboundMessage] = []
    await stranger.connection.subscribe(f"{stranger.mcp}/clients/+/query", answer, no_local=True)
    client = await make_client("caller")
    assert [card.tool for card in await soon(client.list_tools())] == ["far"]
    assert [(message.topic, message.payload) for message in asked] == [(f"{stranger.mcp}/clients/caller/query", b"{}")]


@pytest.mark.rule("COPY-3")
async def test_a_question_that_nobody_takes_is_not_waited_for(stranger: Stranger, make_server: MakeServer) -> None:
    question = f"{stranger.mcp}/clients/stranger/query"
    assert await stranger.connection.publish(question, b"{}") == NO_MATCHING_SUBSCRIBERS
    server = make_server("weather")
    await soon(server.start())
    assert await stranger.connection.publish(question, b"{}") == 0
    assert await server.connection.publish(question, b"{}") == NO_MATCHING_SUBSCRIBERS


@pytest.mark.rule("COPY-4")
async def test_a_server_asks_before_it_claims_a_tool_name(stranger: Stranger, make_server: MakeServer) -> None:
    await stranger.listen("clients/+/query")
    await stranger.listen("tools/+/card")
    server = make_server("weather", replica="a")
    server.add_tool("forecast", lambda: "sun")
    await soon(server.start())
    await until(lambda: stranger.on("tools/forecast/card"))
    assert stranger.seen[0].topic == f"{stranger.mcp}/clients/weather:a/query"


@pytest.mark.rule("SHARE-10")
async def test_a_claimant_asks_for_other_claims_and_stands_by_when_one_answers(
    stranger: Stranger, make_server: MakeServer
) -> None:
    """The other claimant shows its card only as an answer, as if it were at another node."""

    def answer(message: InboundMessage) -> None:
        if json.loads(message.payload)["client"] == "weather:b":
            card = {"server": "weather:a", "name": "weather", "replica": "a", "tools": ["forecast"], "standby": False}
            payload = json.dumps({**card, "status": "online", "started": NOW, "since": NOW}).encode()
            stranger.connection.publish_soon(f"{stranger.mcp}/servers/weather:a/card", payload)

    await stranger.connection.subscribe(f"{stranger.mcp}/servers/weather/query", answer, no_local=True)
    server = make_server("weather", replica="b")
    server.add_tool("forecast", lambda: "sun")
    await soon(server.start())
    assert server._presence.standby
    assert server._election.serving == "weather:a"
    assert await stranger.connection.publish(f"{stranger.mcp}/servers/weather/query", b"{}") == NO_MATCHING_SUBSCRIBERS


@pytest.mark.rule("SHARE-10")
async def test_a_claimant_that_does_not_answer_is_waited_for_only_a_short_time(
    stranger: Stranger, make_server: MakeServer
) -> None:
    await stranger.connection.subscribe(f"{stranger.mcp}/servers/weather/query", lambda _: None, no_local=True)
    server = make_server("weather", replica="b")
    server.add_tool("forecast", lambda: "sun")
    await soon(server.start())
    assert server._election.serving == "weather:b"


@pytest.mark.rule("SHARE-10", "SHARE-11")
async def test_a_serving_replica_answers_a_question_and_each_claim_of_another_replica_once(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("weather", replica="a")
    server.add_tool("forecast", lambda: "sun")
    await soon(server.start())
    await stranger.connection.subscribe(f"{stranger.mcp}/servers/weather:a/card", stranger.seen.append)
    await stranger.tell("servers/weather/query", {"query_id": "q", "call_ids": [], "client": "weather:b"})
    await until(lambda: len(stranger.on("servers/weather:a/card")) == 1)
    claim = {"server": "weather:b", "name": "weather", "tools": [], "standby": False, "status": "online"}
    # Each claim waits for the answer to the claim before, because a replaced claim that was not read needs no answer.
    for since, answers in (("2099-01-01T00:00:00.000Z", 2), ("2099-01-02T00:00:00.000Z", 3)):
        for _ in range(2):
            await stranger.tell("servers/weather:b/card", {**claim, "started": since, "since": since}, retain=True)
        await until(lambda answers=answers: len(stranger.on("servers/weather:a/card")) == answers)
        await soon(server._intake.barrier(5))
    assert [card["tools"] for card in stranger.read("servers/weather:a/card")] == [["forecast"]] * 3


@pytest.mark.rule("APEER-3")
async def test_an_agent_asks_and_answers_with_copies_of_card_and_status(
    stranger: Stranger, namespace: str, make_agent: MakeAgent
) -> None:
    def answer(message: InboundMessage) -> None:
        asker = message.topic.split("/")[-2]
        status = {"name": "far", "status": "online", "timestamp": NOW}
        for topic, fields in (("card", {"name": "far", "status": "online"}), ("status", status)):
            payload = json.dumps(fields).encode()
            stranger.connection.publish_soon(f"{namespace}/agents/far/{topic}/{asker}", payload)

    await stranger.connection.subscribe(f"{namespace}/agents/+/query", answer, no_local=True)
    planner = make_agent("planner")
    await soon(planner.start())

    async def found() -> bool:
        return [peer.name for peer in await planner.peers()] == ["far"]

    await becomes(found)
    await stranger.connection.subscribe(f"{namespace}/agents/planner/+/far", stranger.seen.append)
    await stranger.connection.publish(f"{namespace}/agents/far/query", b"{}")
    await until(lambda: len(stranger.seen) == 2)
    assert [message.topic.split("/")[-2] for message in stranger.seen] == ["card", "status"]
    assert [json.loads(message.payload)["status"] for message in stranger.seen] == ["online", "online"]


@pytest.mark.rule("COPY-1")
async def test_nobody_asks_at_a_broker_with_shared_subscriptions(mosquitto: Mosquitto, namespace: str) -> None:
    watcher = Stranger(mosquitto.url, namespace, "watcher")
    await watcher.start()
    await watcher.listen("clients/+/query")
    async with ToolServer("weather", broker=mosquitto.url, namespace=namespace) as server:
        await server.add_tool("forecast", lambda: "sun")
        async with ToolClient("caller", broker=mosquitto.url, namespace=namespace) as client:
            assert [card.tool for card in await soon(client.list_tools())] == ["forecast"]
    await watcher.tell("clients/watcher/query", {})
    await until(lambda: watcher.seen)
    assert [message.topic for message in watcher.seen] == [f"{watcher.mcp}/clients/watcher/query"]
    await watcher.stop()
