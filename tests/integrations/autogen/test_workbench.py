"""Remote tools in AutoGen agents."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import ThoughtEvent, ToolCallExecutionEvent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import CancellationToken
from autogen_core.models import CreateResult
from autogen_core.tools import ImageResultContent, TextResultContent, ToolResult, Workbench
from autogen_mqtt_agent import MQTTWorkbench
from brokers import Broker, Embedded, Mosquitto
from mqtt_agent import ToolContext, ToolServer, errors
from mqtt_agent.adapting.naming import model_name
from proxy import Proxy
from support import becomes, soon, until

from .conftest import Toolbox, red_dot
from .models import calls, says


async def names(workbench: MQTTWorkbench) -> set[str]:
    return {schema["name"] for schema in await workbench.list_tools()}


def agent(workbench: Any, *answers: str | CreateResult, **options: Any) -> AssistantAgent:
    return AssistantAgent("assistant", says(*answers), workbench=workbench, **options)


def executions(result: TaskResult) -> list[Any]:
    events = [message for message in result.messages if isinstance(message, ToolCallExecutionEvent)]
    return [execution for event in events for execution in event.content]


DOTTED = model_name("dotted.name")

# Finding tools


async def test_it_lists_the_tools_that_are_online_with_their_schemas(workbench: MQTTWorkbench) -> None:
    tools: dict[str, Any] = {schema["name"]: schema for schema in await soon(workbench.list_tools())}
    assert set(tools) == {"add", "greet", "count", "fail", "hang", "picture", "enlarge", DOTTED}
    assert tools["add"]["description"] == "Add two numbers."
    assert set(tools["add"]["parameters"]["properties"]) == {"a", "b"}
    assert tools["add"]["parameters"]["required"] == ["a"]
    assert tools[DOTTED]["parameters"] == {"type": "object", "properties": {}}


async def test_an_agent_without_tools_is_told_once(
    embedded: Embedded, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    workbench = MQTTWorkbench(embedded.url, namespace=namespace)
    for _ in range(2):
        assert await soon(workbench.list_tools()) == []
    await soon(workbench.stop())
    [told] = [record.getMessage() for record in caplog.records if "has no tools" in record.getMessage()]
    assert (embedded.url in told, repr(namespace) in told) == (True, True)


async def test_it_is_not_connected_before_it_is_used(embedded: Embedded, namespace: str) -> None:
    workbench = MQTTWorkbench(embedded.url, "agent-a", namespace=namespace)
    assert not workbench.connection.connected
    assert await soon(workbench.list_tools()) == []
    assert workbench.connection.connected
    await soon(workbench.stop())
    assert not workbench.connection.connected


async def test_the_list_follows_what_comes_and_goes(
    workbench: MQTTWorkbench, toolbox: Toolbox, embedded: Embedded, namespace: str
) -> None:
    async def gone() -> bool:
        return "add" not in await names(workbench)

    assert "add" in await soon(names(workbench))
    await toolbox.stop()
    await becomes(gone)
    async with Toolbox(embedded.url, namespace):
        await becomes(lambda: _not(gone()))


async def _not(condition: Any) -> bool:
    return not await condition


async def test_only_the_wanted_tools_are_listed(
    toolbox: Toolbox, embedded: Embedded, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = ["add", "no_such_tool"]
    tools = await soon(MQTTWorkbench(embedded.url, "agent-a", namespace=namespace, tools=wanted).get_tools())
    assert [tool.name for tool in tools] == ["add"]
    assert "no_such_tool" in caplog.text
    await soon(tools[0].workbench.stop())


async def test_a_tool_that_was_left_out_cannot_be_called(toolbox: Toolbox, embedded: Embedded, namespace: str) -> None:
    workbench = MQTTWorkbench(embedded.url, "agent-a", namespace=namespace, exclude=["add"])
    refused = await soon(workbench.call_tool("add", {"a": 1, "b": 2}))
    assert refused.is_error
    assert "this workbench has no tool 'add'" in refused.to_text()
    assert not (await soon(workbench.call_tool("greet", {"name": "Ada"}))).is_error
    await soon(workbench.stop())


@pytest.mark.parametrize(
    ("wanted", "listed"),
    [
        ({"tools": ["gr*", "add"]}, {"greet", "add"}),
        ({"exclude": ["*e*", "hang"]}, {"add", "count", "fail"}),
        ({"servers": ["toolbox"], "tools": ["add"]}, {"add"}),
        ({"servers": ["another"]}, set()),
        ({"tags": ["numbers"]}, {"add", "count"}),
        ({"where": lambda card: card.supports_streaming, "exclude": ["hang"]}, {"count"}),
    ],
)
async def test_tools_are_chosen_by_pattern_server_tag_and_function(
    toolbox: Toolbox, embedded: Embedded, namespace: str, wanted: dict[str, Any], listed: set[str]
) -> None:
    workbench = MQTTWorkbench(embedded.url, "agent-a", namespace=namespace, **wanted)
    assert await soon(names(workbench)) == listed
    await soon(workbench.stop())


async def test_a_missing_tool_can_be_an_error_of_the_first_list_and_a_list_that_was_had_stands(
    embedded: Embedded, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    workbench = MQTTWorkbench(embedded.url, "agent-a", namespace=namespace, tools=["add"], on_unavailable="raise")
    with pytest.raises(errors.ToolUnavailable, match="add: no server offers this tool"):
        await soon(workbench.list_tools())
    async with Toolbox(embedded.url, namespace):
        await becomes(lambda: _has(workbench, {"add"}))
    await until_logged(workbench, caplog)
    assert await soon(names(workbench)) == {"add"}
    async with Toolbox(embedded.url, namespace):
        await becomes(lambda: _listed_again(workbench, caplog))
    await soon(workbench.stop())


async def _listed_again(workbench: MQTTWorkbench, caplog: pytest.LogCaptureFixture) -> bool:
    await workbench.list_tools()
    return caplog.records[-1].getMessage() == "the tools are listed again"


async def _has(workbench: MQTTWorkbench, wanted: set[str]) -> bool:
    try:
        return await names(workbench) == wanted
    except errors.ToolUnavailable:
        return False


async def until_logged(workbench: MQTTWorkbench, caplog: pytest.LogCaptureFixture) -> None:
    async def logged() -> bool:
        await workbench.list_tools()
        return "the last list is used again: add: no server offers this tool" in caplog.text

    await becomes(logged)


async def test_without_a_broker_the_first_list_says_so(url_of_nobody: str) -> None:
    workbench = MQTTWorkbench(url_of_nobody, "agent-a")
    with pytest.raises(errors.BrokerUnreachable):
        await soon(workbench.list_tools(), 30)
    await soon(workbench.stop())


async def test_a_model_is_told_a_schema_without_references(
    embedded: Embedded, namespace: str, workbench: MQTTWorkbench
) -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}, "name": {"type": ["string", "null"]}}}
    schema = {"type": "object", "properties": {"tree": {"$ref": "#/$defs/Tree", "title": "T"}}, "$defs": {"Tree": tree}}
    server = ToolServer("woods", broker=embedded.url, namespace=namespace)
    server.add_tool("climb", lambda tree: "up", input_schema=schema)
    async with server:
        await becomes(lambda: _lists(workbench, "climb"))
        [climb] = [each for each in await workbench.list_tools() if each["name"] == "climb"]
    assert dict(climb.get("parameters", {})) == {
        "type": "object",
        "properties": {
            "tree": {
                "type": "object",
                "title": "T",
                "properties": {"left": {"type": "object"}, "name": {"type": ["string", "null"]}},
            }
        },
    }


async def _lists(workbench: MQTTWorkbench, name: str) -> bool:
    return name in await names(workbench)


# Calling


async def test_an_agent_calls_tools_without_ever_starting_the_workbench(broker: Broker, namespace: str) -> None:
    async with Toolbox(broker.url, namespace):
        workbench = MQTTWorkbench(broker.url, "agent-a", namespace=namespace)
        assistant = agent(workbench, calls(("add", {"a": 2, "b": 3}), (DOTTED, {})), "done", max_tool_iterations=2)
        result = await soon(assistant.run(task="go"))
        assert [(each.content, each.is_error) for each in executions(result)] == [
            ('{"sum": 5}', False),
            ("Hello you", False),
        ]
        await soon(workbench.stop())


async def test_what_a_tool_streams_comes_before_its_result(workbench: MQTTWorkbench) -> None:
    assistant = agent(workbench, calls(("count", {"to": 3})))
    seen = [message async for message in assistant.run_stream(task="go")]
    thoughts = [message for message in seen if isinstance(message, ThoughtEvent)]
    assert [(thought.source, thought.content) for thought in thoughts] == [
        ("count", "1"),
        ("count", "2"),
        ("count", "3"),
    ]
    assert thoughts[0].metadata["mqtt_tool"] == "count"
    assert executions(seen[-1])[0].content == "3"  # type: ignore[arg-type]


async def test_a_workbench_need_not_stream(workbench: MQTTWorkbench) -> None:
    workbench._stream = False
    events = [event async for event in workbench.call_tool_stream("count", {"to": 3})]
    assert [type(event) for event in events] == [ToolResult]


async def test_texts_and_images_come_as_such(workbench: MQTTWorkbench) -> None:
    result = await soon(workbench.call_tool("picture"))
    text, image = result.result
    assert isinstance(text, TextResultContent)
    assert text.content == "a dot"
    assert isinstance(image, ImageResultContent)
    assert image.content.image.getpixel((0, 0)) == (255, 0, 0)
    assert not result.is_error


async def test_pictures_go_to_tools_and_come_back(workbench: MQTTWorkbench) -> None:
    result = await soon(workbench.call_tool("enlarge", {"picture": red_dot(2, 3), "by": 100}))
    assert not result.is_error, result.to_text()
    note, image, link = result.result
    assert note == TextResultContent(content="enlarged")
    assert isinstance(image, ImageResultContent)
    assert image.content.image.size == (200, 300)
    assert isinstance(link, TextResultContent)
    assert "file:///x" in link.content


async def test_a_model_is_told_of_a_picture_in_a_few_words(
    embedded: Embedded, namespace: str, workbench: MQTTWorkbench
) -> None:
    assistant = agent(workbench, calls(("picture", {})), "I see", max_tool_iterations=2)
    [execution] = executions(await soon(assistant.run(task="go")))
    assert execution.content == "a dot\n[a picture, which cannot be shown here]"
    [tool] = await soon(MQTTWorkbench(embedded.url, namespace=namespace, tools=["picture"]).get_tools())
    assert await soon(tool.run_json({}, CancellationToken())) == execution.content
    await soon(tool.workbench.stop())


def test_one_workbench_serves_several_event_loops(mosquitto: Mosquitto, namespace: str) -> None:
    workbench = MQTTWorkbench(mosquitto.url, "agent-a", namespace=namespace)
    for _ in range(2):
        assert asyncio.run(workbench.list_tools()) == []
        assert asyncio.run(workbench.call_tool("add", {})).is_error
    asyncio.run(workbench.stop())


async def test_a_model_is_told_of_what_autogen_cannot_carry(
    embedded: Embedded, namespace: str, workbench: MQTTWorkbench
) -> None:
    blocks = [
        {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
        {"type": "resource", "resource": {"uri": "file:///a.pdf", "mimeType": "application/pdf", "blob": "AAAA"}},
        {"type": "resource", "resource": {"uri": "dot://", "mimeType": "image/png", "blob": red_dot()}},
        {"type": "image", "data": "AAAA", "mimeType": "image/png"},
    ]
    server = ToolServer("media", broker=embedded.url, namespace=namespace)
    server.add_tool("record", lambda: blocks, input_schema={"type": "object"})
    async with server:
        await becomes(lambda: _lists(workbench, "record"))
        audio, file, picture, broken = (await soon(workbench.call_tool("record"))).result
    assert [audio, file] == [
        TextResultContent(content="[audio: audio/wav]"),
        TextResultContent(content="[file: file:///a.pdf]"),
    ]
    assert isinstance(picture, ImageResultContent)
    assert isinstance(broken, TextResultContent)
    assert "an image that cannot be read" in broken.content


# Failing: an error that the model can read, and never an exception


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("fail", {}, "no luck today"),
        ("add", {"a": "two"}, "a"),
        ("no_such_tool", {}, "has no tool 'no_such_tool'"),
        ("hang", {}, "0.2 s"),
        ("bad/name", {}, "has no tool 'bad/name'"),
        ("add", {"a": object()}, "JSON"),
    ],
)
async def test_every_failure_is_a_result(
    workbench: MQTTWorkbench, tool: str, arguments: dict[str, Any], told: str
) -> None:
    workbench._timeout = 0.2 if tool == "hang" else 5
    result = await soon(workbench.call_tool(tool, arguments))
    assert result.is_error
    assert told in result.to_text()


async def test_a_null_for_an_argument_that_may_be_left_out_is_left_out(workbench: MQTTWorkbench) -> None:
    assert (await soon(workbench.call_tool("greet", {"name": None}))).to_text() == "Hello you"
    assert '"sum": 1' in (await soon(workbench.call_tool("add", {"a": 1, "b": None}))).to_text()
    assert (await soon(workbench.call_tool("add", {"a": None}))).is_error


async def test_a_timeout_stops_the_call_at_the_server(workbench: MQTTWorkbench, toolbox: Toolbox) -> None:
    workbench._timeout = 0.2
    assert (await soon(workbench.call_tool("hang"))).is_error
    await until(lambda: len(toolbox.canceled) == 1)


async def test_the_token_cancels_the_call_at_the_server(workbench: MQTTWorkbench, toolbox: Toolbox) -> None:
    token = CancellationToken()
    calling = asyncio.create_task(workbench.call_tool("hang", {}, token))
    await soon(toolbox.running.wait())
    token.cancel()
    result = await soon(calling)
    assert result.is_error
    assert "canceled" in result.to_text()
    await until(lambda: len(toolbox.canceled) == 1)
    late = await soon(workbench.call_tool("add", {"a": 1}, token))
    assert late.is_error


async def test_a_canceled_task_gets_a_result_too(workbench: MQTTWorkbench, toolbox: Toolbox) -> None:
    calling = asyncio.create_task(workbench.call_tool("hang", {}))
    await soon(toolbox.running.wait())
    calling.cancel()
    assert (await soon(calling)).is_error
    await until(lambda: len(toolbox.canceled) == 1)


async def test_a_team_survives_a_broker_that_goes_away_in_the_middle(mosquitto: Mosquitto, namespace: str) -> None:
    toolbox = Toolbox(mosquitto.url, namespace)
    async with Proxy(mosquitto.url) as proxy, toolbox:
        workbench = MQTTWorkbench(proxy.url, "agent-a", namespace=namespace, timeout=2)
        assistant = agent(workbench, calls(("hang", {})), calls(("add", {"a": 1})), "so be it", max_tool_iterations=3)
        team = RoundRobinGroupChat([assistant], max_turns=1)
        running = asyncio.create_task(team.run(task="go"))
        await soon(toolbox.running.wait())
        await proxy.cut()
        result = await soon(running, 30)
        assert [execution.is_error for execution in executions(result)] == [True, True]
        assert result.messages[-1].to_text() == "so be it"
        await soon(workbench.stop(), 30)


async def test_a_team_ends_when_it_is_canceled_in_the_middle_of_a_call(
    workbench: MQTTWorkbench, toolbox: Toolbox
) -> None:
    token = CancellationToken()
    team = RoundRobinGroupChat([agent(workbench, calls(("hang", {})), "never")], max_turns=1)
    running = asyncio.create_task(team.run(task="go", cancellation_token=token))
    await soon(toolbox.running.wait())
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(running)
    await until(lambda: len(toolbox.canceled) == 1)


# Tools as a list


async def test_a_list_of_tools_does_the_same(embedded: Embedded, namespace: str, toolbox: Toolbox) -> None:
    tools = await soon(
        MQTTWorkbench(broker=embedded.url, agent_id="agent-b", namespace=namespace, timeout=5).get_tools()
    )
    answers = calls(("add", {"a": 2, "b": 3}), ("fail", {}))
    assistant = AssistantAgent("assistant", says(answers), tools=list(tools))
    result = await soon(assistant.run(task="go"))
    assert [(each.content, each.is_error) for each in executions(result)] == [
        ('{"sum": 5}', False),
        ("fail: no luck today", True),
    ]
    await soon(tools[0].workbench.stop())


async def test_an_agent_with_a_list_of_tools_does_not_hang_when_it_is_canceled(
    embedded: Embedded, namespace: str, toolbox: Toolbox
) -> None:
    tools = await soon(MQTTWorkbench(embedded.url, namespace=namespace).get_tools())
    token = CancellationToken()
    assistant = AssistantAgent("assistant", says(calls(("hang", {})), "gave up"), tools=list(tools))
    running = asyncio.create_task(assistant.run(task="go", cancellation_token=token))
    await soon(toolbox.running.wait())
    token.cancel()
    assert [each.is_error for each in executions(await soon(running))] == [True]
    await until(lambda: len(toolbox.canceled) == 1)
    await soon(tools[0].workbench.stop())


# Component


async def test_it_is_dumped_without_secrets_and_loads_again(
    embedded: Embedded, namespace: str, toolbox: Toolbox
) -> None:
    where = embedded.url.replace("mqtt://", "mqtt://user:secret@")
    dumped = MQTTWorkbench(where, "agent-c", namespace=namespace, tools=["add"]).dump_component()
    assert "secret" not in dumped.model_dump_json()
    loaded = Workbench.load_component(dumped)
    assert isinstance(loaded, MQTTWorkbench)
    assert loaded.agent_id == "agent-c"
    assert await soon(names(loaded)) == {"add"}
    await soon(loaded.stop())


def test_an_agent_with_it_is_dumped_and_loads_again(namespace: str) -> None:
    workbench = MQTTWorkbench("mqtt://localhost", "agent-c", namespace=namespace)
    loaded = AssistantAgent.load_component(agent(workbench, "hello").dump_component())
    assert isinstance(loaded, AssistantAgent)
    assert isinstance(loaded._workbench[0], MQTTWorkbench)


AWKWARD = (
    *("name", "arguments", "cancellation_token", "call_id", "self", "args", "kwargs", "tool", "timeout", "on_partial"),
    *("client", "model_config", "model_dump", "model_fields", "schema", "class", "_id", "content-type"),
)
"""Names that parameters and attributes on the way to a tool have too."""


@pytest.mark.parametrize("way", ["workbench", "tools"])
async def test_arguments_may_have_any_name(embedded: Embedded, namespace: str, way: str) -> None:
    server = ToolServer("toolbox", broker=embedded.url, namespace=namespace)
    properties = {name: {"type": "string"} for name in AWKWARD}
    seen: list[Any] = []

    async def awkward(whole: dict[str, Any]) -> str:
        """Take whatever it is called."""
        seen.append(whole)
        return "taken"

    schema = {"type": "object", "properties": properties, "required": list(AWKWARD)}
    server.add_tool("awkward", awkward, input_schema=schema)
    arguments = {name: f"its {name}" for name in AWKWARD}
    async with server:
        workbench = MQTTWorkbench(embedded.url, namespace=namespace)
        answers = (calls(("awkward", arguments)), "done")
        if way == "workbench":
            assistant = agent(workbench, *answers)
        else:
            tools: Any = await soon(workbench.get_tools())
            assistant = AssistantAgent("assistant", says(*answers), tools=tools)
        [execution] = executions(await soon(assistant.run(task="go")))
        await soon(workbench.stop())
    assert "taken" in execution.content
    assert seen == [arguments]


async def test_a_tool_that_asks_gets_the_answer_of_on_question(embedded: Embedded, namespace: str) -> None:
    server, asked = ToolServer("travel", broker=embedded.url, namespace=namespace), list[Any]()

    @server.tool
    async def book(day: str, ctx: ToolContext) -> str:
        return f"{day}: {await ctx.ask('Where to?')}"

    async def answer(question: str, schema: Any) -> str:
        asked.append((question, schema))
        return "Oslo"

    async with server:
        asking = MQTTWorkbench(embedded.url, namespace=namespace, on_question=answer)
        silent = MQTTWorkbench(embedded.url, namespace=namespace)
        for workbench in (asking, silent):
            await becomes(lambda workbench=workbench: offers(workbench, "book"))
        assert (await soon(asking.call_tool("book", {"day": "today"}))).to_text() == "today: Oslo"
        assert asked == [("Where to?", {"type": "string"})]
        refused = await soon(silent.call_tool("book", {"day": "today"}))
        assert (refused.is_error, "on_question=" in refused.to_text()) == (True, True)
        await soon(asking.stop())
        await soon(silent.stop())


async def offers(workbench: MQTTWorkbench, tool: str) -> bool:
    return tool in await names(workbench)
