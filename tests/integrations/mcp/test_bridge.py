"""The tools of an MCP server over MQTT: their calls, their changes, and what happens when the server breaks."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp.client import session as client_session
from mcp_mqtt_agent import Bridge
from mcp_mqtt_agent.session import Session
from mqtt_agent import ToolClient
from mqtt_agent.errors import CallCanceled, InvalidArguments, ToolFailed, ToolUnavailable
from support import becomes, soon, until

from .conftest import ANYTHING, SDK_SERVER, MakeBridge, OddServer, shows

SDK_TOOLS = [f"sdk.{name}" for name in ("add", "greet", "fail", "count", "hang", "book", "nap", "pid")]


async def test_the_tools_of_a_server_are_offered_with_their_schemas_and_called(
    make_bridge: MakeBridge, client: ToolClient
) -> None:
    await make_bridge("sdk", SDK_SERVER)
    await shows(client, *SDK_TOOLS)
    card = await client.get_tool("sdk.add")
    assert card is not None
    assert (card.mcp_name, card.description, card.read_only) == ("add", "Add two numbers.", True)
    assert sorted(card.input_schema["properties"]) == ["a", "b"]
    assert card.output_schema is not None
    assert await soon(client.call("sdk.add", {"a": 2, "b": 40})) == {"sum": 42}
    with pytest.raises(ToolFailed, match="no luck") as failed:
        await soon(client.call("sdk.fail", {"why": "no luck"}))
    assert failed.value.content is not None
    assert "no luck" in failed.value.content[0]["text"]


async def test_a_server_of_2026_that_starts_late_is_offered(
    make_bridge: MakeBridge, client: ToolClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bridge has taken the server for one of 2025 by then, because the server did not answer in time."""
    begins, initialize = tmp_path / "begins", Session.initialize

    async def begin(session: Session) -> Any:
        monkeypatch.setattr(client_session, "DISCOVER_TIMEOUT_SECONDS", 60)
        begins.touch()
        return await initialize(session)

    monkeypatch.setattr(client_session, "DISCOVER_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(Session, "initialize", begin)
    late = f"while [ ! -e {begins} ]; do sleep 0.05; done; exec {' '.join(SDK_SERVER)}"
    await make_bridge("sdk", ["sh", "-c", late])
    await shows(client, *SDK_TOOLS)


async def test_progress_of_the_server_reaches_the_caller(make_bridge: MakeBridge, client: ToolClient) -> None:
    await make_bridge("sdk", SDK_SERVER)
    await shows(client, *SDK_TOOLS)
    heard: list[Any] = []
    await soon(client.call("sdk.count", {"to": 3}, on_partial=heard.append))
    assert heard == [{"progress": n, "total": 3, "message": f"step {n}"} for n in (1, 2, 3)]


async def test_a_canceled_call_is_canceled_at_the_server(
    make_bridge: MakeBridge, client: ToolClient, tmp_path: Path
) -> None:
    await make_bridge("sdk", SDK_SERVER)
    await shows(client, *SDK_TOOLS)
    marker = tmp_path / "marker"
    handle = await soon(client.submit("sdk.hang", {"marker": str(marker)}))
    await until(lambda: marker.exists() and marker.read_text() == "begun", 20)
    await handle.cancel()
    await until(lambda: marker.read_text() == "canceled", 20)
    with pytest.raises(CallCanceled):
        await handle.result()


async def test_a_killed_server_ends_its_calls_withdraws_its_tools_and_is_started_again(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("silent", "die", "echo")
    await make_bridge("odd", odd.command)
    await shows(client, "odd.die", "odd.echo", "odd.silent")
    waiting = await soon(client.submit("odd.silent"))
    changes = client.watch_tools()
    with pytest.raises(ToolUnavailable) as died:
        await soon(client.call("odd.die"))
    with pytest.raises(ToolUnavailable) as lost:
        await soon(waiting.result())
    assert (died.value.maybe_executed, lost.value.maybe_executed) == (True, True)

    async def is_withdrawn() -> None:
        while (change := await changes.__anext__()) is not None:
            if change.kind == "offline":
                return

    await soon(is_withdrawn(), 20)
    await shows(client, "odd.die", "odd.echo", "odd.silent")
    assert await soon(client.call("odd.echo", {"a": 1})) == '{"a": 1}'


async def test_nothing_of_a_server_is_left_when_the_bridge_stops_or_the_server_dies(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("family", "die")
    bridge = await make_bridge("odd", odd.command)
    await shows(client, "odd.die", "odd.family")
    families: list[int] = []
    families += map(int, (await soon(client.call("odd.family"))).split())
    with pytest.raises(ToolUnavailable):
        await soon(client.call("odd.die"))
    await until(lambda: not any(map(psutil.pid_exists, families)), 20)
    families += map(int, (await soon(client.call("odd.family", wait_online=True), 20)).split())
    await soon(bridge.stop(), 20)
    await until(lambda: not any(map(psutil.pid_exists, families)), 20)


async def test_a_changed_list_of_tools_is_offered_as_it_is_now(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("reload", "old", {"name": "same", "inputSchema": ANYTHING, "description": "before"})
    await make_bridge("odd", odd.command)
    await shows(client, "odd.old", "odd.reload", "odd.same")
    odd.offer("reload", "new", {"name": "same", "inputSchema": ANYTHING, "description": "after"})
    await soon(client.call("odd.reload"))
    await shows(client, "odd.new", "odd.reload", "odd.same")

    async def is_after() -> bool:
        card = await client.get_tool("odd.same")
        return card is not None and card.description == "after"

    await becomes(is_after, 20)
    assert await soon(client.call("odd.new", {"a": 1})) == '{"a": 1}'


async def test_one_invalid_tool_hides_no_other(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer, caplog: pytest.LogCaptureFixture
) -> None:
    odd.offer(
        "echo",
        {"name": "no schema"},
        {"inputSchema": ANYTHING},
        {"name": "a list", "inputSchema": {"type": "array"}},
        {"name": "huge", "inputSchema": ANYTHING, "description": "x" * 300_000},
        {"name": "elsewhere", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "https://x.example"}}}},
        {"name": "echo", "inputSchema": ANYTHING},
        {"name": "hints", "inputSchema": ANYTHING, "annotations": {"readOnlyHint": "yes"}, "icons": 7, "_meta": 7},
    )
    await make_bridge("odd", odd.command)
    await shows(client, "odd.echo", "odd.elsewhere", "odd.hints")
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([text for text in told if "left out" in text]) == 4
    assert len([text for text in told if "several tools 'echo'" in text]) == 1
    given = {"arguments": 1, "context": 2, "self": 3}
    assert json.loads(await soon(client.call("odd.elsewhere", given))) == given


async def test_names_that_no_topic_can_hold_are_changed_and_found_again(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    names = ["a.b", "a:b", "a b", "文件", "a/b", "a+b", "#", "x" * 300]
    odd.offer(*names)
    await make_bridge("odd", odd.command, prefix="")

    async def has_all() -> bool:
        return len(await client.list_tools()) == len(names)

    await becomes(has_all, 20)
    cards = {card.mcp_name: card.tool for card in await client.list_tools()}
    assert set(cards) == set(names)
    assert {cards[name] for name in names[:4]} == set(names[:4])
    for name in names:
        assert await soon(client.call(cards[name], {"n": 1})) == '{"n": 1}'


async def test_errors_carry_the_code_the_data_and_the_content_of_the_server(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    number = {"type": "object", "properties": {"number": {"type": "integer"}}}
    odd.offer("fault", "shows", "shows_data", {"name": "lies", "inputSchema": ANYTHING, "outputSchema": number})
    await make_bridge("odd", odd.command)
    await shows(client, "odd.fault", "odd.lies", "odd.shows", "odd.shows_data")
    with pytest.raises(ToolFailed) as fault:
        await soon(client.call("odd.fault", {"code": -32050}))
    assert (fault.value.code, fault.value.data) == ("-32050", [1])
    with pytest.raises(InvalidArguments, match="a fault"):
        await soon(client.call("odd.fault", {"code": -32602}))
    with pytest.raises(ToolFailed, match="broken") as shown:
        await soon(client.call("odd.shows"))
    assert (shown.value.content, shown.value.data) == ([{"type": "text", "text": "broken"}], {"page": 7})
    with pytest.raises(ToolFailed, match="RATE_LIMITED.*30") as bare:  # a model reads the message, and no data
        await soon(client.call("odd.shows_data"))
    assert bare.value.data == {"code": "RATE_LIMITED", "retry_after": 30}
    assert await soon(client.call("odd.lies")) == {"number": "not a number"}


async def test_rubbish_a_flood_and_a_large_answer_stop_nothing(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("rubbish", "flood", "big", "echo")
    await make_bridge("odd", odd.command)
    await shows(client, "odd.big", "odd.echo", "odd.flood", "odd.rubbish")
    assert await soon(client.call("odd.rubbish")) == "rubbish was written"
    assert await soon(client.call("odd.flood")) == "flooded"
    assert len(await soon(client.call("odd.big", {"size": 2_000_000}), 20)) == 2_000_000
    with pytest.raises(ToolFailed) as large:
        await soon(client.call("odd.big", {"size": 20_000_000}), 60)
    assert large.value.code in ("RESULT_TOO_LARGE", "UNREADABLE_RESPONSE")
    assert await soon(client.call("odd.echo")) == "{}"


async def test_a_server_is_told_only_of_what_the_bridge_can_do(make_bridge: MakeBridge, odd: OddServer) -> None:
    odd.offer("echo")
    await make_bridge("odd", odd.command)
    assert json.loads(Path(f"{odd.path}.seen").read_text()) == {"elicitation": {"form": {}}}


async def test_a_command_that_does_not_exist_is_an_error_that_names_it() -> None:
    with pytest.raises(ConnectionError, match="no-such-command"):
        await soon(Bridge("none", ["no-such-command"]).start(), 20)


@pytest.mark.long
async def test_1500_tools_are_offered_and_withdrawn_in_one_piece(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("reload", *(f"t{number:04}" for number in range(1500)))
    await make_bridge("odd", odd.command)

    async def offers(count: int) -> bool:
        return len(await client.list_tools()) == count

    await becomes(lambda: offers(1501), 30)
    odd.offer("reload", "last")
    await soon(client.call("odd.reload"))
    await shows(client, "odd.last", "odd.reload")
