"""``mqtt-agent serve`` with crews."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Embedded

from ...cli.terminal import Terminal

ROOT = Path(__file__).parents[3]


@pytest.fixture
def terminal(embedded: Embedded, namespace: str, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, embedded.url, namespace)
    terminal.environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'tests'}"
    yield terminal
    terminal.close()


def program(file: str, instead: str, model: str) -> str:
    """The program of the documentation, with a scripted model in place of the real one."""
    text = (ROOT / "docs" / "crewai.md").read_text()
    [code] = re.findall(rf"```python\n# {file}\n(.*?)```", text, re.DOTALL)
    assert instead in code
    return code.replace(instead, model)


pytestmark = pytest.mark.timeout(240)
MODEL = 'llm=__import__("tests.integrations.crewai.models", fromlist=["x"]).ScriptedLLM.of("tea is cheap")'


@pytest.fixture(autouse=True)
def modules(terminal: Terminal) -> None:
    terminal.write("my_crew.py", program("my_crew.py", 'llm="openai/gpt-5"', MODEL) + "\ncrew = build_crew()\n")


@pytest.mark.parametrize("target", ["my_crew:build_crew", "my_crew:crew"])
def test_a_crew_and_a_function_that_makes_one_are_served(terminal: Terminal, target: str) -> None:
    terminal.start("serve", target, "--as", "analyst", "--description", "Analyzes.").says(
        "analyst", 200
    )  # CrewAI takes long to import
    assert terminal.run("agents", "--json").lines[0]["description"] == "Analyzes."
    assert terminal.run("delegate", "analyst", "The price of tea").out == "tea is cheap\n"
