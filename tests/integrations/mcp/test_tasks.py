"""MCP tasks of tools: from the MCP server over MQTT to the MCP clients, in both protocols."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from brokers import Broker
from mcp import Client, MCPError
from mcp.client.session import ClientSession
from mcp.shared.inbound import MCP_NAME_HEADER, encode_header_value
from mcp_mqtt_agent import Face
from mcp_mqtt_agent.task_extension import TASKS
from mcp_types import METHOD_NOT_FOUND, MISSING_REQUIRED_CLIENT_CAPABILITY, ElicitResult
from mqtt_agent import ToolClient, ToolContext, ToolServer
from mqtt_agent.errors import CallCanceled, ToolFailed
from mqtt_agent.tools import CallQuestion, Elicited, ServerRequest
from support import becomes, soon, until

from .conftest import SERVERS, MakeBridge, shows_some

RELATED = "io.modelcontextprotocol/related-task"
YES = {"action": "accept", "content": {"confirm": True}}


def tasks(protocol: str) -> list[str]:
    return [sys.executable, str(SERVERS / "task_server.py"), protocol]


async def yes(question: CallQuestion) -> Elicited:
    return Elicited("accept", {"confirm": True})


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["2025", "2026"])
async def test_a_caller_over_mqtt_gets_the_result_of_a_tool_that_works_only_as_a_task(
    make_bridge: MakeBridge, client: ToolClient, protocol: str
) -> None:
    await make_bridge("jobs", tasks(protocol), prefix="")
    await shows_some(client, "where")
    card = await client.get_tool("where")
    assert card is not None
    assert card.task_support == "required"
    assert (await soon(client.call("where"), 20)).startswith("task-")
    with pytest.raises(ToolFailed, match="it failed"):
        await soon(client.call("failing_job"), 20)
    asked: list[CallQuestion] = []

    async def note(question: CallQuestion) -> Elicited:
        asked.append(question)
        return await yes(question)

    answers = json.loads(await soon(client.call("multi_input", on_question=note), 20))
    assert answers == {"user_name": YES, "second": YES}
    assert len(asked) == 2  # also when the server shows its questions once more before it has taken the answers


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["2025", "2026"])
async def test_what_a_task_says_is_progress_and_its_fault_and_its_cancellation_go_through(
    make_bridge: MakeBridge, client: ToolClient, protocol: str
) -> None:
    await make_bridge("jobs", tasks(protocol), prefix="")
    await shows_some(client, "slow_compute")
    heard: list[Any] = []
    assert await soon(client.call("slow_compute", {"seconds": 1}, on_partial=heard.append), 20) == "computed"
    assert [(each["progress"], each["message"]) for each in heard] == [(1, "half done")]
    with pytest.raises(ToolFailed, match="a fault") as fault:
        await soon(client.call("protocol_error_job"), 20)
    assert (fault.value.code, fault.value.data) == ("-32050", [1])
    handle = await soon(client.submit("slow_compute", {"seconds": 600}))
    await soon(anext(handle.partials()), 20)
    await handle.cancel()
    with pytest.raises(CallCanceled):
        await handle.result()


@asynccontextmanager
async def connected(client: ToolClient, mode: Any, **options: Any) -> AsyncIterator[ClientSession]:
    face = Face(client)
    async with face.live(), Client(face.server, mode=mode, **options) as peer:
        yield peer.session


async def ask(session: ClientSession, method: str, **params: Any) -> dict[str, Any]:
    """A request whose result arrives as it is. The SDK has no client for tasks."""
    data: dict[str, Any] = {"method": method, "params": params}
    options: Any = {}
    session._stamp(data, options)  # pyright: ignore[reportPrivateUsage]
    if session.protocol_version == "2026-07-28":
        capabilities = {"elicitation": {"form": {}}, "extensions": {TASKS: {}}}
        data["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities
        if "taskId" in params:  # over HTTP, a header repeats it
            options.setdefault("headers", {})[MCP_NAME_HEADER] = encode_header_value(params["taskId"])
    sending = session._dispatcher.send_raw_request(method, data["params"], options)  # pyright: ignore[reportPrivateUsage]
    return await soon(sending, 20)


async def until_status(session: ClientSession, task_id: str, status: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def has_it() -> bool:
        seen.update(await ask(session, "tasks/get", taskId=task_id))
        return bool(seen["status"] == status)

    await becomes(has_it, 20)
    return seen


async def test_a_client_of_2026_gets_a_task_looks_at_it_answers_it_and_is_told_of_its_changes(
    make_bridge: MakeBridge, client: ToolClient
) -> None:
    await make_bridge("jobs", tasks("2025"), prefix="")
    await shows_some(client, "where")
    async with connected(client, "auto") as session:
        made = await ask(session, "tools/call", name="confirm_delete", arguments={})
        assert (made["resultType"], made["status"]) == ("task", "working")
        seen = await until_status(session, made["taskId"], "input_required")
        [key] = seen["inputRequests"]
        await ask(session, "tasks/update", taskId=made["taskId"], inputResponses={key: YES})
        seen = await until_status(session, made["taskId"], "completed")
        assert json.loads(seen["result"]["content"][0]["text"]) == YES
        with pytest.raises(MCPError) as refused:
            await soon(session.call_tool("where", {}), 20)
        assert refused.value.error.code == MISSING_REQUIRED_CLIENT_CAPABILITY
        made = await ask(session, "tools/call", name="slow_compute", arguments={"seconds": 600})
        await ask(session, "tasks/cancel", taskId=made["taskId"])
        await until_status(session, made["taskId"], "cancelled")
        assert (await ask(session, "tools/call", name="greet", arguments={"name": "you"}))["resultType"] == "complete"


@pytest.mark.long
async def test_a_client_of_2025_gets_a_task_and_is_asked_while_it_waits_for_the_result(
    make_bridge: MakeBridge, client: ToolClient
) -> None:
    async def on_elicit(context: Any, params: Any) -> Any:
        return ElicitResult(action="accept", content={"confirm": True})

    await make_bridge("jobs", tasks("2026"), prefix="")
    await shows_some(client, "where")
    async with connected(client, "legacy", elicitation_callback=on_elicit) as session:
        tools = {tool.name: tool.execution for tool in (await soon(session.list_tools(), 20)).tools}
        support = {name: None if each is None else each.task_support for name, each in tools.items()}
        assert (support["greet"], support["slow_compute"], support["where"]) == (None, "optional", "required")
        made = (await ask(session, "tools/call", name="confirm_delete", arguments={}, task={}))["task"]
        assert (made["status"], made["ttl"]) == ("working", None)
        result = await ask(session, "tasks/result", taskId=made["taskId"])
        assert json.loads(result["content"][0]["text"])["content"] == {"confirm": True}
        assert result["_meta"][RELATED] == {"taskId": made["taskId"]}
        assert (await ask(session, "tasks/get", taskId=made["taskId"]))["status"] == "completed"
        for name, task in (("greet", {"task": {}}), ("where", {})):
            with pytest.raises(MCPError) as refused:
                await ask(session, "tools/call", name=name, arguments={}, **task)
            assert refused.value.error.code == METHOD_NOT_FOUND
        failed = (await ask(session, "tools/call", name="failing_job", arguments={}, task={}))["task"]
        assert (await ask(session, "tasks/result", taskId=failed["taskId"]))["isError"] is True
        assert (await ask(session, "tasks/get", taskId=failed["taskId"]))["status"] == "failed"


@pytest.mark.long
async def test_a_client_of_2026_is_told_of_the_changes_of_its_tasks_on_its_stream(
    make_bridge: MakeBridge, client: ToolClient
) -> None:
    await make_bridge("jobs", tasks("2026"), prefix="")
    await shows_some(client, "where")
    async with connected(client, "auto") as session:
        made = await ask(session, "tools/call", name="slow_compute", arguments={"seconds": 2})
        asked = {"taskIds": [made["taskId"], "nothing"]}
        heard: list[tuple[str, Any]] = []
        notified = session._intercept_notification  # pyright: ignore[reportPrivateUsage]

        def hear(method: str, params: Any) -> bool:
            heard.append((method, params))
            return notified(method, params)

        session._dispatcher._on_notify_intercept = hear  # type: ignore[attr-defined]  # pyright: ignore
        listening = asyncio.ensure_future(ask(session, "subscriptions/listen", notifications=asked))
        await until(lambda: any((params or {}).get("status") == "completed" for _, params in heard), 20)
        assert heard[0][1]["notifications"] == {"taskIds": [made["taskId"]]}
        told = [params for method, params in heard if method == "notifications/tasks"]
        assert {each["taskId"] for each in told} == {made["taskId"]}
        assert told[-1]["result"]["content"] == [{"type": "text", "text": "computed"}]
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_task_that_ends_while_a_client_of_2025_has_its_question_has_its_result_at_once(
    client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    asked = asyncio.Event()

    async def on_elicit(context: Any, params: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    async def confirm(context: ToolContext) -> str:
        return str(await context.ask("Sure?"))

    server = ToolServer("jobs", broker=mosquitto.url, namespace=namespace)
    server.add_tool("confirm", confirm, task_support="optional")
    async with server:
        await shows_some(client, "confirm")
        async with connected(client, "legacy", elicitation_callback=on_elicit) as session:
            made = (await ask(session, "tools/call", name="confirm", arguments={}, task={}))["task"]
            waiting = asyncio.ensure_future(ask(session, "tasks/result", taskId=made["taskId"]))
            await soon(asked.wait(), 20)
            await ask(session, "tasks/cancel", taskId=made["taskId"])
            assert (await soon(waiting, 20))["isError"] is True


async def test_a_stream_that_is_refused_leaves_no_resource_watched(
    client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    async def answer(request: ServerRequest) -> Any:
        listed = {"resources": [{"uri": "note://first", "name": "first"}]}
        return listed if request.method == "resources/list" else request.params

    server = ToolServer("notes", broker=mosquitto.url, namespace=namespace)
    server.answer_requests(answer, {"resources": {"subscribe": True}})
    face = Face(client)
    async with server, face.live(), Client(face.server) as peer:
        data: dict[str, Any] = {"method": "subscriptions/listen", "params": {}}
        data["params"]["notifications"] = {"resourceSubscriptions": ["note://first"], "taskIds": ["task"]}
        peer.session._stamp(data, {})  # pyright: ignore[reportPrivateUsage]
        sending = peer.session._dispatcher.send_raw_request(data["method"], data["params"], {})  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(MCPError, match="has not declared"):
            await soon(sending, 20)
        assert face._subscribing._servers == {}  # pyright: ignore[reportPrivateUsage]
