"""``mqtt-agent serve`` with graphs, chains and tools of LangChain."""

from __future__ import annotations

import pytest
from cli.terminal import Terminal

from ..documented import program

MODEL = """__import__("tests.integrations.langchain.models", fromlist=["x"]).ScriptedModel(
    responses=[__import__("langchain_core.messages", fromlist=["x"]).AIMessage("Bonjour")]
)"""
FACTORIES = """
from langchain_core.tools import BaseTool
from langgraph.graph.state import CompiledStateGraph
import planner

def make_graph() -> CompiledStateGraph:
    return planner.graph

def make_tools() -> list[BaseTool]:
    return [planner.forecast]

async def too_late() -> CompiledStateGraph:
    return planner.graph
"""


@pytest.fixture(autouse=True)
def modules(terminal: Terminal) -> None:
    terminal.write("planner.py", program("langchain.md", "planner.py", 'init_chat_model("openai:gpt-5")', MODEL))
    terminal.write("factories.py", FACTORIES)


@pytest.mark.long
@pytest.mark.parametrize("target", ["planner:graph", "planner:chain", "factories:make_graph"])
def test_a_graph_and_a_chain_are_served_as_agents(terminal: Terminal, target: str) -> None:
    terminal.start("serve", target, "--as", "planner", "--description", "Plans trips.").says("planner")
    assert terminal.run("agents", "--json").lines[0]["description"] == "Plans trips."
    assert terminal.run("delegate", "planner", "Good morning").out == "Bonjour\n"


@pytest.mark.parametrize("target", [pytest.param("planner:forecast", marks=pytest.mark.long), "factories:make_tools"])
def test_tools_are_served_as_a_tool_server(terminal: Terminal, target: str) -> None:
    terminal.start("serve", target, "--server", "weather").says("forecast")
    assert terminal.run("servers", "--json").lines[0]["name"] == "weather"
    assert terminal.run("call", "forecast", "city=Oslo").out == "sunny in Oslo\n"


def test_tools_keep_no_tasks_so_a_store_is_refused(terminal: Terminal) -> None:
    said = terminal.run("serve", "planner:forecast", "--store", "tasks.db", code=2).err
    assert "--store does not apply to planner:forecast" in said


def test_an_async_factory_is_refused(terminal: Terminal) -> None:
    assert "give a plain function" in terminal.run("serve", "factories:too_late", code=2).err
