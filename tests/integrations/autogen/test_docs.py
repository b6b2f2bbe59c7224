"""The examples of docs/autogen.md and the adapter's README, run word for word, and examples/group_chat.py."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from brokers import Embedded
from mqtt_agent.sync import Agent, ToolServer

from tests.test_readme import ROOT, examples, localised, the_example

from .models import calls, says
from .processes import Program

DOCS = "docs/autogen.md"
FAKE_OPENAI = """
import sys, types
from tests.integrations.autogen.models import says
sys.modules["autogen_ext.models.openai"] = module = types.ModuleType("autogen_ext.models.openai")
module.OpenAIChatCompletionClient = lambda model: says("Brokers keep their word")
"""


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def fake_model(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> list[str]:
    """Replace the language model, the only part that is not real; returns the names of the requested models."""
    asked: list[str] = []

    def make(model: str) -> Any:
        asked.append(model)
        return says(*answers)

    module = ModuleType("autogen_ext.models.openai")
    module.OpenAIChatCompletionClient = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return asked


def run(example: str, broker: Embedded) -> dict[str, Any]:
    """The names that the example has defined when it ends."""
    scope: dict[str, Any] = {"__name__": "example"}
    exec(localised(example, broker), scope)
    return scope


def test_the_two_ends_of_a_group_chat(
    embedded: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "writer_host.py"
    program.write_text(FAKE_OPENAI + localised(the_example(DOCS, "# writer_host.py"), embedded))
    asked = fake_model(monkeypatch, "Five, seven, five")
    with Program(str(program)):
        asyncio.run(run(the_example(DOCS, "# team.py"), embedded)["writer"].close())
    told = capsys.readouterr().out
    assert re.search(r"\(planner\).*Five, seven, five.*\(writer\).*Brokers keep their word", told, re.DOTALL)
    assert asked == ["gpt-5"]


def test_the_readme_of_the_adapter(embedded: Embedded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = [Agent(name, broker=embedded.url, store=tmp_path / name) for name in ("planner", "writer")]
    for host in hosts:
        host.on_task(lambda task: f"{task.prompt}!")
        host.start()
    [example] = examples("integrations/autogen/README.md")
    for participant in run(example, embedded)["team"]._participants:
        asyncio.run(participant.close())
    for host in hosts:
        host.stop()
    assert "user: Write a haiku about brokers.!" in capsys.readouterr().out


def test_the_workbench(embedded: Embedded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_model(monkeypatch, calls(("forecast", {"city": "Oslo"})))
    server = ToolServer("weather", broker=embedded.url)
    server.add_tool("forecast", lambda city: f"21 degrees in {city}", input_schema={"type": "object"})
    with server:
        asyncio.run(run(the_example(DOCS, "workbench=workbench"), embedded)["workbench"].stop())
    assert "21 degrees" in capsys.readouterr().out


def test_every_example_is_run_by_a_test() -> None:
    # The two examples about saving and resuming run in test_restart.py, in two processes. The example my_agents.py runs
    # in test_serve_verb.py.
    assert len(examples(DOCS)) == 6
    assert len(examples("integrations/autogen/README.md")) == 1


def test_what_the_document_names_exists() -> None:
    text = (ROOT / DOCS).read_text()
    folder = Path(__file__).parent
    defined = {name for path in folder.glob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    for name in re.findall(r"`(test_\w+)`", text):
        assert name in defined, name
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / "docs" / link).exists(), link


def test_the_example_with_accidents() -> None:
    command = [sys.executable, str(ROOT / "examples" / "group_chat.py"), "--cut-off", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=dict(os.environ), check=True)
    said = [line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line and "[" not in line]
    assert [(who.strip(), what) for who, what in said] == [
        ("user", "Write a sentence about an animal."),
        ("planner", "Let us write about octopuses."),
        ("researcher", "It has eight arms."),
        ("writer", "An octopus has eight arms."),
        ("critic", "Are you sure?"),
        ("planner", "Let us check that."),
        ("researcher", "Yes, all eight."),
        ("writer", "An octopus has eight arms, we checked."),
        ("critic", "Then print it."),
    ]
    assert "is killed" in done.stdout
    assert "is frozen" in done.stdout
