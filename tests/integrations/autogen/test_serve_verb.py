"""``mqtt-agent serve`` with functions that make agents and teams of AutoGen."""

from __future__ import annotations

import pytest
from cli.terminal import Terminal

from ..documented import program

REAL = 'OpenAIChatCompletionClient(model="gpt-5")'
MODEL = '__import__("tests.integrations.autogen.models", fromlist=["x"]).says("rain falls")'
MORE = """
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat

def make_team(conversation: str) -> RoundRobinGroupChat:
    return RoundRobinGroupChat([make_writer(conversation)], termination_condition=MaxMessageTermination(2))

ready = make_writer("c")
"""


@pytest.fixture(autouse=True)
def modules(terminal: Terminal) -> None:
    code = program("autogen.md", "my_agents.py", REAL, MODEL)
    terminal.write(
        "my_agents.py", code.replace("from autogen_ext.models.openai import OpenAIChatCompletionClient\n", "") + MORE
    )


@pytest.mark.parametrize("factory", [pytest.param("make_writer", marks=pytest.mark.long), "make_team"])
def test_a_factory_of_agents_and_of_teams_is_served(terminal: Terminal, factory: str) -> None:
    terminal.start("serve", f"my_agents:{factory}", "--as", "writer", "--description", "Writes.").says("writer")
    assert terminal.run("agents", "--json").lines[0]["description"] == "Writes."
    assert "rain falls" in terminal.run("delegate", "writer", "Write a haiku about rain").out


def test_an_agent_in_place_of_a_factory_is_refused(terminal: Terminal) -> None:
    said = terminal.run("serve", "my_agents:ready", code=2).err
    assert "give a function that makes a AssistantAgent for each conversation" in said
