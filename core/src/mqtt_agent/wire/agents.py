"""Who an agent is, and whether it is there."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mqtt_agent.display import card, escaped, table
from mqtt_agent.wire.cards import Status, VersionInfo
from mqtt_agent.wire.messages import Message, utc_now

__all__ = ["AGENT_FEATURES", "AgentCard", "AgentSkill", "AgentStatus"]

AGENT_FEATURES = ("cancel", "events", "get", "input")
"""The additive abilities that this implementation's agents speak (ours)."""


class AgentSkill(Message):
    """One thing that an agent can do, as in an A2A agent card (ours)."""

    id: str
    name: str = ""
    description: str = ""
    tags: list[str] = Field(default_factory=list)
    examples: list[str] | None = None


class AgentCard(Message):
    """Who an agent is and what it can do (spec).

    Attributes:
        version: Version of the card's own format.
        name: The agent's id.
        namespace: The namespace as the agent was given it.
        description: For the person or the model that chooses an agent.
        capabilities: Short words to search for.
        status: Whether it was online when it wrote the card; its status message is newer.
        last_seen: When the card was published, ISO 8601 UTC.
        version_info: Version of its SDK.
        skills: What it can do, in A2A's form (ours).
        input_modes: MIME types that it takes (ours).
        output_modes: MIME types that it gives (ours).
        features: The additive abilities that it speaks (ours).
        meta: Anything else its author wants to tell (ours).
        started: When this process began, ISO 8601 UTC (ours).
    """

    version: str = "1"
    name: str
    namespace: str = ""
    description: str = ""
    capabilities: list[str] = Field(default_factory=list)
    status: Status = "online"
    last_seen: str = Field(default_factory=utc_now)
    version_info: VersionInfo | None = None
    skills: list[AgentSkill] | None = None
    input_modes: list[str] | None = None
    output_modes: list[str] | None = None
    features: list[str] | None = None
    meta: dict[str, Any] | None = None
    started: str | None = None

    def _repr_html_(self) -> str:
        rows = [
            (
                f"<code>{escaped(skill.id)}</code>",
                escaped(skill.description or skill.name),
                escaped(", ".join(skill.tags)),
            )
            for skill in self.skills or ()
        ]
        can = [f"can {escaped(', '.join(self.capabilities))}"] if self.capabilities else []
        hints = [f"namespace {escaped(self.namespace)}", *can, f"last seen {escaped(self.last_seen)}"]
        body = table(("skill", "", "tags"), rows) if rows else ""
        return card(self.name, self.status, self.description, hints, body)


class AgentStatus(Message):
    """Whether an agent is there; also what its will says (spec).

    Attributes:
        name: The agent's id.
        status: Online or offline.
        timestamp: When it was written; for a will, when the connection was made.
        started: When the process began, ISO 8601 UTC (ours).
        epoch: Which of its connections the message speaks for, 1 for the first (ours).
    """

    name: str = ""
    status: Status
    timestamp: str = Field(default_factory=utc_now)
    started: str | None = None
    epoch: int | None = None

    def speaks_before(self, other: AgentStatus) -> bool:
        """Whether it is of an earlier connection than ``other``: then it is a late will, and not news."""
        if not (self.started and self.epoch and other.started and other.epoch):
            return False
        return (self.started, self.epoch) < (other.started, other.epoch)
