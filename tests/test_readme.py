"""The examples of the READMEs, run word for word."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import langchain.agents.factory
import pytest
from autogen_core.models import ChatCompletionClient
from brokers import Embedded, free_port
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from mqtt_agent.sync import ToolClient

from tests.cli.terminal import Terminal
from tests.integrations.autogen.models import calls, says
from tests.integrations.langchain.models import ScriptedModel

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def examples(readme: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text(), re.DOTALL)


def the_example(readme: str, holds: str) -> str:
    [example] = [example for example in examples(readme) if holds in example]
    return example


class Served(NamedTuple):
    readme: str
    broker: Embedded


class ShowsForecast(ScriptedModel):
    """A model that calls the forecast tool, and answers with the tool's result."""

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        if isinstance(messages[-1], ToolMessage):
            answer = AIMessage(f"Yes: {messages[-1].text}")
        else:
            call = {"name": "forecast", "args": {"city": "Oslo"}, "id": "call-1"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


@pytest.fixture(scope="module", params=["README.md", "core/README.md"])
def weather_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server example of a README, which runs in a process beside a broker of its own."""
    with Embedded() as broker, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MQTT_AGENT_BROKER", broker.url)
        program = tmp_path_factory.mktemp("server") / "weather_server.py"
        program.write_text(localised(the_example(request.param, "async def forecast"), broker))
        process = subprocess.Popen([sys.executable, str(program)], env=dict(os.environ))
        with ToolClient() as client:
            client.call("forecast", {"city": "Oslo"}, wait_online=True, timeout=60)
        yield Served(request.param, broker)
        process.terminate()
        assert process.wait(20) == 0


def localised(example: str, broker: Embedded) -> str:
    """The example, with only the broker's URL changed."""
    return example.replace("mqtt://localhost:1883", broker.url)


def test_the_tool_server_and_the_plain_client(weather_server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    exec(localised(the_example(weather_server.readme, "as client:"), weather_server.broker), {})
    assert "'city': 'Oslo'" in capsys.readouterr().out


@pytest.mark.parametrize("readme", ["README.md", "integrations/langchain/README.md"])
@pytest.mark.parametrize("weather_server", ["README.md"], indirect=True)
def test_the_langchain_agent(
    readme: str,
    weather_server: Served,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_for: list[str] = []

    def init_chat_model(name: str) -> ShowsForecast:
        asked_for.append(name)
        return ShowsForecast(responses=[AIMessage("")])

    monkeypatch.setattr(langchain.agents.factory, "init_chat_model", init_chat_model)
    exec(localised(the_example(readme, "create_agent"), weather_server.broker), {})
    assert asked_for == ["openai:gpt-5"]
    assert '"city": "Oslo"' in capsys.readouterr().out


@pytest.mark.parametrize("weather_server", ["README.md"], indirect=True)
def test_the_autogen_agent(
    weather_server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked_for: list[str] = []

    def make(model: str) -> ChatCompletionClient:
        asked_for.append(model)
        return says(calls(("forecast", {"city": "Oslo"})))

    module = ModuleType("autogen_ext.models.openai")
    module.OpenAIChatCompletionClient = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    made: dict[str, Any] = {}
    exec(the_example("README.md", "MQTTWorkbench"), made)
    asyncio.run(made["workbench"].stop())
    assert asked_for == ["gpt-5"]
    assert '"city": "Oslo"' in capsys.readouterr().out


def write_programs(terminal: Terminal) -> None:
    """Save the programs as a reader does, by the names in their first lines."""
    for example in examples("README.md"):
        if named := re.match(r"# (\w+\.py)", example):
            terminal.write(named[1], example)


def commands(heading: str) -> list[list[str]]:
    """The words of each command in a section, without the comments."""
    section = re.split(r"^##+ ", README, flags=re.MULTILINE)
    [text] = [each for each in section if each.startswith(heading + "\n")]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


@pytest.fixture
def terminal(embedded: Embedded, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, embedded.url, "a2a/v1")
    write_programs(terminal)
    yield terminal
    terminal.close()


def test_the_first_steps_as_a_person_types_them(terminal: Terminal) -> None:
    make_venv, activate, pip, broker, *uses = commands("First steps")
    assert (make_venv[1:3], activate[0], pip[:2]) == (["-m", "venv"], ".", ["pip", "install"])
    port = str(free_port())
    terminal.environment["MQTT_AGENT_BROKER"] = f"mqtt://127.0.0.1:{port}"
    assert "token=" in terminal.start(*broker[1:], "--port", port).says("the console is at")
    server, traveller = terminal.program("weather_server.py"), terminal.program("traveller.py")
    server.says("serves forecast")
    traveller.says("takes tasks")
    assert [words[1] for words in uses] == ["tools", "call", "delegate", "doctor"]
    said = [terminal.run(*words[1:]).out for words in uses[:3]]  # tests/cli/test_doctor.py runs the doctor
    assert "Weather forecast for a city." in said[0]
    assert json.loads(said[1]) == {"city": "Oslo", "celsius": [21, 21]}
    assert said[2] == "a T-shirt\n"
    serve, call = commands("Functions that you already have")
    terminal.start(*serve[1:]).says("serves price")
    assert terminal.run(*call[1:]).out == "2.5\n"


def test_a_long_task_is_killed_on_both_sides_and_is_completed(terminal: Terminal) -> None:
    slow = the_example("README.md", "asyncio.sleep(2)")
    terminal.write("researcher.py", slow.replace("asyncio.sleep(2)", "asyncio.sleep(0.5)"))
    researcher, planner = terminal.program("researcher.py"), terminal.program("planner.py")
    shown = planner.says("chapter 1 ")
    planner.kill()
    researcher.kill()
    [command] = re.findall(r"if this program ends: python (.+)", shown)
    terminal.program("researcher.py").says("takes tasks")
    resumed = terminal.program(*command.split())
    assert resumed.ends() == 0
    result = ast.literal_eval(resumed.output.splitlines()[-1])
    assert result == {"chapters": [f"MQTT, chapter {number}" for number in range(5)], "attempts": 2}


@pytest.mark.long
async def test_an_mcp_server_is_offered_and_an_mcp_client_sees_all_tools(terminal: Terminal) -> None:
    pytest.importorskip("mcp_mqtt_agent")
    from mcp import Client, StdioServerParameters

    _, bridge, call = commands("MCP")
    bridge = [sys.executable if word == "python" else word for word in bridge]
    terminal.start(*bridge[1:]).says("clock serves 1 tool;")
    assert re.match(r'\{\s+"result": "20', terminal.run(*call[1:]).out)
    [entry] = json.loads(re.findall(r"```json\n(.*?)```", README, re.DOTALL)[0])["mcpServers"].values()
    assert entry["command"] == "mqtt-agent"
    words = [terminal.environment["MQTT_AGENT_BROKER"] if "localhost" in each else each for each in entry["args"]]
    server = StdioServerParameters(command=sys.executable, args=["-m", "mqtt_agent.cli", *words])
    async with Client(server) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
    assert len(names) == 1
    assert "now" in names[0]


def test_the_distributions_that_pip_installs_are_in_the_clone() -> None:
    for words in re.findall(r"^pip install (.+)$", README, re.MULTILINE):
        for name in shlex.split(words):
            if name.startswith("./"):
                folder, _, extras = name.rstrip("]").partition("[")
                project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
                assert set(filter(None, extras.split(","))) <= project.get("optional-dependencies", {}).keys()


def test_the_quickstart_has_the_same_programs() -> None:
    quickstart = (ROOT / "docs/quickstart.md").read_text()
    for file in ("weather_server.py", "traveller.py", "researcher.py", "planner.py"):
        assert f"```python\n{the_example('README.md', f'# {file}')}```" in quickstart
    for words in commands("First steps")[:4]:
        assert words[-1] in quickstart


def test_the_embedded_broker(capsys: pytest.CaptureFixture[str]) -> None:
    exec(the_example("README.md", "with EmbeddedBroker() as broker"), {})
    assert "a broker at mqtt://127.0.0.1:" in capsys.readouterr().out


def test_the_commands_exist_and_the_links_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", readme, re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
    for link in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_each_notebook_is_named() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in readme


def test_every_python_example_is_run_by_a_test() -> None:
    assert len(examples("README.md")) == 11  # CrewAI's is tested in tests/integrations/crewai/test_docs.py
    assert len(examples("core/README.md")) == 2
    assert len(examples("integrations/langchain/README.md")) == 1
