"""What ``mqtt-agent serve`` serves with this adapter: functions that make an agent or a team."""

from __future__ import annotations

from typing import Any

from mqtt_agent import Agent
from mqtt_agent.adapting.factories import descends, kinds_of

__all__ = ["servable"]


def servable(found: Any, *, name: str, description: str = "", **place: Any) -> Agent | None:
    """Make the host that serves the agents or teams that a function makes.

    Args:
        found: A function whose return annotation names an AutoGen agent or team; see ``factory`` of
            :class:`AgentHost`.
        name: The agent id.
        description: What the agent or team does, for the agent card.
        place: ``broker``, ``namespace``, ``credentials``, ``tls`` and ``bound``, and what was given of
            ``client_id``, ``replica``, ``capabilities``, ``store``, ``max_attempts``, ``max_concurrency`` and ``pool``.

    Returns:
        A host that is not started. None for an object of somebody else.

    Raises:
        TypeError: ``found`` is an agent or a team, and not a function that makes one.
    """
    if isinstance(found, type) or not any(
        descends(each, "autogen_agentchat", "ChatAgent", "Team") for each in kinds_of(found)
    ):
        return None
    from autogen_mqtt_agent.host import AgentHost

    return AgentHost(found, agent_id=name, description=description, **place)
