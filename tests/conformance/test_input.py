"""Input in the middle of a call, as an independent peer asks and answers, and between our endpoints."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from brokers import ALL_BROKERS, Ejabberd, Mosquitto
from mqtt_agent import ToolClient, ToolContext, ToolServer
from mqtt_agent.errors import CallCanceled, InputNotGiven, ToolFailed
from mqtt_agent.tools import CallQuestion, Elicited, SyncToolContext
from pydantic import BaseModel
from support import soon, until

from ..tools.conftest import MakeClient, MakeServer
from .stranger import Stranger, StrangeServer
from .test_bound import bound_answer, call_bound
from .test_calls import calling

RUN_ON = ALL_BROKERS
LONG_ON = [Ejabberd]
CITY = {"message": "Which city?", "requestedSchema": {"type": "object", "properties": {"city": {"type": "string"}}}}
ACCEPTED = {"action": "accept", "content": {"city": "Oslo"}}


def asks(server: ToolServer) -> None:
    """Offer the tool ``asks``, which returns the answer of its caller."""

    async def ask(ctx: ToolContext) -> Any:
        return await ctx.request_input("elicitation/create", CITY)

    server.add_tool("asks", ask)


def requests(stranger: Stranger, topic: str) -> list[dict[str, Any]]:
    """The requests for input on a stream."""
    return [message for message in stranger.read(topic) if message["type"] == "input"]


@pytest.mark.rule("INPUT-1", "INPUT-2", "INPUT-3", "INPUT-5", "INPUT-6", "TOPIC-9")
async def test_a_caller_that_accepts_input_is_asked_and_its_first_answer_counts(
    stranger: Stranger, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, filters = make_server("weather", replica="a"), list[str]()
    subscribe = server.connection.subscribe

    async def noting(topic_filter: str, *args: Any, **options: Any) -> None:
        filters.append(topic_filter)
        await subscribe(topic_filter, *args, **options)

    monkeypatch.setattr(server.connection, "subscribe", noting)
    asks(server)
    await soon(server.start())
    assert not any("/input" in each for each in filters), "nothing has asked yet"
    await stranger.listen("tools/asks/stream/1")
    await stranger.call("asks", "1", stream=True, accepts=["input"])
    await until(lambda: requests(stranger, "tools/asks/stream/1"))
    [asked] = requests(stranger, "tools/asks/stream/1")
    assert [each for each in filters if "/input" in each] == [f"{stranger.mcp}/servers/weather:a/input"]
    assert asked["number"] == 1
    assert (asked["server"], asked["method"], asked["params"]) == ("weather:a", "elicitation/create", CITY)
    answer = {"call_id": "1", "input_id": asked["input_id"], "client": "stranger", "result": ACCEPTED}
    for wrong in ({"client": "other"}, {"call_id": "2"}, {"input_id": "x"}):
        await stranger.tell("servers/weather:a/input", {**answer, **wrong})
    await stranger.tell("servers/weather:a/input", answer)
    await stranger.tell("servers/weather:a/input", {**answer, "result": {"action": "decline"}})
    assert (await stranger.answer("1"))["result"] == ACCEPTED


@pytest.mark.rule("INPUT-1")
async def test_a_caller_that_accepts_no_input_and_a_caller_that_answers_with_an_error_fail_the_tool(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("weather", replica="a")
    asks(server)
    await soon(server.start())
    await stranger.listen("tools/asks/stream/+")
    await stranger.call("asks", "1", stream=True)
    error = (await stranger.answer("1"))["error"]
    assert (error["code"], requests(stranger, "tools/asks/stream/1")) == ("INPUT_NOT_ACCEPTED", [])
    await stranger.call("asks", "2", stream=True, accepts=["input", "more"])
    await until(lambda: requests(stranger, "tools/asks/stream/2"))
    [asked] = requests(stranger, "tools/asks/stream/2")
    fault = {"type": "tool_error", "message": "nobody is here", "code": "AWAY"}
    answer = {"call_id": "2", "input_id": asked["input_id"], "client": "stranger", "error": fault}
    await stranger.tell("servers/weather:a/input", answer)
    error = (await stranger.answer("2"))["error"]
    assert (error["code"], error["message"]) == ("AWAY", "nobody is here")


@pytest.mark.rule("INPUT-4", "BOUND-12")
async def test_on_bound_topics_only_the_answer_of_the_caller_itself_counts(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("weather", replica="a")
    asks(server)
    await soon(server.start())
    await stranger.listen("clients/stranger/responses/+")
    await stranger.listen("clients/stranger/stream/+/1")
    await call_bound(stranger, "asks", "1", stream=True, accepts=["input"])
    topic = "clients/stranger/stream/weather:a/1"
    await until(lambda: requests(stranger, topic))
    answer = {"call_id": "1", "input_id": requests(stranger, topic)[0]["input_id"], "client": "stranger"}
    forged = {**answer, "result": {"action": "decline"}}
    await stranger.tell("servers/weather:a/input/evil", forged)
    await stranger.tell("servers/weather:a/input/evil", {**forged, "client": "evil"})
    await stranger.tell("servers/weather:a/input", forged)
    await stranger.tell("servers/weather:a/input/stranger", {**answer, "result": ACCEPTED})
    assert (await bound_answer(stranger, "weather:a", "1"))["result"] == ACCEPTED


@pytest.mark.rule("INPUT-7")
async def test_a_repeated_call_is_asked_again_and_a_repeated_request_is_answered_again(
    stranger: Stranger, strange_server: StrangeServer, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("weather", replica="a")
    asks(server)
    await soon(server.start())
    await stranger.listen("tools/asks/stream/1")
    for number in (1, 2):
        await stranger.call("asks", "1", stream=True, accepts=["input"])
        await until(lambda: len(requests(stranger, "tools/asks/stream/1")) == number)  # noqa: B023
    first, second = requests(stranger, "tools/asks/stream/1")
    assert first["input_id"] == second["input_id"]
    answer = {"call_id": "1", "input_id": first["input_id"], "client": "stranger", "result": ACCEPTED}
    await stranger.tell("servers/weather:a/input", answer)
    assert (await stranger.answer("1"))["result"] == ACCEPTED

    await strange_server.listen("servers/odd/input")
    client = await calling(strange_server, make_client, supports_streaming=True)
    asked = list[CallQuestion]()

    async def on_question(question: CallQuestion) -> dict[str, str]:
        asked.append(question)
        return {"city": "Oslo"}

    handle = await soon(client.submit("strange", on_question=on_question))
    call = await strange_server.next_call()
    assert (call["accepts"], call["stream"]) == (["input"], True)
    request = {"call_id": call["call_id"], "seq": 1, "type": "input", "server": "odd", "input_id": "q"}
    request |= {"method": "elicitation/create", "params": CITY}
    for seq in (1, 2):
        await strange_server.tell(f"tools/strange/stream/{call['call_id']}", {**request, "seq": seq})
        await until(lambda: len(strange_server.read("servers/odd/input")) == seq)  # noqa: B023
    expected = {"call_id": call["call_id"], "input_id": "q", "client": client.agent_id, "result": ACCEPTED}
    assert strange_server.read("servers/odd/input") == [expected, expected]
    assert [(each.prompt, each.schema) for each in asked] == [("Which city?", CITY["requestedSchema"])]
    await strange_server.reply(call, status="ok", result="done")
    assert await soon(handle.result()) == "done"


class Seat(BaseModel):
    """A pydantic model as schema."""

    row: int
    window: bool = False


def travel(server: ToolServer) -> None:
    """Offer tools that ask in each way that a handler has."""

    async def asks_a_text(ctx: ToolContext) -> str:
        return f"to {await ctx.ask('Where to?')}"

    async def asks_a_number(ctx: ToolContext) -> int:
        return await ctx.ask("How many?", {"type": "integer"}) + 1

    async def asks_a_model(ctx: ToolContext) -> int:
        seat = await ctx.ask("Which seat?", Seat)
        assert isinstance(seat, Seat)
        return seat.row

    async def elicits(ctx: ToolContext) -> str:
        given = await ctx.elicit("Sure?", {"type": "object", "properties": {}})
        return f"{given.action} {given.content}"

    def asks_in_a_thread(ctx: SyncToolContext) -> str:
        return f"{ctx.answers}, {ctx.ask('Where to?')}"

    for tool in (asks_a_text, asks_a_number, asks_a_model, elicits, asks_in_a_thread):
        server.add_tool(tool.__name__, tool)


@pytest.mark.parametrize("bound", ["prefer", "off"])
@pytest.mark.rule("INPUT-8")
async def test_a_handler_gets_the_answer_of_on_question(
    make_server: MakeServer, make_client: MakeClient, bound: str
) -> None:
    server = make_server(bound=bound)
    travel(server)
    await soon(server.start())
    client: ToolClient = await make_client()
    cases: list[tuple[str, Any, Any]] = [
        ("asks_a_text", "Oslo", "to Oslo"),
        ("asks_a_number", 2, 3),
        ("asks_a_model", {"row": 7}, 7),
        ("elicits", {}, "accept {}"),
        ("elicits", None, "decline None"),
        ("elicits", Elicited("cancel"), "cancel None"),
        ("asks_in_a_thread", "Rome", "True, Rome"),
    ]
    for tool, answer, result in cases:
        on_question: Callable[[CallQuestion], Any] = lambda question, answer=answer: answer  # noqa: E731
        assert await soon(client.call(tool, on_question=on_question, wait_online=True)) == result


async def test_a_person_who_declines_and_an_on_question_that_fails_are_told_to_the_handler(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    travel(server)
    await soon(server.start())
    client = await make_client()

    def fails(question: CallQuestion) -> None:
        raise RuntimeError("no terminal")

    never: Callable[[CallQuestion], None] = lambda question: None  # noqa: E731
    for on_question, said in ((never, "(decline): Where to?"), (fails, "(cancel): Where to?")):
        with pytest.raises(ToolFailed) as caught:
            await soon(client.call("asks_a_text", on_question=on_question, wait_online=True))
        assert (caught.value.code, said in str(caught.value)) == ("INPUT_DECLINED", True)
    with pytest.raises(ToolFailed, match="call it with on_question=") as caught:
        await soon(client.call("asks_in_a_thread"))
    assert caught.value.code == "INPUT_NOT_ACCEPTED"


async def test_a_question_ends_with_its_time_and_with_its_call(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server, ended, asked = make_server(), threading.Event(), asyncio.Event()

    async def waits_shortly(ctx: ToolContext) -> str:
        try:
            return await ctx.ask("Anybody?", timeout=0.5)
        except InputNotGiven as error:
            return str(error.code)

    def waits_in_a_thread(ctx: SyncToolContext) -> None:
        try:
            ctx.ask("Anybody?")
        finally:
            ended.set()

    server.add_tool("waits_shortly", waits_shortly)
    server.add_tool("waits_in_a_thread", waits_in_a_thread)
    await soon(server.start())
    client, answering = await make_client(), list[bool]()

    async def never(question: CallQuestion) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            answering.append(False)

    assert await soon(client.call("waits_shortly", on_question=never, wait_online=True)) == "INPUT_TIMEOUT"
    await until(lambda: answering == [False])
    asked.clear()
    handle = await soon(client.submit("waits_in_a_thread", on_question=never))
    await soon(asked.wait())
    await handle.cancel()
    with pytest.raises(CallCanceled):
        await handle.result()
    await until(ended.is_set)
    await until(lambda: answering == [False, False])


async def test_a_question_ends_when_its_caller_does_not_wait_for_the_result_any_more(
    mosquitto: Mosquitto, namespace: str
) -> None:
    """At the embedded broker a call has no expiry, because an expired message would stop its share group."""
    ended = asyncio.Event()

    async def ask(ctx: ToolContext) -> Any:
        try:
            return await ctx.request_input("elicitation/create", CITY)
        except InputNotGiven as error:
            assert error.code == "INPUT_TIMEOUT"
            ended.set()
            raise

    stranger = Stranger(mosquitto.url, namespace, "stranger")
    await stranger.start()
    async with ToolServer("weather", broker=mosquitto.url, namespace=namespace) as server:
        await server.add_tool("asks", ask)
        await stranger.call("asks", "1", expiry=3, stream=True, accepts=["input"])
        await soon(ended.wait(), 20)
        await until(lambda: server.active_calls == 0)
    await stranger.stop()
