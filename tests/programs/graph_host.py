"""A graph that delegates one long task: graph_host.py URL NAMESPACE FOLDER start|resume [DURABILITY|none]."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from langchain_mqtt_agent import MQTTRemoteAgent
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph

url, namespace, folder, what = sys.argv[1:5]
durability: Any = sys.argv[5] if len(sys.argv) > 5 else "sync"


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


def after(state: MessagesState) -> Any:
    return {"messages": [("user", f"seen: {state['messages'][-1].text}")]}


threading.Thread(target=die_with_parent, daemon=True).start()
remote = MQTTRemoteAgent(
    "worker", broker=url, namespace=namespace, agent_id="planner", store=Path(folder) / "planner.db", wait_online=True
)
builder = StateGraph(MessagesState)
builder.add_node("work", remote)
builder.add_node("after", after)
builder.add_edge(START, "work")
builder.add_edge("work", "after")
with remote, SqliteSaver.from_conn_string(str(Path(folder) / "checkpoints.db")) as saver:
    graph: Any = builder.compile(checkpointer=None if durability == "none" else saver)
    given: Any = {"messages": [("user", "a long task")]} if what == "start" else None
    config: Any = {"configurable": {"thread_id": "thread"}}
    options: Any = {} if durability == "none" else {"durability": durability}
    state = graph.invoke(given, config, **options)
print(json.dumps([message.text for message in state["messages"]]))
