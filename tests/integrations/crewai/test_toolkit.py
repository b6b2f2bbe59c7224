"""Remote tools as CrewAI tools."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest
from brokers import Embedded, Mosquitto, password_line
from crewai import Agent, Crew, Task
from crewai.events.event_bus import crewai_event_bus
from crewai.tools import BaseTool
from crewai.tools.tool_failure import ToolFailure
from crewai.utilities.agent_utils import convert_tools_to_openai_schema
from crewai.utilities.string_utils import sanitize_tool_name
from crewai_mqtt_agent import MQTTToolkit, RemoteToolPartialEvent
from mqtt_agent import Password, ToolResult
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.errors import BrokerUnreachable, ToolUnavailable
from mqtt_agent.sync import ToolServer
from mqtt_agent.tools import SyncToolContext
from pydantic import BaseModel

from .conftest import AWKWARD, ECHO, REFUSED, Toolbox
from .models import ScriptedLLM, last_text, run, says_calls


def by_name(toolkit: MQTTToolkit) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in toolkit.get_tools()}


def crew_that(toolkit: MQTTToolkit, *turns: Any, tools: list[BaseTool] | None = None, **options: Any) -> Crew:
    agent = Agent(
        role="worker", goal="work", backstory="works", llm=ScriptedLLM.of(*turns), tools=tools or toolkit.get_tools()
    )
    return Crew(agents=[agent], tasks=[Task(description="Work", expected_output="done", agent=agent)], **options)


def failure_of(result: Any) -> ToolFailure:
    assert isinstance(result, ToolFailure), result
    return result


def test_an_agent_without_tools_is_told_once(
    embedded: Embedded, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    with MQTTToolkit(embedded.url, namespace=namespace) as toolkit:
        for _ in range(2):
            assert toolkit.get_tools() == []
    [told] = [record.getMessage() for record in caplog.records if "has no tools" in record.getMessage()]
    assert (embedded.url in told, repr(namespace) in told) == (True, True)


def test_importing_the_package_alone_does_not_import_crewai() -> None:
    program = (
        "import sys, crewai_mqtt_agent as package\n"
        "print('crewai' in sys.modules, set(package.__all__) <= set(dir(package)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False True\n", done.stderr


def test_nothing_calls_home(toolkit: MQTTToolkit) -> None:
    """All tests here run with this guard; this test shows that the guard works."""
    assert run(crew_that(toolkit, says_calls(("add", {"a": 2, "b": 3})), last_text)).raw == '{"sum": 5}'
    assert REFUSED == []
    with pytest.raises(ConnectionRefusedError, match="no other machine"):
        socket.create_connection(("192.0.2.1", 443), timeout=5)
    assert REFUSED == ["192.0.2.1"]
    REFUSED.clear()


def test_every_tool_of_the_namespace_is_there_under_a_name_of_its_own(toolkit: MQTTToolkit) -> None:
    tools = by_name(toolkit)
    assert set(tools) == {
        "add", "greet", "count", "fail", "hang", "echo", "get_forecast",
        model_name("getForecast", sanitize_tool_name), model_name("get forecast", sanitize_tool_name),
    }  # fmt: skip
    assert tools["add"].description == "Add two numbers."
    assert tools["add"].run(a=2, b=3) == '{"sum": 5}'
    assert tools["greet"].run("Ada") == "Hello Ada"
    assert {tools[name].run(name="Ada") for name in tools if name.startswith("get_")} == {"Hello Ada"}


def test_a_crew_calls_tools_and_reads_json(toolkit: MQTTToolkit) -> None:
    crew = crew_that(toolkit, says_calls(("add", {"a": 2, "b": 3})), last_text)
    assert run(crew).raw == '{"sum": 5}'


@pytest.mark.parametrize("way", ["kickoff_async", "akickoff"])
async def test_a_crew_calls_tools_in_an_event_loop(toolkit: MQTTToolkit, way: str) -> None:
    crew = crew_that(toolkit, says_calls(("add", {"a": 2, "b": 3})), last_text)
    assert (await getattr(crew, way)()).raw == '{"sum": 5}'


def test_a_model_without_function_calling_calls_tools_too(
    toolkit: MQTTToolkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedLLM, "supports_function_calling", lambda self: False)
    call = 'Thought: I greet\nAction: greet\nAction Input: {"name": "Ada"}'
    crew = crew_that(toolkit, call, lambda asked: f"Thought: done\nFinal Answer: {'Hello Ada' in str(asked)}")
    assert run(crew).raw == "True"


def test_the_model_is_told_the_whole_schema(toolkit: MQTTToolkit) -> None:
    [told], _, _ = convert_tools_to_openai_schema([by_name(toolkit)["echo"]])
    properties = told["function"]["parameters"]["properties"]
    assert set(properties) == set(ECHO["properties"])
    assert properties["must"] == {"type": "string", "description": "always given"}
    assert {"type": "null"} in properties["limit"]["anyOf"]  # strict function calling: null means left out
    assert properties["place"]["anyOf"][0]["properties"]["city"] == {"type": "string"}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"limit": None, "note": None, "day": None}, {"note": None}),
        ({"tags": [], "text": "", "place": {}}, {"tags": [], "text": "", "place": {}}),
        ({"day": date(2026, 3, 1)}, {"day": "2026-03-01"}),
        (
            {name: name for name in AWKWARD},
            {name: name for name in AWKWARD},
        ),
    ],
    ids=["nulls", "empty values", "dates", "awkward names"],
)
@pytest.mark.parametrize("way", ["run", "invoke"])
def test_what_is_sent_is_what_was_meant(
    toolkit: MQTTToolkit, toolbox: Toolbox, way: str, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    tool = by_name(toolkit)["echo"]
    arguments = {"must": "x", **given}
    result = tool.run(**arguments) if way == "run" else tool.to_structured_tool().invoke(arguments)
    assert not isinstance(result, ToolFailure), result
    assert toolbox.seen == [{"must": "x", **sent}]


def test_wrong_arguments_are_a_failure_that_names_the_place(toolkit: MQTTToolkit) -> None:
    failure = failure_of(by_name(toolkit)["add"].run(a=1, b="two"))
    assert (failure.code, failure.retryable, failure.reason) == ("invalid_arguments", False, "invalid_input")
    assert "argument 'b'" in failure.message
    assert failure_of(by_name(toolkit)["add"].run(a=1, b={1, 2}.__iter__)).code == "invalid_arguments"


@pytest.mark.parametrize("retryable", [True, False])
def test_a_tool_that_failed_tells_its_own_code(toolkit: MQTTToolkit, retryable: bool) -> None:
    failure = failure_of(by_name(toolkit)["fail"].run(retryable=retryable))
    assert (failure.code, failure.retryable) == ("E_LUCK", retryable)
    assert "no luck today" in failure.message


def test_no_answer_in_time_is_a_timeout_that_may_not_be_repeated(
    embedded: Embedded, namespace: str, toolbox: Toolbox
) -> None:
    with MQTTToolkit(embedded.url, namespace=namespace, tools=["hang"], timeout=0.3) as toolkit:
        failure = failure_of(toolkit.get_tools()[0].run())
    assert (failure.code, failure.retryable) == ("timeout", False)
    assert failure.details["call_id"]


def test_a_server_that_is_gone_is_offline_and_may_be_tried_again(toolkit: MQTTToolkit, toolbox: Toolbox) -> None:
    greet = by_name(toolkit)["greet"]
    toolbox.stop()
    failure = failure_of(greet.run(name="Ada"))
    assert (failure.code, failure.retryable) == ("offline", True)
    assert toolbox.counted == 0


def test_a_broker_that_forbids_the_tool_is_denied(make_mosquitto: Any, namespace: str) -> None:
    rules = f"""
user server
topic readwrite {namespace}/#
user guest
topic read {namespace}/#
topic write {namespace}/mcp/clients/#
"""
    broker: Mosquitto = make_mosquitto(
        ["password_file {folder}/users", "acl_file {folder}/rules"],
        anonymous=False,
        files={"users": password_line("server", "s") + password_line("guest", "g"), "rules": rules},
        credentials={"username": "server", "password": "s"},
    )
    server = ToolServer("safe", broker=broker.url, namespace=namespace, credentials=Password("server", "s"))
    server.add_tool("open", lambda: "opened", description="Open the safe")
    with server, MQTTToolkit(broker.url, namespace=namespace, credentials=Password("guest", "g")) as toolkit:
        failure = failure_of(by_name(toolkit)["open"].run())
    assert (failure.code, failure.retryable) == ("denied", False)


def test_a_crew_goes_on_after_a_failure_and_tells_of_it(toolkit: MQTTToolkit, toolbox: Toolbox) -> None:
    output = run(crew_that(toolkit, says_calls(("fail", {})), last_text))
    assert "no luck today" in output.raw
    assert [record.failure.code for record in output.tool_failures] == ["E_LUCK"]


def test_only_what_a_read_only_tool_answered_is_taken_from_the_cache(toolkit: MQTTToolkit, toolbox: Toolbox) -> None:
    calls = says_calls(("add", {"a": 1, "b": 1}), ("greet", {"name": "Ada"}))
    agent = Agent(role="r", goal="g", backstory="b", cache=True, llm=ScriptedLLM.of("x"), tools=toolkit.get_tools())
    agent.llm = ScriptedLLM.of(calls, calls, "done")
    task = Task(description="Work", expected_output="done", agent=agent)
    assert run(Crew(agents=[agent], tasks=[task], cache=True)).raw == "done"
    assert toolbox.counted == 3  # add once, greet twice
    add = by_name(toolkit)["add"]
    assert add.cache_function({}, '{"sum": 2}')
    assert not add.cache_function({}, ToolFailure(message="no"))
    assert not by_name(toolkit)["greet"].cache_function({}, "Hello")


def test_progress_is_an_event_on_the_bus(toolkit: MQTTToolkit) -> None:
    seen: list[RemoteToolPartialEvent] = []
    with crewai_event_bus.scoped_handlers():

        @crewai_event_bus.on(RemoteToolPartialEvent)
        def on_partial(source: Any, event: RemoteToolPartialEvent) -> None:
            seen.append(event)

        assert by_name(toolkit)["count"].run(to=3) == '{"counted": 3}'
        crewai_event_bus.flush()
    assert {event.tool_name for event in seen} == {"count"}
    assert sorted(event.partial["progress"] for event in seen) == [1, 2, 3]


def test_content_blocks_are_text_and_what_is_no_text_is_named(embedded: Embedded, namespace: str) -> None:
    png = "iVBORw0KGgo="
    blocks = [{"type": "text", "text": "a chart:"}, {"type": "image", "data": png, "mimeType": "image/png"}]
    server = ToolServer("charts", broker=embedded.url, namespace=namespace)
    server.add_tool("beside", lambda: ToolResult({"points": 2}, blocks))
    server.add_tool("inside", lambda: {"content": blocks})
    server.add_tool("failed", lambda: {"content": [{"type": "text", "text": "no data"}], "isError": True})
    server.add_tool("records", lambda: {"content": [{"type": "invoice", "total": 3}]})
    with server, MQTTToolkit(embedded.url, namespace=namespace) as toolkit:
        tools = by_name(toolkit)
        assert tools["beside"].run() == tools["inside"].run() == "a chart:\n[image: image/png]"
        failure = failure_of(tools["failed"].run())
        assert (failure.message, failure.reason) == ("no data", "mcp_error")
        assert json.loads(tools["records"].run()) == {"content": [{"type": "invoice", "total": 3}]}


def test_a_result_schema_shapes_what_the_model_reads(embedded: Embedded, namespace: str, toolbox: Toolbox) -> None:
    class Sum(BaseModel):
        sum: int

    with MQTTToolkit(embedded.url, namespace=namespace, tools=["add"], result_schemas={"add": Sum}) as toolkit:
        [add] = toolkit.get_tools()
        result = add.run(a=1, b=2)
        assert result == {"sum": 3}
        assert json.loads(add.format_output_for_agent(result)) == {"sum": 3}


def test_all_threads_share_one_connection(toolkit: MQTTToolkit) -> None:
    add = by_name(toolkit)["add"]
    together = threading.Barrier(6)

    def work(number: int) -> list[Any]:
        together.wait(10)
        return [add.run(a=number, b=n) for n in range(5)]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(work, range(6), timeout=30))
    assert answers == [[f'{{"sum": {number + n}}}' for n in range(5)] for number in range(6)]
    assert toolkit.connection.epoch == 1


def test_it_connects_on_first_use(namespace: str, url_of_nobody: str) -> None:
    with MQTTToolkit(url_of_nobody, namespace=namespace) as toolkit:
        with pytest.raises(BrokerUnreachable, match=url_of_nobody):
            toolkit.get_tools()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"tools": ["gr*", "add"]}, {"greet", "add"}),
        ({"exclude": ["get*", "[ac]*"]}, {"greet", "fail", "hang", "echo"}),
        ({"servers": ["elsewhere"]}, set()),
        ({"where": lambda card: card.read_only}, {"add"}),
    ],
    ids=["patterns", "exclude", "servers", "where"],
)
def test_tools_are_chosen_by_pattern_server_and_function(
    embedded: Embedded, namespace: str, toolbox: Toolbox, wanted: dict[str, Any], names: set[str]
) -> None:
    with MQTTToolkit(embedded.url, namespace=namespace, **wanted) as toolkit:
        assert set(by_name(toolkit)) == names


def test_only_the_wanted_tools_are_taken(
    embedded: Embedded, namespace: str, toolbox: Toolbox, caplog: pytest.LogCaptureFixture
) -> None:
    with MQTTToolkit(embedded.url, namespace=namespace, tools=["greet", "ghost"]) as toolkit:
        assert [tool.name for tool in toolkit.get_tools()] == ["greet"]
    assert "ghost" in caplog.text
    with MQTTToolkit(embedded.url, namespace=namespace, tools=["ghost"], on_unavailable="raise") as toolkit:
        with pytest.raises(ToolUnavailable, match="ghost"):
            toolkit.get_tools()


def test_a_tool_that_asks_gets_the_answer_of_on_question(embedded: Embedded, namespace: str) -> None:
    server, asked = ToolServer("travel", broker=embedded.url, namespace=namespace), list[Any]()

    def book(day: str, ctx: SyncToolContext) -> str:
        return f"{day}: {ctx.ask('Where to?')}"

    def answer(question: str, schema: Any) -> str:
        asked.append((question, schema))
        return "Oslo"

    server.add_tool("book", book)
    with server:
        with MQTTToolkit(embedded.url, namespace=namespace, tools=["book"], on_question=answer) as toolkit:
            [tool] = toolkit.get_tools()
            assert tool.run(day="today") == "today: Oslo"
            assert asked == [("Where to?", {"type": "string"})]
        with MQTTToolkit(embedded.url, namespace=namespace, tools=["book"]) as toolkit:
            [tool] = toolkit.get_tools()
            assert "on_question=" in failure_of(tool.run(day="today")).message
