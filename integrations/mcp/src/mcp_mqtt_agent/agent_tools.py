"""Shows the agents of a namespace as tools: a call of such a tool is a task for the agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mqtt_agent import Agent
from mqtt_agent.adapting.bearers import SPEAKS_FOR_OTHERS
from mqtt_agent.adapting.delegating import begun
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.agents import PeerChange, PeerList, TaskHandle
from mqtt_agent.errors import InvalidIdentifier, MQTTAgentError, TaskNotFound
from mqtt_agent.tools import OnQuestion
from mqtt_agent.wire import AgentCard

from mcp_mqtt_agent.agent_task import AgentTask, OnProgress
from mcp_mqtt_agent.hiding import hidden
from mcp_mqtt_agent.incomplete import lacking

__all__ = ["AgentTools"]

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "description": "What the agent is to do."},
        "data": {"description": "Structured input for the agent, any JSON value."},
        "context_id": {
            "type": "string",
            "description": "The conversation: tasks with the same context_id belong together. Any text.",
        },
    },
    "required": ["prompt"],
}


class AgentTools:
    """The agents of a namespace that are online, as tools.

    Args:
        agent: The started agent that gives the tasks.
        timeout: Seconds until nobody needs the result of a task; None means no limit.
    """

    def __init__(self, agent: Agent, timeout: float | None) -> None:
        self._agent = agent
        self._timeout = timeout
        self._followed: set[AgentTask] = set()

    def changes(self) -> AsyncIterator[PeerChange]:
        """The changes of the agents."""
        return self._agent.watch_peers()

    async def named(self) -> dict[str, AgentCard]:
        """The cards of the agents that are online, by the names of their tools.

        Raises:
            MCPError: The agents cannot be listed.
        """
        return _by_name(await self._listed())

    async def _listed(self) -> PeerList:
        try:
            return await self._agent.peers()
        except MQTTAgentError as error:
            raise hidden(error, "the agents cannot be listed") from error

    async def tools(self) -> tuple[list[types.Tool], PeerList]:
        """The agents as MCP tools, and the list of the agents, which says what it lacks."""
        cards = await self._listed()
        return [_tool(name, card) for name, card in _by_name(cards).items()], cards

    async def find_agent(self, name: str) -> AgentCard:
        """The card of the agent whose tool has this name.

        Raises:
            MCPError: There is no such agent, or nobody knows now whether there is one.
        """
        cards = await self._listed()
        card = _by_name(cards).get(name)
        if card is None and cards.incomplete:
            raise lacking(f"Unknown tool: {name}; not all agents can be found now", cards.incomplete)
        if card is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {name}")
        return card

    async def begin(self, card: AgentCard, arguments: dict[str, Any]) -> TaskHandle:
        """Give a task. When this returns, the task is stored, and outlives this process.

        Raises:
            MCPError: The arguments are not those of the tool.
            MQTTAgentError: See :meth:`mqtt_agent.Agent.delegate`.
        """
        prompt, context_id = arguments.get("prompt"), arguments.get("context_id")
        if not isinstance(prompt, str) or not isinstance(context_id, (str, type(None))):
            raise MCPError(types.INVALID_PARAMS, "the task for an agent needs a text as prompt")
        expires_at = None if self._timeout is None else time.time() + self._timeout
        return await begun(
            lambda: self._agent.delegate(
                card.name, prompt, data=arguments.get("data"), context_id=context_id, expires_at=expires_at
            )
        )

    async def find(self, task_id: str) -> TaskHandle | None:
        """A task that this agent has given, perhaps in an earlier process; None when there is no such task.

        Raises:
            MCPError: The tasks cannot be read.
        """
        try:
            return await self._agent.resume(task_id)
        except (TaskNotFound, InvalidIdentifier):
            return None
        except MQTTAgentError as error:
            raise hidden(error, "the task cannot be read") from error

    def follow(
        self, handle: TaskHandle, on_question: OnQuestion | None, on_progress: OnProgress | None = None
    ) -> AgentTask:
        """Follow a task in the background until its end, or until :meth:`close`.

        Args:
            handle: The task.
            on_question: Answers the questions of the agent. Without ``on_question``, a question cancels the task.
            on_progress: Awaited with each progress report of the agent.
        """
        task = AgentTask(handle, on_question, on_progress)
        self._followed.add(task)
        task.outcome.add_done_callback(lambda _: self._followed.discard(task))
        return task

    async def close(self) -> None:
        """Stop following. The tasks themselves go on at their agents."""
        await asyncio.gather(*(task.stop() for task in list(self._followed)))


def _by_name(cards: PeerList) -> dict[str, AgentCard]:
    shown = (card for card in cards if not (card.meta or {}).get(SPEAKS_FOR_OTHERS))
    return {model_name(f"agent/{card.name}"): card for card in shown}


def _tool(name: str, card: AgentCard) -> types.Tool:
    can = [f"- {skill.name or skill.id}: {skill.description}" for skill in card.skills or ()]
    about = [f"Give a task to the agent {card.name}.", card.description, *can]
    return types.Tool(
        name=name,
        title=f"Agent {card.name}",
        description="\n".join(line for line in about if line),
        input_schema=_SCHEMA,
        execution=types.ToolExecution(task_support="optional"),
        _meta={"mqtt-agent/agent": card.name},
    )
