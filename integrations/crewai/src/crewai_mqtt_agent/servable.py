"""What ``mqtt-agent serve`` serves with this adapter: crews, agents, flows, and functions that make them."""

from __future__ import annotations

from typing import Any

from mqtt_agent import Agent
from mqtt_agent.adapting.factories import descends, kinds_of

__all__ = ["servable"]


def servable(found: Any, *, name: str, description: str = "", **place: Any) -> Agent | None:
    """Make the agent that serves a crew, a flow or a CrewAI agent.

    Args:
        found: A crew, a CrewAI agent, a class of flows, a class with ``@CrewBase``, or a function whose return
            annotation names one of these; see ``factory`` of :func:`host_crew`.
        name: The agent id.
        description: What the crew does, for the agent card.
        place: ``broker``, ``namespace``, ``credentials``, ``tls`` and ``bound``, and what was given of
            ``client_id``, ``replica``, ``capabilities``, ``store``, ``max_attempts``, ``max_concurrency`` and ``pool``.

    Returns:
        An agent that is not started. None for an object of somebody else.

    Raises:
        TypeError: The object cannot be served; the message says why.
    """
    kinds = kinds_of(found)
    if not any(descends(each, "crewai", "Crew", "BaseAgent", "Flow") or _is_crew_base(each) for each in kinds):
        return None
    from crewai_mqtt_agent.hosting import host_crew  # it imports CrewAI, which takes many seconds

    return host_crew(found, agent_id=name, description=description, **place)


def _is_crew_base(kind: type) -> bool:
    return bool(getattr(kind, "is_crew_class", False))
