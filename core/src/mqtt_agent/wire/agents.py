"""Agent cards and agent statuses: who an agent is, and whether it is online."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mqtt_agent.display import card, escaped, table
from mqtt_agent.wire.cards import Status, VersionInfo
from mqtt_agent.wire.messages import Message, utc_now

__all__ = ["AGENT_FEATURES", "ASK", "AgentCard", "AgentSkill", "AgentStatus", "MemberNote"]

ASK: str = "ask"
"""The entry in a card's ``features`` that says: this agent answers questions about many tasks (ours)."""

AGENT_FEATURES: tuple[str, ...] = (ASK, "cancel", "events", "get", "input", "parts")
"""The optional parts of the protocol that this implementation's agents support (ours)."""


class AgentSkill(Message):
    """One thing that an agent can do, as in an A2A agent card (ours).

    Attributes:
        id: A short name, unique in the card.
        name: A name for people.
        description: What the skill does, for the person or the model that chooses an agent.
        tags: Keywords to search for.
        examples: Prompts that the skill can handle.
    """

    id: str
    name: str = ""
    description: str = ""
    tags: list[str] = Field(default_factory=list)
    examples: list[str] | None = None


class AgentCard(Message):
    """Who an agent is and what it can do (spec).

    Attributes:
        version: The version of the card format.
        name: The agent's id.
        namespace: The namespace, as it was given to the agent.
        description: For the person or the model that chooses an agent.
        capabilities: Keywords to search for.
        status: Whether the agent was online when it wrote the card. The agent's status message tells the present
            status.
        last_seen: When the card was published, ISO 8601 UTC.
        version_info: The version of the agent's SDK.
        skills: What the agent can do, in A2A's form (ours).
        input_modes: The MIME types that the agent accepts (ours).
        output_modes: The MIME types that the agent produces (ours).
        features: The optional parts of the protocol that the agent supports (ours).
        meta: Any other information from the author of the agent (ours).
        started: When the agent's process started, ISO 8601 UTC (ours).
        pool: Whether several processes may have this agent id; None for no (ours).
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
    pool: bool | None = None

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
    """Whether an agent is online. The agent's Last Will is such a message too (spec).

    Attributes:
        name: The agent's id.
        status: Online or offline.
        timestamp: When the message was written, ISO 8601 UTC. For a Last Will: when the connection was opened.
        started: When the agent's process started, ISO 8601 UTC (ours).
        epoch: The number of the connection that the message belongs to, 1 for the process's first connection (ours).
            In an online status of a pool, a number that grows whenever a member joins, connects or is lost.
        pool: Whether several processes may have this agent id; None for no (ours).
        probe: Whether the message asks if a process runs as this agent, and says nothing about the agent (ours).
        member: The member of a pool that has written the message; None when the agent is no pool (ours).
    """

    name: str = ""
    status: Status
    timestamp: str = Field(default_factory=utc_now)
    started: str | None = None
    epoch: int | None = None
    pool: bool | None = None
    probe: bool | None = None
    member: str | None = None

    def speaks_before(self, other: AgentStatus) -> bool:
        """Whether this message is from an earlier connection than ``other``. Then it is an outdated Last Will."""
        if not (self.started and self.epoch and other.started and other.epoch):
            return False
        return (self.started, self.epoch) < (other.started, other.epoch)


class MemberNote(Message):
    """A message between the members of one pool, which saves a member the wait for its next look at the store (ours).

    Attributes:
        action: ``task``: a task of this member has changed. ``refused``: an answer to the open question of a task was
            not accepted. ``tasks``: tasks wait. ``ended``: a delegated task is over.
            ``left``: this member has left the pool, and asks for its delegated tasks no more.
        member: The member that writes the message.
        task_id: The id of the task.
        requester: The requester of a received task.
        listen: Whether the requester of the task wants events from now on.
        reason: Why the answer was not accepted.
        timestamp: When the message was written, ISO 8601 UTC.
    """

    action: str
    member: str | None = None
    task_id: str | None = None
    requester: str | None = None
    listen: bool | None = None
    reason: str | None = None
    timestamp: str = Field(default_factory=utc_now)
