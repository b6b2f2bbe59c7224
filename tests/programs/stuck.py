"""Serves something whose code blocks until the file FOLDER/open exists: stuck.py WHAT URL NAMESPACE FOLDER.

Each run of the code appends a line to FOLDER/runs. A line follows when the serving function has returned.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

what, url, namespace, folder = sys.argv[1:5]
FOLDER = Path(folder)
where: Any = {"broker": url, "namespace": namespace, "drain_timeout": 1}
agent: Any = {**where, "agent_id": "host", "store": FOLDER / "host.db"}


def note(line: str) -> None:
    with (FOLDER / "runs").open("a") as runs:
        runs.write(f"{line}\n")


def block() -> str:
    note("run")
    while not (FOLDER / "open").exists():
        time.sleep(0.02)  # the test opens the gate by making a file
    return "done"


def serve_plain_tool() -> None:
    from mqtt_agent import ToolServer

    server = ToolServer("toolbox", **where)
    server.add_tool("block", block, description="Blocks")
    server.run()


def serve_plain_task() -> None:
    from mqtt_agent import Agent

    options = dict(agent)
    serving = Agent(options.pop("agent_id"), **options)
    serving.on_task(lambda task: block())
    serving.run()


def serve_langchain_tool() -> None:
    from langchain_core.tools import StructuredTool
    from langchain_mqtt_agent import serve_tools

    serve_tools([StructuredTool.from_function(block, description="Blocks")], server="toolbox", **where)


def serve_graph_of(checkpointer: Any) -> None:
    from langchain_core.messages import AIMessage
    from langchain_mqtt_agent import serve_graph
    from langgraph.graph import START, MessagesState, StateGraph

    def node(state: MessagesState) -> Any:
        return {"messages": [AIMessage(block())]}

    graph = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile(checkpointer)
    serve_graph(graph, **agent)


def serve_graph() -> None:
    serve_graph_of(None)


def serve_blocking_graph() -> None:
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(FOLDER / "checkpoints.db")) as saver:
        serve_graph_of(saver)


def serve_autogen() -> None:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.tools import FunctionTool
    from autogen_mqtt_agent import serve_agent
    from integrations.autogen.models import Thinks, calls

    def make(conversation: str) -> AssistantAgent:
        tools: Any = [FunctionTool(block, "Blocks", name="block")]
        return AssistantAgent("host", Thinks([calls(("block", {}))]), tools=tools)

    serve_agent(make, **agent)


{name.removeprefix("serve_"): value for name, value in list(globals().items()) if name.startswith("serve_")}[what]()
note("stopped")
