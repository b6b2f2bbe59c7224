"""``mqtt-agent serve`` with crews."""

from __future__ import annotations

import pytest
from cli.terminal import Terminal

from ..documented import program

pytestmark = pytest.mark.timeout(240)
MODEL = 'llm=__import__("tests.integrations.crewai.models", fromlist=["x"]).ScriptedLLM.of("tea is cheap")'


@pytest.fixture(autouse=True)
def modules(terminal: Terminal) -> None:
    terminal.write(
        "my_crew.py", program("crewai.md", "my_crew.py", 'llm="openai/gpt-5"', MODEL) + "\ncrew = build_crew()\n"
    )


@pytest.mark.parametrize("target", ["my_crew:build_crew", pytest.param("my_crew:crew", marks=pytest.mark.long)])
def test_a_crew_and_a_function_that_makes_one_are_served(terminal: Terminal, target: str) -> None:
    terminal.start("serve", target, "--as", "analyst", "--description", "Analyzes.", "--store", "tasks.db").says(
        "analyst", 200
    )  # CrewAI takes long to import
    assert (terminal.home / "tasks.db").exists()
    assert terminal.run("agents", "--json").lines[0]["description"] == "Analyzes."
    assert terminal.run("delegate", "analyst", "The price of tea").out == "tea is cheap\n"
