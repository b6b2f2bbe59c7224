"""An agent that calls a remote tool once: calling_graph.py URL NAMESPACE FOLDER start|hang|resume.

With `hang`, the program waits after the call, before LangGraph has stored the result.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import wrap_tool_call
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_mqtt_agent import MQTTToolkit
from langgraph.checkpoint.sqlite import SqliteSaver

url, namespace, folder, what = sys.argv[1:5]


class Model(BaseChatModel):
    """Calls the tool `work` once, and then repeats the answer."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        last = messages[-1]
        call = {"name": "work", "args": {"n": 7}, "id": "call-0"}
        message = AIMessage(last.text) if isinstance(last, ToolMessage) else AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=message)])


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


@wrap_tool_call
def wait_after_the_call(request: Any, handler: Any) -> Any:
    message = handler(request)
    if what == "hang":
        (Path(folder) / "answered").touch()
        threading.Event().wait()
    return message


threading.Thread(target=die_with_parent, daemon=True).start()
saver = SqliteSaver.from_conn_string(str(Path(folder) / "checkpoints.db"))
with MQTTToolkit(broker=url, namespace=namespace, agent_id="caller", tools=["work"]) as toolkit, saver as checkpointer:
    while not (tools := toolkit.get_online_tools()):
        time.sleep(0.01)
    agent: Any = create_agent(Model(), tools, middleware=[wait_after_the_call], checkpointer=checkpointer)
    given: Any = None if what == "resume" else {"messages": [("user", "go")]}
    state = agent.invoke(given, {"configurable": {"thread_id": "thread"}}, durability="sync")
artifact = [message.artifact for message in state["messages"] if isinstance(message, ToolMessage)][-1]
print(json.dumps({"text": state["messages"][-1].text, "call_id": artifact["call_id"]}))
