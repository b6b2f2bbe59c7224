"""Functions for scripts that host an agent or a team."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from autogen_agentchat.base import ChatAgent, Team
from mqtt_agent.adapting.serving import serve

from autogen_mqtt_agent.host import AgentHost

__all__ = ["aserve_agent", "aserve_team", "serve_agent", "serve_team"]

OnStarted = Callable[[], None]


def serve_agent(
    factory: Callable[..., ChatAgent | Awaitable[ChatAgent]],
    *,
    agent_id: str,
    on_started: OnStarted | None = None,
    **options: Any,
) -> None:
    """Host an agent until SIGINT or SIGTERM. Blocks; for scripts.

    Example:
        >>> serve_agent(make_writer, agent_id="writer", broker="mqtt://localhost:1883")  # doctest: +SKIP

    Args:
        factory: Called with a conversation's id; returns the agent that takes part in the conversation.
        agent_id: The host's name, which one process at a time can have.
        on_started: Called when the host serves. By default, a line on the standard error says what is served.
        options: See :class:`AgentHost`: ``broker``, ``namespace``, ``store``, ``credentials`` and so on.

    Raises:
        SystemExit: The broker is not there or refuses, the store cannot be opened, or another process has taken over.
            With ``on_started``, the :class:`mqtt_agent.errors.MQTTAgentError` itself.
    """
    return serve(AgentHost(factory, agent_id=agent_id, **options), "serve_agent", on_started)


async def aserve_agent(
    factory: Callable[..., ChatAgent | Awaitable[ChatAgent]],
    *,
    agent_id: str,
    on_started: OnStarted | None = None,
    **options: Any,
) -> None:
    """Host an agent until the task that awaits this is canceled. For the arguments see :func:`serve_agent`.

    Raises:
        TransportError: The broker is not there, refuses, or another process has taken over.
        StoreError: The store cannot be opened.
    """
    await AgentHost(factory, agent_id=agent_id, **options).serve_forever(on_started)


def serve_team(
    factory: Callable[..., Team | Awaitable[Team]],
    *,
    agent_id: str,
    on_started: OnStarted | None = None,
    **options: Any,
) -> None:
    """Host a team until SIGINT or SIGTERM. Blocks; for scripts.

    The team's last message is its answer. The messages before come as inner messages. ``factory`` returns the team that
    takes part in a conversation; for the other arguments and the errors see :func:`serve_agent`.
    """
    return serve(AgentHost(factory, agent_id=agent_id, **options), "serve_team", on_started)


async def aserve_team(
    factory: Callable[..., Team | Awaitable[Team]],
    *,
    agent_id: str,
    on_started: OnStarted | None = None,
    **options: Any,
) -> None:
    """Host a team until the task that awaits this is canceled. See :func:`serve_team` and :func:`aserve_agent`."""
    await AgentHost(factory, agent_id=agent_id, **options).serve_forever(on_started)
