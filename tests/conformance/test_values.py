"""What JSON cannot carry: each value is mended or refused where it was made, and its owner is told."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import Agent, TaskContext, ToolClient, ToolContext, ToolError, ToolResult, ToolServer
from mqtt_agent.errors import InvalidIdentifier, PayloadTooLarge, TaskFailed, ToolFailed, WireError
from mqtt_agent.wire import AgentCard, ToolCard
from pydantic import BaseModel
from support import soon, until

from ..agents.conftest import MakeAgent
from ..tools.conftest import MakeClient, MakeServer

RUN_ON = [Mosquitto]


class Row(BaseModel):
    price: float
    name: str = "row"


@dataclass
class Line:
    price: float


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def selfish() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


IMPOSSIBLE: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: {"rows": [1, {"price": math.nan}]}, r"rows\[1\]\.price is NaN; JSON has no such number"),
    "infinity": (lambda: [1, -math.inf], r"\[1\] is -Infinity; JSON has no such number"),
    "NaN in a model": (lambda: {"rows": [Row(price=math.nan)]}, r"rows\[0\]\.price is NaN"),
    "NaN in a dataclass": (lambda: Line(math.inf), r"\.price is Infinity"),
    "an odd key": (lambda: {"a b": math.nan}, r"\['a b'\] is NaN"),
    "NaN in a generator": (lambda: (number for number in [1.0, math.nan]), r"\[1\] is NaN"),
    "depth": (lambda: nested(260), "is nested deeper than"),
    "itself": (selfish, "contains itself"),
    "no JSON form": (lambda: {"a": [object()]}, r"a\[0\] has the type object, which has no JSON form"),
}
BAD = {"text": "before \ud800 after", "key \udc00": ["\udfff"], "pair": "\ud83d\ude00"}
MENDED = {"text": "before \ufffd after", "key \ufffd": ["\ufffd"], "pair": "😀"}


# Tools


@pytest.mark.rule("JSON-4", "RESP-12")
@pytest.mark.parametrize("kind", IMPOSSIBLE)
async def test_a_result_that_json_cannot_carry_is_the_tools_fault_and_names_the_place(
    kind: str, make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    make, message = IMPOSSIBLE[kind]
    ran: list[str] = []

    def bad() -> Any:
        ran.append("ran")
        return make()

    server = make_server()
    tool = f"bad {kind}"
    server.add_tool(tool, bad)
    server.add_tool("good", lambda: "fine")
    await soon(server.start())
    client = await make_client()
    with pytest.raises(ToolFailed, match=message) as caught:
        await soon(client.call(tool))
    assert caught.value.code == "RESULT_NOT_JSON"
    assert "the tool ran" in str(caught.value)
    assert "result" in str(caught.value)
    assert ran == ["ran"]
    assert any(tool in each.getMessage() for each in caplog.records if each.levelno == logging.WARNING)
    assert await soon(client.call("good")) == "fine"


@pytest.mark.rule("JSON-6")
async def test_a_tool_that_ran_does_not_fail_for_one_bad_character(
    make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server()

    @server.tool
    async def scrape(ctx: ToolContext) -> Any:
        await ctx.stream("part \ud800")
        await ctx.stream(BAD)
        await ctx.progress(1, message="at \ud800")
        return ToolResult(BAD, [{"type": "text", "text": "\ud800"}])

    await soon(server.start())
    client = await make_client()
    partials: list[Any] = []
    assert await soon(client.call("scrape", on_partial=partials.append)) == MENDED
    assert partials == ["part \ufffd", MENDED, {"progress": 1, "message": "at \ufffd"}]
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert any("scrape" in each and "result.text" in each and "U+FFFD" in each for each in warnings)


@pytest.mark.rule("JSON-6")
async def test_a_bad_character_in_an_argument_is_mended_and_told(
    make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server()
    server.add_tool("echo", lambda arguments: arguments["value"], input_schema={"type": "object"})
    await soon(server.start())
    client = await make_client()
    assert await soon(client.call("echo", {"value": BAD})) == MENDED
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert any("echo" in each and "arguments.value.text" in each for each in warnings)


@pytest.mark.rule("JSON-4")
@pytest.mark.parametrize("kind", IMPOSSIBLE)
async def test_arguments_that_json_cannot_carry_are_refused_before_anything_is_sent(
    kind: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    make, message = IMPOSSIBLE[kind]
    calls: list[Any] = []
    server = make_server()
    server.add_tool("take", lambda arguments: calls.append(arguments), input_schema={"type": "object"})
    await soon(server.start())
    client = await make_client()
    with pytest.raises(WireError, match=message) as caught:
        await soon(client.call("take", {"value": make()}))
    assert str(caught.value).startswith("arguments.value")
    await soon(client.call("take", {"value": 1}))
    assert calls == [{"value": 1}]


@pytest.mark.rule("JSON-4")
@pytest.mark.parametrize("kind", IMPOSSIBLE)
async def test_a_partial_that_json_cannot_carry_raises_in_the_handler_and_costs_no_time(
    kind: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    make, message = IMPOSSIBLE[kind]
    errors: list[WireError] = []
    server = make_server()

    @server.tool
    async def bad(ctx: ToolContext) -> str:
        for report in (lambda: ctx.stream(make()), lambda: ctx.progress(math.nan)):
            try:
                await report()
            except WireError as error:
                errors.append(error)
        await ctx.stream("good")
        return "done"

    await soon(server.start())
    client = await make_client()
    handle = await soon(client.submit("bad"))
    assert await soon(handle.result()) == "done"
    assert [each async for each in handle.partials()] == ["good"]
    assert re.search(message, str(errors[0]))
    assert "progress is NaN" in str(errors[1])


async def test_an_error_can_have_any_text_code_and_data(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.tool
    def fail() -> None:
        raise ToolError("text \ud800", code="code \ud800", data={"number": math.nan, "text": "\ud800"})

    await soon(server.start())
    client = await make_client()
    with pytest.raises(ToolFailed, match="text \ufffd") as caught:
        await soon(client.call("fail"))
    assert caught.value.code == "code \ufffd"
    assert "nan" in caught.value.data


@pytest.mark.rule("LIMIT-8")
async def test_a_result_that_is_too_large_says_that_the_tool_ran_and_whose_limit_it_is(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_tool("large", lambda: "x" * 17_000_000)
    await soon(server.start())
    client = await make_client()
    with pytest.raises(ToolFailed, match=r"the tool ran.*17,000,\d.*Maximum Packet Size [\d,]+: ") as caught:
        await soon(client.call("large"), 30)
    assert caught.value.code == "RESULT_TOO_LARGE"


async def test_arguments_that_are_too_large_raise_at_the_caller(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_tool("echo", lambda arguments: 1, input_schema={"type": "object"})
    await soon(server.start())
    client = await make_client()
    with pytest.raises(PayloadTooLarge, match="Maximum Packet Size"):
        await soon(client.call("echo", {"value": "x" * 17_000_000}), 30)
    assert await soon(client.call("echo", {"value": "x"})) == 1


async def test_a_call_id_that_no_packet_can_hold_is_refused_at_once(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_tool("good", lambda: "fine")
    await soon(server.start())
    client = await make_client()
    for call_id in ("x" * 70_000, "\ud800"):
        with pytest.raises(InvalidIdentifier, match="call id"):
            await soon(client.call("good", call_id=call_id))
    with pytest.raises(ValueError, match="timeout"):
        await soon(client.call("good", timeout=math.nan))
    for timeout in (5e9, math.inf, 1e300):
        assert await soon(client.call("good", timeout=timeout)) == "fine"


@pytest.mark.rule("JSON-4", "LIMIT-3")
def test_a_card_that_cannot_be_published_is_refused_where_it_is_made() -> None:
    server = ToolServer("server")
    with pytest.raises(WireError, match=r"meta\.price is NaN"):
        server.add_tool("bad", lambda: 1, meta={"price": math.nan})
    with pytest.raises(WireError, match="tool large.*262,144"):
        server.add_tool("large", lambda: 1, description="x" * 300_000)
    bad = {"type": "object", "properties": {"number": {"default": math.nan}}}
    with pytest.raises(WireError, match=r"input_schema\..*default is NaN"):
        server.add_tool("bad", lambda number: number, input_schema=bad)
    server.add_tool("good", lambda: 1, description="bad \ud800")
    cards: list[ToolCard] = server.tools
    assert [(card.tool, card.description) for card in cards] == [("good", "bad \ufffd")]
    with pytest.raises(WireError, match=r"meta\.price is NaN"):
        Agent("a", store="unused.db", meta={"price": math.nan})
    card: AgentCard = Agent("a", store="unused.db", description="bad \ud800").card
    assert card.description == "bad \ufffd"


async def test_a_server_can_have_more_tools_than_a_last_will_can_name(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    for number in range(700):
        server.add_tool(f"{'long' * 25}-{number}", lambda: "fine")
    await soon(server.start(), 30)
    client = await make_client()
    assert await soon(client.call(f"{'long' * 25}-699")) == "fine"


# Agents


@pytest.mark.rule("JSON-4", "RESULT-8")
@pytest.mark.parametrize("kind", IMPOSSIBLE)
async def test_values_of_tasks_that_json_cannot_carry_are_refused_where_they_are_made(
    kind: str, make_agent: MakeAgent
) -> None:
    make, message = IMPOSSIBLE[kind]
    refused: list[str] = []
    worker, planner = make_agent("worker"), make_agent("planner")

    @worker.on_task
    async def handle(task: TaskContext) -> Any:
        for act in (task.stream, task.save, lambda value: task.artifact("a", value)):
            with pytest.raises(WireError, match=message):
                await act(make())
            refused.append("refused")
        with pytest.raises(WireError, match="progress is NaN"):
            await task.progress(math.nan)
        await task.stream("good")
        return make()

    await soon(worker.start())
    await soon(planner.start())
    for field in ("data", "metadata", "messages"):
        value: Any = [{"role": "user", "content": make()}] if field == "messages" else {"a": make()}
        with pytest.raises(WireError, match=message) as caught:
            await soon(planner.delegate("worker", **{field: value}))
        assert str(caught.value).startswith(field)
    task = await soon(planner.delegate("worker", "go"))
    with pytest.raises(TaskFailed, match=message) as failed:
        await soon(task.result())
    assert failed.value.code == "RESULT_NOT_JSON"
    assert "the handler ran" in str(failed.value)
    assert refused == ["refused"] * 3


@pytest.mark.rule("JSON-6")
async def test_bad_characters_anywhere_in_a_task_are_mended(
    make_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    worker, planner = make_agent("worker"), make_agent("planner")

    @worker.on_task
    async def handle(task: TaskContext) -> Any:
        await task.progress(1, message="\ud800")
        await task.stream("\ud800")
        await task.stream(BAD)
        await task.artifact("name \ud800", BAD)
        await task.save(BAD)
        answer = await task.ask("question \ud800", {"title": "\ud800"})
        return {"task": [task.prompt, task.title, task.data, task.saved], "answer": answer, "bad": BAD}

    await soon(worker.start())
    await soon(planner.start())
    task = await soon(planner.delegate("worker", "do \ud800", title="title \ud800", data=BAD, metadata={"a": BAD}))
    await soon(task.save(BAD))
    assert task.saved == MENDED
    async for event in task.events():
        if event.status == "input-required":
            assert event.content == "question \ufffd"
            await soon(task.send(BAD))
    result = await soon(task.result())
    assert result == {"task": ["do \ufffd", "title \ufffd", MENDED, MENDED], "answer": MENDED, "bad": MENDED}
    assert task.response is not None
    assert task.response.artifacts == [{"name": "name \ufffd", "data": MENDED}]
    assert any("data.text" in each.getMessage() for each in caplog.records)


async def test_a_task_can_fail_and_be_canceled_with_any_text(make_agent: MakeAgent) -> None:
    worker, planner = make_agent("worker"), make_agent("planner")

    @worker.on_task
    async def handle(task: TaskContext) -> Any:
        if task.prompt == "fail":
            raise TaskFailed("text \ud800", code="\ud800", data=[math.nan])
        await task.ask("wait")

    await soon(worker.start())
    await soon(planner.start())
    with pytest.raises(TaskFailed, match="text \ufffd") as failed:
        await soon(planner.request("worker", "fail"))
    assert (failed.value.code, failed.value.data) == ("\ufffd", "[nan]")
    task = await soon(planner.delegate("worker", "wait"))
    await soon(task.cancel("because \ud800"))
    with pytest.raises(Exception, match="because \ufffd"):
        await soon(task.result())


@pytest.mark.parametrize("timeout", [5e9, math.inf, 1e300])
async def test_long_times_for_tasks_are_no_limit(timeout: float, make_agent: MakeAgent) -> None:
    worker, planner = make_agent("worker", retention=timeout), make_agent("planner", retention=timeout)
    worker.on_task(lambda task: "fine")
    await soon(worker.start())
    await soon(planner.start())
    expires_at = "9999-12-31T00:00:00Z"
    assert await soon(planner.request("worker", "go", timeout=timeout, expires_at=expires_at)) == "fine"
    task = await soon(planner.delegate("worker", "go"))
    with pytest.raises(ValueError, match="timeout"):
        await soon(task.result(math.nan))
    with pytest.raises(ValueError, match="retention"):
        Agent("x", store="unused.db", retention=math.nan)


async def test_one_card_that_the_broker_does_not_take_does_not_hide_the_other_tools(
    make_mosquitto: Callable[..., Mosquitto], namespace: str
) -> None:
    broker = make_mosquitto(["max_packet_size 4000"])
    server = ToolServer("server", broker=broker.url, namespace=namespace)
    server.add_tool("good", lambda: "fine")
    async with server, ToolClient("client", broker=broker.url, namespace=namespace) as client:
        server.add_tool("large", lambda: 1, description="x" * 5000)
        await until(lambda: "large" in server._offered)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(PayloadTooLarge, match="4,000: the limit of the broker"):
            await soon(server._presence.announce())  # pyright: ignore[reportPrivateUsage]
        assert await soon(client.call("good")) == "fine"
        assert [card.tool for card in await soon(client.list_tools())] == ["good"]
