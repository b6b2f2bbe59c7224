"""The examples of docs/crewai.md and of the README, run word for word."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crewai.agent.core
import pytest
from brokers import Embedded
from crewai.events.event_bus import crewai_event_bus
from mqtt_agent import Agent
from mqtt_agent.sync import ToolServer
from support import soon

from .models import ScriptedLLM, last_text

ROOT = Path(__file__).parents[3]
DOCS = ["docs/crewai.md", "integrations/crewai/README.md"]


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def the_example(page: str, holds: str, broker: Embedded) -> str:
    """The example, with only the broker's URL changed."""
    [example] = [each for each in examples(page) if holds in each]
    return example.replace("mqtt://localhost:1883", broker.url)


def uses_tools(messages: list[dict[str, Any]]) -> Any:
    """Calls the forecast tool if it can, and otherwise repeats its input."""
    text = "\n".join(str(each.get("content")) for each in messages)
    if "Oslo" in text and messages[-1]["role"] != "tool":
        return [{"id": "1", "type": "function", "function": {"name": "forecast", "arguments": '{"city": "Oslo"}'}}]
    if "in common" in text and "Fibonacci" not in text:
        return "They are Fibonacci numbers."
    return last_text(messages) if messages[-1]["role"] == "tool" else f"Report: {'Fibonacci' in text}"


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(llm: Any) -> Any:
        return ScriptedLLM.of(uses_tools) if llm == "openai/gpt-5" else llm

    monkeypatch.setattr(crewai.agent.core, "create_llm", create)


@pytest.fixture
def weather(embedded: Embedded) -> Iterator[None]:
    server = ToolServer("weather", broker=embedded.url)
    server.add_tool("forecast", lambda city: f"21 degrees in {city}", input_schema=CITY, description="Forecast")
    with server:
        yield


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize("page", ["docs/crewai.md", "README.md"])
def test_the_tools(
    page: str,
    weather: None,
    embedded: Embedded,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MQTT_AGENT_BROKER", embedded.url)
    exec(the_example(page, "crewai_mqtt_agent import MQTTToolkit\n", embedded), {})
    assert "21 degrees in Oslo" in capsys.readouterr().out


@pytest.mark.parametrize("page", DOCS)
async def test_the_served_crew_and_its_remote_member(
    page: str,
    weather: None,
    embedded: Embedded,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served: list[Agent] = []
    monkeypatch.setattr(Agent, "run", lambda self: served.append(self))  # the real run() would block for ever
    await asyncio.to_thread(exec, the_example("docs/crewai.md", "serve_crew", embedded), {})
    [analyst] = served
    async with analyst:
        assert analyst.card.capabilities == ["analysis"]
        with crewai_event_bus.scoped_handlers():
            exec(the_example("docs/crewai.md", "RemoteTaskProgressEvent", embedded), {})
            program = the_example(page, "MQTTAgent(", embedded)
            await soon(asyncio.to_thread(exec, program, {}), 60)
            crewai_event_bus.flush()
    out = capsys.readouterr().out
    assert "Report: True" in out
    assert "analyst task: verdict" in out


def test_every_example_is_run_by_a_test() -> None:
    # One of the examples of docs/crewai.md runs in test_serve_verb.py.
    assert [len(examples(page)) for page in DOCS] == [5, 1]
