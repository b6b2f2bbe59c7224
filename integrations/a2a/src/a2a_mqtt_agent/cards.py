"""The A2A card of an agent over MQTT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from a2a.types import a2a_pb2 as a2a
from mqtt_agent.wire import AgentCard

from a2a_mqtt_agent.version import __version__

__all__ = ["Addresses", "a2a_card"]

_MODES = ("text/plain", "application/json")
"""What an agent takes and gives when its card does not say it."""
_ANY = "*/*"


@dataclass(frozen=True)
class Addresses:
    """Where the agents are found.

    Attributes:
        url: The address of the gateway, such as ``http://127.0.0.1:8080``.
        grpc: The address for gRPC, such as ``127.0.0.1:8081``; None for no gRPC.
        show: Adds the security schemes to a card.
        legacy: Whether the card also shows A2A 0.3.
    """

    url: str
    grpc: str | None = None
    show: Callable[[a2a.AgentCard], None] = lambda card: None
    legacy: bool = False

    def of(self, agent_id: str) -> str:
        """The address of one agent."""
        return f"{self.url}/agents/{quote(agent_id, safe='')}"


def a2a_card(card: AgentCard, addresses: Addresses, *, extended: bool = False) -> a2a.AgentCard:
    """The A2A card of an agent.

    Args:
        card: The agent's card at the MQTT side.
        addresses: Where the agents are found.
        extended: Whether the reader is known, and also sees the agent's status and namespace.
    """
    inputs = [*(card.input_modes or (*_MODES, _ANY))]
    made = a2a.AgentCard(
        name=card.name,
        description=card.description or f"The agent {card.name}.",
        version=(card.version_info.sdk if card.version_info is not None else None) or __version__,
        supported_interfaces=_interfaces(card.name, addresses),
        capabilities=a2a.AgentCapabilities(streaming=True, push_notifications=True, extended_agent_card=True),
        default_input_modes=inputs,
        default_output_modes=card.output_modes or _MODES,
        skills=_skills(card),
    )
    addresses.show(made)
    if extended:
        about = made.capabilities.extensions.add()
        about.uri = "urn:mqtt-agent:card"
        about.description = "What the agent's card at the MQTT side says."
        about.params.update({"namespace": card.namespace, "status": card.status, "last_seen": card.last_seen})
    return made


def _interfaces(name: str, addresses: Addresses) -> list[a2a.AgentInterface]:
    url = addresses.of(name)
    known = [("JSONRPC", url, "1.0", ""), ("HTTP+JSON", url, "1.0", "")]
    if addresses.grpc is not None:
        known.append(("GRPC", addresses.grpc, "1.0", name))
    if addresses.legacy:
        known += [("JSONRPC", url, "0.3", ""), ("HTTP+JSON", url, "0.3", "")]
    return [
        a2a.AgentInterface(protocol_binding=binding, url=place, protocol_version=version, tenant=tenant)
        for binding, place, version, tenant in known
    ]


def _skills(card: AgentCard) -> list[a2a.AgentSkill]:
    skills = [
        a2a.AgentSkill(
            id=skill.id,
            name=skill.name or skill.id,
            description=skill.description or skill.name or skill.id,
            tags=skill.tags or [skill.id],
            examples=skill.examples or (),
        )
        for skill in card.skills or ()
    ]
    named = {skill.id for skill in skills}
    words = [word for word in card.capabilities if word not in named]
    skills += [a2a.AgentSkill(id=word, name=word, description=word, tags=[word]) for word in words]
    if not skills:  # A2A wants one
        skills.append(a2a.AgentSkill(id=card.name, name=card.name, description=card.name, tags=["agent"]))
    return skills
