"""The fields that a faithful bridge to MCP needs, as an independent peer sends and receives them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import ALL_BROKERS
from mqtt_agent import ToolContext, ToolError, ToolResult
from mqtt_agent.errors import InvalidArguments, ToolFailed
from support import soon, until

from ..tools.conftest import MakeClient, MakeServer
from .stranger import Stranger, StrangeServer
from .test_calls import calling

RUN_ON = ALL_BROKERS
BLOCKS = [{"type": "text", "text": "no such file"}]


@pytest.mark.rule("TCARD-8", "TCARD-9")
async def test_a_card_shows_the_name_at_the_mcp_server_and_a_schema_that_the_server_does_not_check(
    stranger: Stranger, make_server: MakeServer
) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "https://elsewhere.example/x.json"}}}
    server = make_server()
    options: dict[str, Any] = {"input_schema": schema, "validate": False, "whole_arguments": True}
    server.add_tool("files.read", lambda given: given, mcp_name="read", task_support="optional", **options)
    await stranger.listen("tools/files.read/card")
    await soon(server.start())
    await until(lambda: stranger.read("tools/files.read/card"))
    card = stranger.read("tools/files.read/card")[-1]
    assert (card["mcp_name"], card["task_support"], card["input_schema"]) == ("read", "optional", schema)


@pytest.mark.rule("RESP-16", "RESP-17", "RESP-18", "CALL-18")
async def test_content_goes_with_errors_and_a_result_of_text_alone_says_so(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server()

    @server.tool
    async def fails() -> None:
        raise ToolError("no such file", content=BLOCKS, data={"path": "/x"})

    @server.tool
    async def refuses(code: str) -> None:
        kind = "invalid_arguments" if code == "-32602" else "tool_error"
        raise ToolError("no", code=code, data=[1], type=kind)

    @server.tool
    async def tells() -> ToolResult:
        return ToolResult("no such file", BLOCKS, structured=False, meta={"a": 1})

    await soon(server.start())
    await stranger.call("fails", "1")
    failed = await stranger.answer("1")
    assert (failed["status"], failed["content"], failed["error"]["data"]) == ("error", BLOCKS, {"path": "/x"})
    await stranger.call("tells", "2")
    told = await stranger.answer("2")
    assert (told["result"], told["content"], told["structured"]) == ("no such file", BLOCKS, False)
    assert told["meta"] == {"a": 1}
    for code, kind in (("-32602", "invalid_arguments"), ("-32000", "tool_error")):
        await stranger.call("refuses", code, arguments={"code": code})
        error = (await stranger.answer(code))["error"]
        assert (error["type"], error["code"], error["data"]) == (kind, code, [1])


@pytest.mark.rule("RESP-16", "RESP-18")
async def test_our_client_reads_the_content_and_the_code_of_an_error(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    client = await calling(strange_server, make_client)
    strange_server.answer_at_once = {
        "status": "error",
        "error": {"type": "tool_error", "message": "no", "code": "-32000", "data": {"path": "/x"}},
        "content": BLOCKS,
    }
    with pytest.raises(ToolFailed) as caught:
        await soon(client.call("strange"))
    assert (caught.value.code, caught.value.data, caught.value.content) == ("-32000", {"path": "/x"}, BLOCKS)
    strange_server.answer_at_once["error"] = {"type": "invalid_arguments", "message": "no", "code": "-32602"}
    with pytest.raises(InvalidArguments):
        await soon(client.call("strange"))


@pytest.mark.rule("RESP-19")
async def test_a_result_that_does_not_fit_its_output_schema_is_an_error_and_a_wrong_schema_is_refused(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server()
    number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    async def counts(n: Any = 1) -> dict[str, Any]:
        return {"n": n}

    server.add_tool("counts", counts, output_schema=number)
    server.add_tool("unchecked", lambda given: given, input_schema={}, output_schema=number, validate=False)
    for wrong in ({"type": "nonsense"}, {"$ref": "https://elsewhere.example/x.json"}):
        with pytest.raises(ValueError, match="the output schema (is not valid|refers to https)"):
            server.add_tool("wrong", counts, output_schema=wrong)
    await soon(server.start())
    await stranger.call("counts", "1", arguments={"n": 2})
    assert (await stranger.answer("1"))["result"] == {"n": 2}
    await stranger.call("counts", "2", arguments={"n": "two"})
    error = (await stranger.answer("2"))["error"]
    assert (error["type"], error["code"]) == ("tool_error", "RESULT_DOES_NOT_FIT")
    assert "the result's 'n' must be a whole number, not the text \"two\"" in error["message"]
    await stranger.call("unchecked", "3", arguments={"a": 1})
    assert (await stranger.answer("3"))["result"] == {"a": 1}


@pytest.mark.rule("STREAM-15")
async def test_log_messages_go_to_a_caller_that_asks_for_their_level_and_to_no_other(
    stranger: Stranger, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.tool
    async def works(ctx: ToolContext) -> str:
        await ctx.log("debug", "small")
        await ctx.log("error", {"big": 1}, logger="sky")
        return "done"

    await soon(server.start())
    for call_id, level in (("none", None), ("some", "warning")):
        await stranger.listen(f"tools/works/stream/{call_id}")
        await stranger.call("works", call_id, stream=True, log_level=level)
        await stranger.answer(call_id)
    await until(lambda: any(m["type"] == "done" for m in stranger.read("tools/works/stream/some")))
    assert [m["type"] for m in stranger.read("tools/works/stream/none") if m["type"] == "log"] == []
    [log] = [m for m in stranger.read("tools/works/stream/some") if m["type"] == "log"]
    assert (log["level"], log["logger"], log["data"]) == ("error", "sky", {"big": 1})

    client, logs = await make_client(), []
    assert await soon(client.call("works", on_log=logs.append, log_level="debug", wait_online=True)) == "done"
    assert [(log.level, log.logger, log.data) for log in logs] == [
        ("debug", None, "small"),
        ("error", "sky", {"big": 1}),
    ]


def test_a_level_that_does_not_exist_is_refused() -> None:
    async def run() -> None:
        from mqtt_agent.tools.serving.context import CallStream

        context = ToolContext(call_id="1", tool="t", client="c", server="s", stream=CallStream("1", None))
        with pytest.raises(ValueError, match="one of debug, info"):
            await context.log("loud", "x")

    asyncio.run(run())
