"""What of a remote participant is written down: how it is made, and where it stands in its conversation."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = ["DESCRIPTION", "Absent", "MQTTAgentConfig", "MQTTAgentState"]

Absent = Literal["raise", "wait", "notice"]

DESCRIPTION = "An agent on another host."


class MQTTAgentConfig(BaseModel):
    """What of a participant is written down: no password, token, certificate, store or message type."""

    name: str
    broker: str | None = None
    agent_id: str | None = None
    peer: str | None = None
    namespace: str = "a2a/v1"
    description: str = DESCRIPTION
    roster: dict[str, str] | None = None
    absent: Absent = "raise"
    grace: float = 60.0
    timeout: float | None = None


class MQTTAgentState(BaseModel):
    """Where a participant stands in its conversation; the rest is with its host.

    Attributes:
        type: What this is.
        conversation_id: Names the conversation.
        last_seq: The number of the last turn that was answered.
        last_turn: Its task id, which names the state that the next turn goes on from.
        tries: How many turns were given up since.
        pending: The task id of the turn that is under way.
        given_by: The agent id that has given it, and that alone gets its answer.
        unsent: Messages that the peer was not there for.
    """

    type: Literal["MQTTAgentState"] = "MQTTAgentState"
    conversation_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    last_seq: int = 0
    last_turn: str | None = None
    tries: int = 0
    pending: str | None = None
    given_by: str | None = None
    unsent: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
