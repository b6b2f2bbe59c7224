"""Calls, answers, streams, cancels and queries, as an independent peer sends and receives them."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker, Mosquitto
from mqtt_agent import ToolClient, ToolContext, ToolError, ToolServer
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.tools.calling import queries, recovery
from mqtt_agent.transport import Connection
from support import becomes, soon, until

from ..tools.conftest import MakeClient, MakeServer
from .stranger import Stranger, StrangeServer

RUN_ON = ALL_BROKERS


async def online(client: ToolClient, tool: str, servers: int = 1) -> None:
    """Wait until this number of servers offers the tool."""
    changes = client.watch_tools()

    async def wait() -> None:
        while len([card for card in await client.list_servers() if tool in card.tools]) != servers:
            await changes.__anext__()

    await soon(wait())


async def calling(server: StrangeServer, make_client: MakeClient, **tool: Any) -> ToolClient:
    """Our client, which has already received the card of the independent server's tool."""
    await server.show_tool(**tool)
    await server.show()
    client = await make_client("agent-a")
    await online(client, "strange")
    return client


# Calls


@pytest.mark.rule("CALL-1", "CALL-2", "CALL-3", "CALL-5", "CALL-7", "JSON-1", "JSON-3", "JSON-5", "MQTT-2", "TOPIC-3")
async def test_our_calls_hold_the_specified_fields_and_properties(
    broker: Broker, strange_server: StrangeServer, make_client: MakeClient
) -> None:
    client = await calling(strange_server, make_client)
    await strange_server.listen("tools/strange/call")
    handles = [
        await soon(client.submit("strange", {"city": "Oslo", "nothing": None}, timeout=30, call_id="my id/1")),
        await soon(client.submit("strange", timeout=0.5)),
        await soon(client.submit("strange")),
    ]
    await until(lambda: len(strange_server.on("tools/strange/call")) == 3)
    full, hasty, patient = strange_server.on("tools/strange/call")
    call = json.loads(full.payload)
    assert set(call) == {"call_id", "arguments", "client", "timestamp", "response_topic", "stream"}
    assert (call["call_id"], call["client"], call["stream"]) == ("my id/1", "agent-a", False)
    assert call["arguments"] == {"city": "Oslo", "nothing": None}
    assert call["timestamp"].endswith("Z")
    assert call["response_topic"] == full.response_topic == f"{strange_server.mcp}/clients/agent-a/responses"
    assert (full.correlation_data, full.qos, full.retain) == (b"my id/1", 1, False)
    if broker.name != "embedded":
        assert full.message_expiry in (29, 30)
        assert hasty.message_expiry in (0, 1), "a broker may have counted already"
    assert patient.message_expiry == broker.longest_life
    for handle in handles:
        await handle.cancel()


@pytest.mark.rule("RESP-1", "RESP-7", "RESP-9", "RESP-16", "CALL-4", "CALL-8", "MQTT-2", "TOPIC-4", "JSON-3")
async def test_a_success_holds_the_specified_fields_and_comes_to_the_response_topic(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("weather", replica="a")
    server.add_tool("echo", lambda arguments: arguments or None, input_schema={"type": "object"})
    await soon(server.start())
    await stranger.call("echo", "call_mf3x2k1a_0z9y8x7w", arguments={"a": None})
    answer = await stranger.answer("call_mf3x2k1a_0z9y8x7w")
    assert set(answer) == {"call_id", "status", "result", "elapsed_ms", "server"}
    assert (answer["status"], answer["result"], answer["server"]) == ("ok", {"a": None}, "weather:a")
    assert answer["elapsed_ms"] >= 0
    [message] = stranger.seen
    assert (message.correlation_data, message.qos, message.retain) == (b"call_mf3x2k1a_0z9y8x7w", 1, False)

    bare = {"call_id": "bare", "client": "stranger"}
    await stranger.tell("tools/echo/call", bare)
    assert "result" not in await stranger.answer("bare")
    assert stranger.seen[-1].correlation_data is None
    await stranger.tell("tools/echo/call", {**bare, "call_id": "payload", "response_topic": stranger.inbox})
    assert (await stranger.answer("payload"))["status"] == "ok"


@pytest.mark.rule("CALL-9", "RESP-2", "RESP-3", "RESP-10", "RESP-11")
async def test_a_failure_holds_the_specified_fields(stranger: Stranger, make_server: MakeServer) -> None:
    server = make_server()

    @server.tool
    async def forecast(city: str, days: list[int]) -> None:
        if city == "nowhere":
            raise ToolError("no such city", code="E_CITY", data={"city": city}, retryable=False)
        raise LookupError(city)

    await soon(server.start())
    await stranger.call("forecast", "1", arguments={"city": "Oslo", "days": ["x"] * 30})
    error = (await stranger.answer("1"))["error"]
    assert error["type"] == "invalid_arguments"
    assert error["data"][0] == {"path": "/days/0", "message": 'must be a whole number, not the text "x"'}
    assert len(error["data"]) == 20
    await stranger.call("forecast", "2", arguments={"city": "nowhere", "days": []})
    answer = await stranger.answer("2")
    assert set(answer) == {"call_id", "status", "error", "elapsed_ms", "server"}
    assert answer["error"] == {
        "type": "tool_error",
        "message": "no such city",
        "code": "E_CITY",
        "data": {"city": "nowhere"},
        "retryable": False,
    }
    await stranger.call("forecast", "3", arguments={"city": "Oslo", "days": []})
    assert (await stranger.answer("3"))["error"] == {"type": "tool_error", "message": "Oslo", "code": "LookupError"}


@pytest.mark.rule("CALL-6")
async def test_a_call_that_expires_while_it_waits_is_not_run_and_not_answered(
    mosquitto: Mosquitto, namespace: str
) -> None:
    server = ToolServer("busy", broker=mosquitto.url, namespace=namespace, max_concurrency=1)
    stranger = Stranger(mosquitto.url, namespace, "stranger")
    go_on = asyncio.Event()
    runs: list[str] = []

    @server.tool
    async def work(ctx: ToolContext) -> None:
        runs.append(ctx.call_id)
        await go_on.wait()

    await soon(stranger.start())
    async with server:
        await stranger.call("work", "first")
        await until(lambda: runs)
        await stranger.call("work", "expires", expiry=1)
        await stranger.call("work", "lasts", expiry=60)
        await asyncio.sleep(1.2)  # no event announces that the call has expired
        go_on.set()
        await stranger.answer("lasts")
        assert runs == ["first", "lasts"]
        assert stranger.answers("expires") == []
    await soon(stranger.stop())


@pytest.mark.rule("CALL-10")
@pytest.mark.parametrize("later", [60, None])
async def test_a_call_that_waits_expires_with_the_latest_of_its_repeats(
    mosquitto: Mosquitto, namespace: str, later: int | None
) -> None:
    server = ToolServer("busy", broker=mosquitto.url, namespace=namespace, max_concurrency=1)
    stranger = Stranger(mosquitto.url, namespace, "stranger")
    go_on = asyncio.Event()
    runs: list[str] = []

    @server.tool
    async def work(ctx: ToolContext) -> None:
        runs.append(ctx.call_id)
        await go_on.wait()

    await soon(stranger.start())
    async with server:
        await stranger.call("work", "first")
        await until(lambda: runs)
        await stranger.call("work", "lasts", expiry=1)
        await stranger.call("work", "lasts", expiry=later)
        await stranger.call("work", "lasts", expiry=1)
        await asyncio.sleep(1.2)  # no event announces that a call has expired
        go_on.set()
        await stranger.answer("lasts")
        assert runs == ["first", "lasts"]
    await soon(stranger.stop())


@pytest.mark.rule("CALL-18")
async def test_meta_reaches_the_tool_and_is_no_part_of_the_content(stranger: Stranger, make_server: MakeServer) -> None:
    server, told = make_server(), list[Any]()

    @server.tool
    async def look(ctx: ToolContext) -> int:
        told.append(ctx.meta)
        return len(told)

    await soon(server.start())
    await stranger.call("look", "1", meta={"context": {"user_id": "u1"}})
    assert (await stranger.answer("1"))["result"] == 1
    await stranger.call("look", "1", meta={"context": {"user_id": "u2"}})
    assert (await stranger.answer("1"))["result"] == 1
    await stranger.call("look", "2")
    assert (await stranger.answer("2"))["result"] == 2
    assert told == [{"context": {"user_id": "u1"}}, {}]


@pytest.mark.rule("CALL-12")
async def test_a_retryable_failure_is_run_again(stranger: Stranger, make_server: MakeServer) -> None:
    server = make_server()
    runs: list[int] = []

    @server.tool
    async def moody() -> str:
        runs.append(1)
        if len(runs) == 1:
            raise ToolError("not now", retryable=True)
        return "now"

    await soon(server.start())
    await stranger.call("moody", "same")
    assert (await stranger.answer("same"))["error"]["retryable"] is True
    for count in (2, 3):
        await stranger.call("moody", "same")
        await until(lambda count=count: len(stranger.answers("same")) == count)
        assert stranger.answers("same")[-1]["result"] == "now"
    assert len(runs) == 2


@pytest.mark.rule("PRES-11", "RESP-14")
async def test_what_still_runs_when_a_server_stops_is_answered(stranger: Stranger, make_server: MakeServer) -> None:
    server = make_server(max_concurrency=1, drain_timeout=0.2)
    started = asyncio.Event()

    @server.tool
    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    await soon(server.start())
    await stranger.call("hang", "runs")
    await soon(started.wait())
    await stranger.call("hang", "waits")
    await soon(server.stop())
    for call_id, maybe_executed in (("runs", True), ("waits", False)):
        error = (await stranger.answer(call_id))["error"]
        assert (error["type"], error["retryable"]) == ("unavailable", True)
        assert error["data"] == {"maybe_executed": maybe_executed}


@pytest.mark.rule("RESP-12", "LIMIT-8")
async def test_a_result_over_the_maximum_packet_size_is_an_error(
    mosquitto: Mosquitto, namespace: str, make_client: MakeClient
) -> None:
    server = ToolServer("big", connection=Connection(mosquitto.url, max_packet_size=4000), namespace=namespace)
    server.add_tool("big", lambda: "x" * 4000)
    stranger = Stranger(mosquitto.url, namespace, "stranger")
    await soon(stranger.start())
    async with server:
        await stranger.call("big", "1")
        assert (await stranger.answer("1"))["error"]["code"] == "RESULT_TOO_LARGE"
    await stranger.stop()


# Answers


@pytest.mark.rule("RESP-5", "RESP-6", "RESP-8", "RESP-14", "RESP-15", "RESP-16")
async def test_our_client_reads_what_servers_of_other_kinds_answer(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    client = await calling(strange_server, make_client)
    handles = [await soon(client.submit("strange")) for _ in range(4)]
    calls = [await strange_server.next_call(count) for count in range(1, 5)]
    blocks = [{"type": "text", "text": "hello"}]
    await strange_server.reply(calls[0], status="fine", result=1, content=blocks)
    await strange_server.reply(calls[0], status="error", error={"type": "tool_error", "message": "too late"})
    await strange_server.reply(calls[1])
    unavailable = {"type": "unavailable", "message": "stopped"}
    await strange_server.reply(calls[2], status="error", error=unavailable)
    await strange_server.reply(calls[3], status="error", error={**unavailable, "data": {"maybe_executed": False}})
    assert await soon(handles[0].result()) == 1
    assert handles[0].response is not None
    assert handles[0].response.content == blocks
    assert await soon(handles[1].result()) is None
    for handle, maybe_executed in ((handles[2], True), (handles[3], False)):
        with pytest.raises(ToolUnavailable) as caught:
            await soon(handle.result())
        assert caught.value.maybe_executed is maybe_executed


# Streams


def chatty(server: ToolServer) -> None:
    @server.tool
    async def chat(ctx: ToolContext) -> str:
        await ctx.stream("text")
        await ctx.stream([1, None])
        await ctx.progress(1, total=2, message="half")
        return "result"


@pytest.mark.rule(
    "STREAM-1", "STREAM-2", "STREAM-3", "STREAM-4", "STREAM-5", "STREAM-6", "STREAM-12", "RESP-9", "TOPIC-5"
)
async def test_a_caller_that_listens_gets_stream_messages_from_accepted_to_done(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("weather", replica="a")
    chatty(server)
    await soon(server.start())
    await stranger.listen("tools/chat/stream/1")
    await stranger.call("chat", "1", stream=True)
    answer = await stranger.answer("1")
    await until(lambda: len(stranger.on("tools/chat/stream/1")) == 5)
    assert stranger.read("tools/chat/stream/1") == [
        {"call_id": "1", "seq": 1, "type": "accepted", "server": "weather:a"},
        {"call_id": "1", "seq": 2, "type": "partial", "content": "text"},
        {"call_id": "1", "seq": 3, "type": "partial", "data": [1, None]},
        {"call_id": "1", "seq": 4, "type": "partial", "data": {"progress": 1, "total": 2, "message": "half"}},
        {"call_id": "1", "seq": 5, "type": "done"},
    ]
    assert (answer["result"], answer["seq"]) == ("result", 5)
    assert {message.qos for message in stranger.on("tools/chat/stream/1")} == {1}


@pytest.mark.rule("STREAM-7", "HOST-6")
async def test_nothing_is_streamed_to_callers_that_do_not_listen(stranger: Stranger, make_server: MakeServer) -> None:
    server = make_server()
    chatty(server)
    server.add_tool("silent", lambda: "result")
    await soon(server.start())
    await stranger.listen("tools/+/stream/#")
    await stranger.call("chat", "no", stream=False)
    await stranger.call("chat", "a/b", stream=True)
    await stranger.call("silent", "silent", stream=True)
    for call_id in ("no", "a/b", "silent"):
        answer = await stranger.answer(call_id)
        assert (answer["result"], answer.get("seq")) == ("result", None)
    await stranger.call("chat", "does not tell")
    await stranger.answer("does not tell")
    await until(lambda: len(stranger.on("tools/chat/stream/does not tell")) == 4)
    assert [message["type"] for message in stranger.read("tools/chat/stream/does not tell")] == ["partial"] * 3 + [
        "done"
    ]
    assert {message.topic for message in stranger.seen} == {
        stranger.inbox,
        f"{stranger.mcp}/tools/chat/stream/does not tell",
    }


@pytest.mark.rule("STREAM-8", "STREAM-11")
async def test_our_client_hears_partials_sent_at_once_and_those_that_come_after_the_answer(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    client = await calling(strange_server, make_client, supports_streaming=True)
    strange_server.partials_at_once = [{"seq": 1, "type": "partial", "content": "at once"}]
    strange_server.answer_at_once = {"result": "done", "seq": 2}
    handle = await soon(client.submit("strange"))
    assert await soon(handle.result()) == "done"
    call = await strange_server.next_call()
    late = {"call_id": call["call_id"], "seq": 2, "type": "partial", "content": "late"}
    await strange_server.tell(f"tools/strange/stream/{call['call_id']}", late)

    async def collect() -> list[Any]:
        return [partial async for partial in handle.partials()]

    assert await soon(collect()) == ["at once", "late"]


# Cancels


@pytest.mark.rule("CANCEL-1", "CANCEL-2", "CANCEL-3", "CANCEL-4", "TOPIC-6")
async def test_a_cancel_stops_one_call_at_whichever_replica_has_it(stranger: Stranger, make_server: MakeServer) -> None:
    running: set[str] = set()
    go_on = asyncio.Event()

    async def work(ctx: ToolContext) -> str:
        running.add(ctx.call_id)
        try:
            await go_on.wait()
        finally:
            running.discard(ctx.call_id)
        return "finished"

    for replica in ("a", "b"):
        server = make_server("pair", replica=replica)
        server.add_tool("work", work)
        await soon(server.start())
    call_ids = {str(n) for n in range(8)}
    for call_id in sorted(call_ids):
        await stranger.call("work", call_id)
    await until(lambda: running == call_ids)
    await stranger.tell("tools/work/cancel", {"call_id": "1", "client": "somebody else"})
    for call_id in ("0", "3", "6", "unknown"):
        await stranger.tell("tools/work/cancel", {"call_id": call_id, "client": "stranger", "reason": "enough"})
    await until(lambda: running == call_ids - {"0", "3", "6"})
    go_on.set()
    for call_id in sorted(call_ids - {"0", "3", "6"}):
        assert (await stranger.answer(call_id))["result"] == "finished"
    for call_id in ("0", "3", "6"):
        error = (await stranger.answer(call_id))["error"]
        assert (error["type"], error["code"], error["retryable"]) == ("tool_error", "CANCELED", True)
        assert (error["message"], error["data"]) == ("the call was canceled: enough", {"maybe_executed": True})
    assert len(stranger.seen) == 8


@pytest.mark.rule("CANCEL-1", "CANCEL-5", "TCARD-7")
@pytest.mark.parametrize("features", [["cancel"], ["replay"], None])
async def test_our_client_cancels_at_servers_that_understand_it(
    features: list[str] | None, strange_server: StrangeServer, make_client: MakeClient
) -> None:
    client = await calling(strange_server, make_client, **({"features": features} if features else {}))
    await strange_server.listen("tools/strange/cancel")
    handle = await soon(client.submit("strange"))
    call = await strange_server.next_call()
    await handle.cancel("enough")
    await soon(client.submit("strange"))
    await strange_server.next_call(2)  # all earlier messages have arrived too
    expected = [{"call_id": call["call_id"], "client": "agent-a", "reason": "enough"}]
    assert strange_server.read("tools/strange/cancel") == (expected if features == ["cancel"] else [])


# Queries


@pytest.mark.rule("QUERY-1", "QUERY-2", "QUERY-3", "QUERY-5", "CALL-11", "TOPIC-7")
async def test_a_query_tells_what_a_replica_has_and_brings_the_responses_again(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("weather", replica="a", max_concurrency=1)
    go_on = asyncio.Event()
    go_on.set()
    running = asyncio.Event()

    @server.tool
    async def work() -> str:
        running.set()
        await go_on.wait()
        return "done"

    query = {"call_ids": ["over", "runs", "waits", "unknown", "theirs"], "client": "stranger"}
    await stranger.tell("servers/weather:a/query", {"query_id": "retained", **query}, retain=True)
    await soon(server.start())
    await stranger.call("work", "over")
    await stranger.answer("over")
    await stranger.tell("tools/work/call", {"call_id": "theirs", "client": "another"})
    running.clear()
    go_on.clear()
    await stranger.call("work", "runs")
    await until(running.is_set)
    await stranger.call("work", "waits")
    await stranger.tell("servers/weather:a/query", {"query_id": "q", **query})
    answer = await stranger.answer("q")
    if "waits" not in answer["result"]["known"]:  # the message is on another topic, so it may arrive later
        await stranger.tell("servers/weather:a/query", {"query_id": "q2", **query})
        answer = await stranger.answer("q2")
    assert answer["status"] == "ok"
    assert answer["result"] == {"known": ["over", "runs", "waits"]}
    order = [json.loads(message.payload)["call_id"] for message in stranger.seen]
    assert order[:3] == ["over", "over", "q"], "the kept response first"
    assert stranger.answers("retained") == []
    go_on.set()
    assert (await stranger.answer("waits"))["result"] == "done"


@pytest.mark.rule("HOST-1", "HOST-2", "HOST-5", "LIMIT-1")
async def test_queries_that_are_none_or_come_from_nobody_are_told_once_and_not_answered(
    stranger: Stranger, make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server("weather", replica="a", max_payload=1000)
    await soon(server.start())
    await stranger.listen("clients/#")
    for _ in range(2):
        await stranger.tell("servers/weather:a/query", {"query_id": "1", "call_ids": "all", "client": "stranger"})
        await stranger.tell(
            "servers/weather:a/query", {"query_id": "2", "call_ids": ["x" * 1000], "client": "stranger"}
        )
        await stranger.tell("servers/weather:a/query", {"query_id": "3", "call_ids": [], "client": "a/b"})
    await stranger.tell("servers/weather:a/query", {"query_id": "4", "call_ids": [], "client": "stranger"})
    assert (await stranger.answer("4"))["result"] == {"known": []}
    assert {json.loads(message.payload)["call_id"] for message in stranger.seen} == {"4"}
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert ["an unreadable query" in told[0], "an impossible client name" in told[1], len(told)] == [True, True, 2]


# Lost calls


@pytest.mark.rule("LOST-1", "LOST-2", "LOST-3", "LOST-4", "QUERY-4")
async def test_servers_that_answer_queries_are_asked_before_a_call_is_sent_again(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    client = await calling(strange_server, make_client)
    deaf, knows = "deaf", {"features": ["query"]}
    await strange_server.tell(f"servers/{deaf}/card", {"server": deaf, "tools": ["strange"]}, retain=True)
    await strange_server.show(**knows)
    await online(client, "strange", 2)
    once = await soon(client.submit("strange"))
    again = await soon(client.submit("strange", retry=True))
    held = await soon(client.submit("strange"))
    await strange_server.next_call(3)
    strange_server.has = {held.call_id}
    offline = {"server": deaf, "tools": ["strange"], "status": "offline"}
    await strange_server.tell(f"servers/{deaf}/card", offline, retain=True)
    with pytest.raises(ToolUnavailable) as caught:
        await soon(once.result())
    assert caught.value.maybe_executed
    assert (await strange_server.next_call(4))["call_id"] == again.call_id
    [query] = strange_server.queries
    assert set(query) == {"query_id", "call_ids", "client"}
    assert sorted(query["call_ids"]) == sorted([once.call_id, again.call_id, held.call_id])
    await strange_server.reply({"call_id": again.call_id, "client": "agent-a"}, result="again")
    await strange_server.reply({"call_id": held.call_id, "client": "agent-a"}, result="held")
    assert await soon(again.result()) == "again"
    assert await soon(held.result()) == "held"
    assert len(strange_server.calls) == 4


async def test_a_call_waits_for_a_takeover_no_longer_than_its_timeout(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    """A server on standby may never take over."""
    await strange_server.show_tool()
    await strange_server.show(tools=[], claims=["strange"])
    client = await make_client("agent-a")

    async def sees_it() -> bool:
        return bool(await client.list_servers())

    await becomes(sees_it)
    for wait_online in (False, True):
        with pytest.raises(ToolUnavailable, match="offline|no server came online in time"):
            await soon(client.call("strange", timeout=0.05, wait_online=wait_online))


@pytest.mark.rule("LOST-7", "QUERY-4")
async def test_the_servers_that_answer_queries_are_asked_for_a_call_of_an_earlier_process(
    strange_server: StrangeServer,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = await calling(strange_server, make_client)
    caplog.clear()
    sent = await soon(client.submit("strange", call_id="1", resume=True))
    assert (await strange_server.next_call(1))["call_id"] == "1"
    assert strange_server.queries == []
    await strange_server.reply({"call_id": "1", "client": "agent-a"}, result="sent")
    assert await soon(sent.result()) == "sent"
    await strange_server.show(features=["query"])
    strange_server.has = {"2"}
    await becomes(lambda: _answers_queries(client))
    held = await soon(client.submit("strange", call_id="2", resume=True))
    await until(lambda: len(strange_server.queries) == 1)
    await strange_server.reply({"call_id": "2", "client": "agent-a"}, result="held")
    assert await soon(held.result()) == "held"
    monkeypatch.setattr(queries, "_TIMEOUT", 0.1)
    monkeypatch.setattr(recovery, "_ASKED_AGAIN_AFTER", 0.1)
    deaf = {"server": "deaf", "tools": ["strange"], "features": ["query"]}
    await strange_server.tell("servers/deaf/card", deaf)
    await online(client, "strange", 2)
    doubtful = await soon(client.submit("strange", call_id="3", resume=True))
    await until(lambda: len(strange_server.queries) == 7)  # it is asked again and again
    said = [each.getMessage() for each in caplog.records if "call 3 of an earlier process" in each.getMessage()]
    assert 1 <= len(said) <= 3  # after the first, the second and the fourth time
    assert "deaf" in said[0]
    assert not doubtful.done
    await strange_server.tell("servers/deaf/card", {**deaf, "status": "offline"})
    with pytest.raises(ToolUnavailable, match="may have run|does not say whether") as caught:
        await soon(doubtful.result(), 20)
    assert caught.value.maybe_executed
    assert len(strange_server.calls) == 1


async def _answers_queries(client: ToolClient) -> bool:
    return any("query" in (card.features or ()) for card in await client.list_servers())


@pytest.mark.rule("LOST-5")
async def test_a_call_that_nobody_takes_has_not_run(mosquitto: Mosquitto, namespace: str) -> None:
    stranger = Stranger(mosquitto.url, namespace, "stranger")
    await soon(stranger.start())
    await stranger.tell("tools/gone/card", {"tool": "gone", "server": "s"}, retain=True)
    await stranger.tell("servers/s/card", {"server": "s", "tools": ["gone"]}, retain=True)
    async with ToolClient(broker=mosquitto.url, namespace=namespace) as client:
        with pytest.raises(ToolUnavailable, match="no server is subscribed to the tool's calls") as caught:
            await soon(client.call("gone"))
        assert not caught.value.maybe_executed
    await stranger.stop()
