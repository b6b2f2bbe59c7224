"""A tool name belongs to one server name: our servers beside servers whose cards are written by hand."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent.errors import InvalidArguments, ToolNameTaken
from support import becomes, soon, until

from ..tools.conftest import MakeClient, MakeServer
from .stranger import NOW, Stranger, StrangeServer


async def offer(server: StrangeServer, **card: Any) -> None:
    """Serve the tool ``strange``, with answers to its calls."""
    server.answer_at_once = {"status": "ok", "result": "odd"}
    await server.show_tool(status="online")
    await server.show(**card)


@pytest.mark.rule("OWN-1", "OWN-2", "OWN-3", "OWN-5", "SCARD-7")
async def test_a_server_takes_no_calls_of_a_name_that_another_server_has(
    strange_server: StrangeServer, stranger: Stranger, make_server: MakeServer
) -> None:
    await offer(strange_server)
    await stranger.listen("servers/+/card")
    await stranger.listen("tools/strange/card")
    proud = make_server("proud")
    proud.add_tool("strange", lambda: "proud")
    with pytest.raises(ToolNameTaken, match=r"server 'odd' \(odd\) offers a tool of this name"):
        await soon(proud.start())
    ours = make_server("ours", replica="a", on_conflict="standby")
    ours.add_tool("strange", lambda: "ours")
    ours.add_tool("other", lambda: "other")
    await soon(ours.start())
    await until(lambda: any("other" in card["tools"] for card in stranger.read("servers/ours:a/card")))
    card = stranger.read("servers/ours:a/card")[-1]
    assert (card["tools"], card["refused"], "claims" in card) == (["other"], ["strange"], False)
    assert {card["server"] for card in stranger.read("tools/strange/card")} == {"odd"}
    for number in range(5):
        await stranger.call("strange", str(number))
        assert (await stranger.answer(str(number)))["result"] == "odd"
        assert len(stranger.answers(str(number))) == 1
    before = len(stranger.seen)
    await strange_server.show(status="offline")
    await until(lambda: any("strange" in card["tools"] for card in stranger.read("servers/ours:a/card")))
    after = [message for message in stranger.seen[before:] if message.payload and b'"ours' in message.payload]
    tools = [card for card in stranger.read("tools/strange/card") if card["server"] == "ours"]
    assert [card["status"] for card in tools] == ["offline", "online"]
    claims = [card.get("claims") for card in stranger.read("servers/ours:a/card")]
    assert claims[-2:] == [["strange"], None]
    assert [message.topic.split("/")[-3] for message in after] == ["servers", "tools", "tools", "servers"]
    await stranger.call("strange", "after")
    await until(lambda: "ours" in [answer.get("result") for answer in stranger.answers("after")])


@pytest.mark.rule("OWN-7")
async def test_a_server_without_the_rule_is_told_and_marked(
    strange_server: StrangeServer, make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    ours = make_server("ours")
    ours.add_tool("strange", lambda: "ours")
    await soon(ours.start())
    client = await make_client()
    assert [card.also_offered_by for card in await client.list_tools()] == [[]]
    await strange_server.show()
    await strange_server.show_tool(status="online")

    async def marked() -> bool:
        return [(card.server, card.also_offered_by) for card in await client.list_tools()] == [("ours", ["odd"])]

    await becomes(marked)
    for _ in range(3):
        await strange_server.show()
        await strange_server.show_tool(status="online")
    await becomes(marked)

    def warnings() -> list[str]:
        return sorted(
            r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "'odd'" in r.getMessage()
        )

    await until(lambda: len(warnings()) >= 2)
    by_client, by_server = warnings()
    assert by_client.startswith("servers 'odd' and 'ours' both offer tool")
    assert by_server.startswith("servers 'ours' and 'odd' (odd) both serve")


async def test_the_only_server_of_a_tool_is_no_other_server_when_the_tools_card_names_a_server_that_is_gone(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    client = await make_client()
    changes = client.watch_tools()
    await strange_server.show()
    await strange_server.show_tool(status="online", server="gone")
    assert (await soon(changes.__anext__())).kind == "online"
    [card] = await client.list_tools()
    assert (card.server, card.status, card.also_offered_by) == ("gone", "online", [])


@pytest.mark.rule("OWN-7")
async def test_the_server_that_started_first_keeps_a_name_that_two_servers_have(
    strange_server: StrangeServer, stranger: Stranger, make_server: MakeServer
) -> None:
    await stranger.listen("servers/+/card")
    ours = make_server("ours", replica="a")
    ours.add_tool("strange", lambda: "ours")
    await soon(ours.start())
    await offer(strange_server, started=NOW, epoch=1)
    await strange_server.show_tool(status="online", last_seen=NOW)
    await until(lambda: stranger.read("servers/ours:a/card")[-1].get("refused") == ["strange"])
    assert stranger.read("servers/ours:a/card")[-1]["tools"] == []


@pytest.mark.rule("CALL-19", "QUERY-8")
async def test_a_call_for_one_replica_arrives_as_a_query(stranger: Stranger, make_server: MakeServer) -> None:
    server = make_server("pair", replica="a")

    @server.tool
    async def double(n: int) -> int:
        return 2 * n

    await soon(server.start())
    await until(lambda: server.connection.connected)

    async def ask(call_id: str, tool: str = "double", client: str = "stranger", **arguments: Any) -> None:
        call = {"call_id": call_id, "arguments": arguments, "client": client, "timestamp": NOW}
        query = {"query_id": f"q-{call_id}", "call_ids": [], "client": "stranger", "tool": tool, "call": call}
        await stranger.tell("servers/pair:a/query", query)

    await ask("good", n=4)
    answer = await stranger.answer("good")
    assert (answer["status"], answer["result"], answer["server"]) == ("ok", 8, "pair:a")
    await ask("bad", m=4)
    error = (await stranger.answer("bad"))["error"]
    assert (error["type"], error["code"]) == ("invalid_arguments", "ARGUMENTS_DO_NOT_FIT")
    await ask("unknown", tool="triple", n=4)
    error = (await stranger.answer("unknown"))["error"]
    assert (error["type"], error["data"]) == ("unavailable", {"maybe_executed": False})
    await ask("foreign", client="victim", n=4)
    await ask("last", n=1)
    await stranger.answer("last")
    assert [stranger.answers(f"q-{call_id}") for call_id in ("good", "bad", "unknown", "foreign")] == [[]] * 4
    assert stranger.answers("foreign") == []


@pytest.mark.rule("CALL-19")
async def test_a_call_that_does_not_fit_one_schema_is_sent_to_a_replica_with_another_schema(
    broker: Broker, strange_server: StrangeServer, make_client: MakeClient
) -> None:
    """The hand-written server answers under the names of three replicas, of which two have the same schema."""
    await strange_server.show_tool(status="online")
    replicas = {"odd": "one", "odd:2": "one", "odd:3": "two"}
    for replica, schemas in replicas.items():
        card = {"server": replica, "name": "odd", "tools": ["strange"], "features": ["query", "call"]}
        card = {**card, "status": "online", "schemas": schemas, "started": f"2026-01-0{1 + len(replica)}T00:00:00.000Z"}
        await strange_server.tell(f"servers/{replica}/card", card, retain=True)
        await strange_server.listen(f"servers/{replica}/query")
    client = await make_client("caller")

    async def known() -> bool:
        return len(await client.list_servers()) == 3

    await becomes(known)
    refusal = {"type": "invalid_arguments", "message": "old", "code": "ARGUMENTS_DO_NOT_FIT"}
    strange_server.answer_at_once = {"status": "error", "error": refusal, "server": "odd"}
    queries = f"servers/{'odd:3'}/query"

    handle = await client.submit("strange", {"new": 1})
    await until(lambda: strange_server.read(queries))
    [query] = strange_server.read(queries)
    assert (query["tool"], query["client"], query["call"]["client"]) == ("strange", "caller", "caller")
    assert (query["call"]["call_id"], query["call"]["arguments"]) == (handle.call_id, {"new": 1})
    await strange_server.reply(query["call"], status="ok", result="new", server="odd:3")
    assert await soon(handle.result()) == "new"

    handle = await client.submit("strange", {"wrong": 1})
    await until(lambda: len(strange_server.read(queries)) == 2)
    refusal = {**refusal, "message": "new"}
    await strange_server.reply(strange_server.read(queries)[1]["call"], status="error", error=refusal, server="odd:3")
    with pytest.raises(InvalidArguments, match="strange: new"):
        await soon(handle.result())
    assert len(strange_server.calls) == 2, "each schema is tried once"
    assert [strange_server.read(f"servers/{replica}/query") for replica in ("odd", "odd:2")] == [[], []]


@pytest.mark.rule("CALL-19")
async def test_a_call_is_sent_to_the_next_replica_of_a_schema_when_the_first_one_cannot_be_reached(
    broker: Broker, strange_server: StrangeServer, make_client: MakeClient
) -> None:
    """During a deployment, the replica that stops has left its query topic, and its card still says online."""
    await strange_server.show_tool(status="online")

    async def show(replica: str, schemas: str, status: str = "online") -> None:
        card = {"server": replica, "name": "odd", "tools": ["strange"], "features": ["query", "call"]}
        card = {**card, "status": status, "schemas": schemas, "started": "2026-01-01T00:00:00.000Z"}
        await strange_server.tell(f"servers/{replica}/card", card, retain=True)

    for replica, schemas in {"odd": "new", "odd:1": "old", "odd:2": "old"}.items():
        await show(replica, schemas)
    await strange_server.listen("servers/odd:2/query")  # nobody is subscribed to the topic of odd:1
    client = await make_client("caller")

    async def known() -> bool:
        return len(await client.list_servers()) == 3

    await becomes(known)
    refusal = {"type": "invalid_arguments", "message": "new", "code": "ARGUMENTS_DO_NOT_FIT"}
    strange_server.answer_at_once = {"status": "error", "error": refusal, "server": "odd"}
    handle = await client.submit("strange", {"old": 1})
    if not broker.says_unheard:  # then only its card tells that the replica is gone
        await show("odd:1", "old", "offline")

    def calls() -> list[Any]:
        return [each for each in strange_server.read("servers/odd:2/query") if "call" in each]

    await until(lambda: handle.done or calls())
    [query] = calls()
    await strange_server.reply(query["call"], status="ok", result="old", server="odd:2")
    assert await soon(handle.result()) == "old"
