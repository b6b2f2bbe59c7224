"""Our client with the reference's tool server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mqtt_agent import ToolClient
from mqtt_agent.errors import CallTimeout, ToolFailed, ToolUnavailable
from support import soon, until

from .conftest import MakeReferenceServer, StartClient, StartReferenceServer


async def online(client: ToolClient, *servers: str) -> None:
    """Wait until exactly these servers are online."""
    changes = client.watch_tools()

    async def wait() -> None:
        while [card.server for card in await client.list_servers()] != sorted(servers):
            await changes.__anext__()

    await soon(wait(), 20)


@pytest.mark.rule("TCARD-1", "TCARD-3", "SCARD-1")
async def test_its_tools_are_listed_with_what_their_cards_say(
    start_reference_server: StartReferenceServer, start_client: StartClient, namespace: str
) -> None:
    await start_reference_server("reference")
    client = await start_client()
    cards = {card.tool: card for card in await soon(client.list_tools(server="reference"))}
    assert set(cards) == {"add", "stream", "fail", "nothing", "echo", "work", "hang"}
    add = cards["add"]
    assert (add.server, add.namespace, add.description) == ("reference", namespace, "The sum of two numbers.")
    assert add.input_schema["required"] == ["a", "b"]
    assert add.output_schema == {"type": "number"}
    assert (add.supports_streaming, add.requires_auth, add.allowed_callers) == (False, True, ["somebody"])
    assert add.version_info is not None
    assert add.version_info.tool == "1.2.3"
    assert (add.read_only, add.idempotent, add.features) == (False, False, None)
    assert cards["stream"].supports_streaming
    [server] = await soon(client.list_servers())
    assert (server.server, set(server.tools), server.status) == ("reference", set(cards), "online")
    card = await soon(client.get_tool("add"))
    assert card == add


@pytest.mark.rule("NAME-6")
async def test_its_namespace_is_trimmed_in_topics_but_not_in_cards(
    start_reference_server: StartReferenceServer, start_client: StartClient, namespace: str
) -> None:
    await start_reference_server("reference", namespace=f"/{namespace}//")
    client = await start_client()
    [server] = await soon(client.list_servers())
    assert server.namespace == f"/{namespace}//"
    cards = await soon(client.list_tools())
    assert {card.namespace for card in cards} == {f"/{namespace}//"}
    assert await soon(client.call("add", {"a": 1, "b": 2})) == 3


@pytest.mark.rule("CALL-1", "RESP-1")
async def test_its_tools_give_their_results(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    server = await start_reference_server()
    client = await start_client("python-client")
    assert await soon(client.call("add", {"a": 2, "b": 0.5})) == 2.5
    value = {"text": "größe 工具 🎈", "nothing": None, "list": [1, [], {}, False], "big": "x" * 300_000}
    assert await soon(client.call("echo", value)) == value
    assert await soon(client.call("echo")) == {}
    handle = await soon(client.submit("add", {"a": 1, "b": 1}))
    assert await soon(handle.result()) == 2
    assert handle.elapsed_ms is not None
    assert [call["client"] for call in server.executed] == ["python-client"] * 4
    assert server.executed[-1]["call_id"] == handle.call_id


@pytest.mark.rule("RESP-5")
async def test_a_result_that_it_leaves_out_is_none(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    await start_reference_server()
    client = await start_client()
    handle = await soon(client.submit("nothing"))
    assert await soon(handle.result()) is None
    assert handle.response is not None
    assert "result" not in handle.response.model_fields_set


async def test_many_calls_at_once_each_get_their_own_answer_from_it(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    server = await start_reference_server()
    client = await start_client()
    results = await soon(asyncio.gather(*(client.call("add", {"a": n, "b": n}) for n in range(300))), 30)
    assert results == [2 * n for n in range(300)]
    assert len(server.executed) == 300


@pytest.mark.rule("STREAM-1", "STREAM-2", "STREAM-3", "STREAM-8")
async def test_what_it_streams_comes_in_order_before_the_result(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    await start_reference_server()
    client = await start_client()
    partials = [*(f"page {page}" for page in range(200)), {"found": 200}, ["a", "list"], ""]
    seen: list[Any] = []
    result = await soon(client.call("stream", {"partials": partials}, on_partial=seen.append))
    assert result == {"streamed": 203}
    assert seen == partials
    handle = await soon(client.submit("stream", {"partials": partials}))
    assert [partial async for partial in handle.partials()] == partials
    assert await soon(handle.result()) == result


@pytest.mark.rule("STREAM-9")
async def test_equal_partials_in_the_same_millisecond_all_come(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    await start_reference_server()
    client = await start_client()
    seen: list[Any] = []
    await soon(client.call("stream", {"partials": ["\n"] * 50}, on_partial=seen.append))
    assert seen == ["\n"] * 50


@pytest.mark.rule("STREAM-2")
async def test_a_number_that_it_streams_has_neither_content_nor_data(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    await start_reference_server()
    client = await start_client()
    seen: list[Any] = []
    result = await soon(client.call("stream", {"partials": ["a", 7, "b"]}, on_partial=seen.append))
    assert result == {"streamed": 3}
    assert [partial for partial in seen if partial is not None] == ["a", "b"]


@pytest.mark.rule("RESP-2")
async def test_a_tool_of_its_that_fails_is_tool_failed(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    await start_reference_server()
    client = await start_client()
    with pytest.raises(ToolFailed, match="fail: no such luck") as caught:
        await soon(client.call("fail"))
    assert (caught.value.code, caught.value.data, caught.value.server) == (None, None, None)


async def test_a_handler_of_its_that_cannot_use_the_arguments_is_tool_failed(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    await start_reference_server()
    client = await start_client()
    assert await soon(client.call("add", {"a": 1})) is None  # the reference checks no schema: NaN
    with pytest.raises(ToolFailed, match="not iterable"):
        await soon(client.call("stream", {}))


async def test_a_call_that_it_never_answers_times_out(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    await start_reference_server()
    client = await start_client()
    with pytest.raises(CallTimeout):
        await soon(client.call("hang", timeout=0.3))
    handle = await soon(client.submit("hang"))
    await handle.cancel()
    assert await soon(client.call("add", {"a": 1, "b": 1})) == 2


@pytest.mark.rule("NAME-4", "STREAM-7")
async def test_our_call_ids_may_be_any_text(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    server = await start_reference_server()
    client = await start_client()
    for call_id in ("call_mf3x2k1a_0z9y8x7w", "größe 工具", "a/b", "a/+/#"):
        seen: list[Any] = []
        on_partial = None if "/" in call_id else seen.append
        given = {"partials": [] if "/" in call_id else ["one"]}
        result = await soon(client.call("stream", given, call_id=call_id, on_partial=on_partial))
        assert result == {"streamed": len(given["partials"])}
        assert seen == given["partials"]
        assert server.executed[-1]["call_id"] == call_id


@pytest.mark.rule("PRES-7")
async def test_after_its_clean_stop_nothing_is_online(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    server = await start_reference_server()
    client = await start_client()
    assert len(await soon(client.list_tools())) == 7
    await server.stop()
    assert server.heard("stopped")
    await online(client)
    assert await soon(client.list_tools()) == []
    with pytest.raises(ToolUnavailable, match="offline"):
        await soon(client.call("add", {"a": 1, "b": 1}))


@pytest.mark.rule("PRES-5", "LOST-4", "LATE-3")
async def test_when_it_is_killed_its_will_ends_our_calls_though_its_tool_cards_stay_online(
    start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    server = await start_reference_server()
    client = await start_client()
    handle = await soon(client.submit("hang"))
    await until(lambda: server.executed)
    await server.kill()
    with pytest.raises(ToolUnavailable, match="went offline") as caught:
        await soon(handle.result())
    assert caught.value.maybe_executed
    assert await soon(client.list_tools()) == []
    listed = await soon(client.list_tools(online_only=False))
    assert {card.status for card in listed} == {"offline"}
    with pytest.raises(ToolUnavailable, match="offline"):
        await soon(client.call("add", {"a": 1, "b": 1}))


async def test_a_call_waits_for_it_to_come_online(
    make_reference_server: MakeReferenceServer, start_client: StartClient
) -> None:
    server = make_reference_server()
    client = await start_client()
    call = asyncio.ensure_future(client.call("add", {"a": 1, "b": 2}, wait_online=True))
    await server.start()
    assert await soon(call) == 3
    await server.stop()
    await online(client)
    again = make_reference_server()
    call = asyncio.ensure_future(client.call("add", {"a": 2, "b": 2}, wait_online=True))
    await again.start()
    assert await soon(call) == 4
