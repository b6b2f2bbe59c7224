"""LangChain and AutoGen with ``bound="require"`` and exactly the generated rights: everything works."""

from __future__ import annotations

from typing import Any

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_mqtt_agent import AgentHost, MQTTAgent, MQTTWorkbench
from langchain_core.messages import AIMessage
from langchain_mqtt_agent import MQTTRemoteAgent, MQTTToolkit, graph_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from mqtt_agent import MemoryStore, ToolServer
from support import soon

from .framework import System, system

__all__ = ["system"]


def toolbox(system: System) -> ToolServer:
    made = ToolServer("toolbox", replica="1", **system.of("toolbox"))

    @made.tool(read_only=True)
    async def add(a: int, b: int) -> int:
        return a + b

    return made


async def test_a_graph_calls_tools_and_talks_with_a_graph_elsewhere(system: System) -> None:
    toolkit = MQTTToolkit(**system.of("hands", agent_id=True))
    graph = StateGraph(MessagesState)

    async def talk(state: MessagesState) -> Any:
        [tool] = await toolkit.aget_tools()
        return {"messages": [AIMessage(await tool.ainvoke({"a": len(state["messages"]), "b": 40}))]}

    graph.add_node("talk", talk)
    graph.add_edge(START, "talk")
    host = graph_agent(graph, "host", store=MemoryStore(), **system.of("host"))
    store = MemoryStore()
    remote = MQTTRemoteAgent("host", store=store, **system.of("planner", agent_id=True))
    caller = StateGraph(MessagesState).add_node("ask", remote).add_edge(START, "ask")
    asking: Any = caller.compile(checkpointer=InMemorySaver())
    async with toolbox(system), host, toolkit, remote:
        config = {"configurable": {"thread_id": "t"}}
        for answer in ("41", "43"):
            state = await soon(asking.ainvoke({"messages": [("user", "go on")]}, config), 20)
            assert state["messages"][-1].text == answer
        peers = MQTTToolkit(peers=["host"], store=store, **system.of("planner", agent_id=True))
        async with peers:
            tools = {tool.name: tool for tool in await peers.aget_tools()}
            assert await soon(tools["ask_host"].ainvoke({"prompt": "hello"}), 20) == "41"
            assert await soon(tools["add"].ainvoke({"a": 1, "b": 2}), 20) == "3"


class Clerk(BaseChatAgent):
    """Answers with the sum of a tool of the workbench."""

    def __init__(self, workbench: MQTTWorkbench) -> None:
        super().__init__("host", "adds")
        self._workbench = workbench
        self._heard = 0

    @property
    def produced_message_types(self) -> Any:
        return (TextMessage,)

    async def on_messages(self, messages: Any, cancellation_token: Any) -> Response:
        self._heard += len(messages)
        await self._workbench.list_tools()
        done = await self._workbench.call_tool("add", {"a": self._heard, "b": 40})
        return Response(chat_message=TextMessage(content=done.to_text(), source=self.name))

    async def on_reset(self, cancellation_token: Any) -> None:
        self._heard = 0

    async def save_state(self) -> dict[str, Any]:
        return {"heard": self._heard}

    async def load_state(self, state: Any) -> None:
        self._heard = state["heard"]


async def test_a_team_has_a_participant_elsewhere_that_uses_tools(system: System) -> None:
    workbench = MQTTWorkbench(**system.of("hands", agent_id=True))
    host = AgentHost(
        lambda name: Clerk(workbench), agent_id="host", store=MemoryStore(), max_conversations=0, **system.of("host")
    )
    member = MQTTAgent("host", store=MemoryStore(), **system.of("planner", agent_id=True))
    async with toolbox(system), host:
        team = RoundRobinGroupChat([member], max_turns=1)
        for answer in ("41", "42"):  # the instance is made anew from its stored state
            result = await soon(team.run(task="go on"), 20)
            message = result.messages[-1]
            assert isinstance(message, BaseChatMessage)
            assert message.to_text() == answer
        await soon(member.close())
        await soon(workbench.stop())
