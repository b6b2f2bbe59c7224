"""The examples of the READMEs, run word for word."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import langchain.agents.factory
import pytest
from autogen_core.models import ChatCompletionClient
from brokers import Embedded
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from mqtt_agent.sync import ToolClient

from tests.integrations.autogen.models import calls, says
from tests.integrations.langchain.models import ScriptedModel

ROOT = Path(__file__).parents[1]


def examples(readme: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text(), re.DOTALL)


def the_example(readme: str, holds: str) -> str:
    [example] = [example for example in examples(readme) if holds in example]
    return example


class ShowsForecast(ScriptedModel):
    """A model that calls the forecast tool, and answers with the tool's result."""

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        if isinstance(messages[-1], ToolMessage):
            answer = AIMessage(f"Yes: {messages[-1].text}")
        else:
            call = {"name": "forecast", "args": {"city": "Oslo"}, "id": "call-1"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


@pytest.fixture(params=["README.md", "core/README.md"])
def weather_server(
    request: pytest.FixtureRequest, embedded: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Run the server example in a process; returns the README that contains the example."""
    monkeypatch.setenv("MQTT_AGENT_BROKER", embedded.url)
    program = tmp_path / "weather_server.py"
    program.write_text(localised(the_example(request.param, "server.run()"), embedded))
    process = subprocess.Popen([sys.executable, str(program)], env=dict(os.environ))
    with ToolClient() as client:
        client.call("forecast", {"city": "Oslo"}, wait_online=True, timeout=20)
    yield request.param
    process.terminate()
    assert process.wait(20) == 0


def localised(example: str, broker: Embedded) -> str:
    """The example, with only the broker's URL changed."""
    return example.replace("mqtt://localhost:1883", broker.url)


def test_the_tool_server_and_the_plain_client(
    weather_server: str, embedded: Embedded, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(localised(the_example(weather_server, "sync import ToolClient"), embedded), {})
    assert "'city': 'Oslo'" in capsys.readouterr().out


@pytest.mark.parametrize("readme", ["README.md", "integrations/langchain/README.md"])
@pytest.mark.parametrize("weather_server", ["README.md"], indirect=True)
def test_the_langchain_agent(
    readme: str,
    weather_server: str,
    embedded: Embedded,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_for: list[str] = []

    def init_chat_model(name: str) -> ShowsForecast:
        asked_for.append(name)
        return ShowsForecast(responses=[AIMessage("")])

    monkeypatch.setattr(langchain.agents.factory, "init_chat_model", init_chat_model)
    exec(localised(the_example(readme, "create_agent"), embedded), {})
    assert asked_for == ["openai:gpt-5"]
    assert '"city": "Oslo"' in capsys.readouterr().out


@pytest.mark.parametrize("weather_server", ["README.md"], indirect=True)
def test_the_autogen_agent(
    weather_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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


def test_the_agents(embedded: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_AGENT_BROKER", embedded.url)
    for name, holds in (("researcher.py", "agent.run()"), ("planner.py", "planner.delegate")):
        (tmp_path / name).write_text(the_example("README.md", holds))
    process = subprocess.Popen([sys.executable, "researcher.py"], cwd=tmp_path, env=dict(os.environ))
    try:
        planner = subprocess.run(
            [sys.executable, "planner.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
    finally:
        process.terminate()
        assert process.wait(20) == 0
    lines = planner.stdout.splitlines()
    assert "researcher: completed [####################] 100%" in lines[-2]
    assert lines[-1] == str({"chapters": [f"MQTT, chapter {number}" for number in range(3)]})


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
    assert len(examples("README.md")) == 8  # CrewAI's is tested in tests/integrations/crewai/test_docs.py
    assert len(examples("core/README.md")) == 2
    assert len(examples("integrations/langchain/README.md")) == 1
