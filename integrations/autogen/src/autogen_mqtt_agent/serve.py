"""Hosting as a script does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from autogen_agentchat.base import ChatAgent, Team

from autogen_mqtt_agent.host import AgentHost

__all__ = ["serve_agent", "serve_team"]

T = TypeVar("T", ChatAgent, Team)

Factory = Callable[..., T | Awaitable[T]]


async def serve_agent(factory: Factory[ChatAgent], *, agent_id: str, broker: str | None = None, **options: Any) -> None:
    """Host an agent until the task is canceled: ``asyncio.run(serve_agent(make_writer, agent_id="writer"))``.

    Args:
        factory: Called with a conversation's id; gives the agent that takes part in it.
        agent_id: Its name: one process at a time.
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        options: See :class:`AgentHost`.

    Raises:
        TransportError: The broker is not there, refuses, or another process has taken over.
        StoreError: The store cannot be opened.
    """
    await AgentHost(factory, agent_id=agent_id, broker=broker, **options).serve_forever()


async def serve_team(factory: Factory[Team], *, agent_id: str, broker: str | None = None, **options: Any) -> None:
    """The same for a team. Its last message is its answer, and what its participants say comes as inner messages."""
    await AgentHost(factory, agent_id=agent_id, broker=broker, **options).serve_forever()
