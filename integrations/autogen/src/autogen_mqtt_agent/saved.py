"""What AutoGen saves: the arguments of a participant and of a workbench, and the state of a conversation."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Literal

from mqtt_agent.adapting.finding import OnUnavailable
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT, TASK_TIMEOUT
from mqtt_agent.transport import BrokerURL
from mqtt_agent.wire import DEFAULT_NAMESPACE
from pydantic import BaseModel, Field, field_validator

__all__ = ["DESCRIPTION", "Absent", "MQTTAgentConfig", "MQTTAgentState", "MQTTWorkbenchConfig"]

Absent = Literal["raise", "wait", "notice"]
"""What a participant does when its peer is not online; see :class:`MQTTAgent`."""

DESCRIPTION = "An agent on another host."


class _Config(BaseModel):
    """Arguments that a participant and a workbench have in common, without passwords, tokens and certificates."""

    broker: str | Sequence[str] | None = None
    agent_id: str | None = None
    namespace: str = DEFAULT_NAMESPACE

    @field_validator("broker")
    @classmethod
    def _without_password(cls, broker: str | Sequence[str] | None) -> str | None:
        return None if broker is None else ",".join(map(str, BrokerURL.parse_all(broker)))


class MQTTAgentConfig(_Config):
    """The arguments of a participant, apart from secrets, the store and the message types."""

    name: str
    peer: str | None = None
    description: str = DESCRIPTION
    roster: dict[str, str] | None = None
    absent: Absent = "raise"
    grace: float = 60.0
    timeout: float | None = TASK_TIMEOUT


class MQTTAgentState(BaseModel):
    """The state of a participant's conversation. The state of the hosted agent is kept at its host.

    Attributes:
        type: Distinguishes this state from the states of other agents.
        conversation_id: Names the conversation. A loaded state begins another one.
        last_seq: The number of the last turn that was answered.
        last_turn: The task id of that turn. The next turn continues from the state after that turn.
        last_of: The id of the agent that gave that turn; None when an older version has saved the state.
        tries: How many turns failed or were canceled since then.
        pending: The task id of the turn that is under way.
        prompt: That turn as text.
        given_by: The id of the agent that gave the pending turn. Only that agent gets the answer.
        unsent: Messages that the peer has missed because it was not online.
        resets: How many times the conversation was reset.
        history: What was said so far, as messages of a task. Empty for a peer that is an :class:`AgentHost`: it keeps
            its state after each turn.
    """

    type: Literal["MQTTAgentState"] = "MQTTAgentState"
    conversation_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    last_seq: int = 0
    last_turn: str | None = None
    last_of: str | None = None
    tries: int = 0
    pending: str | None = None
    given_by: str | None = None
    prompt: str = ""
    unsent: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    resets: int = 0
    history: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


class MQTTWorkbenchConfig(_Config):
    """The arguments of a workbench, apart from secrets and the function ``where``."""

    tools: list[str] | None = None
    exclude: list[str] = Field(default_factory=list[str])
    servers: list[str] | None = None
    tags: list[str] | None = None
    on_unavailable: OnUnavailable = "skip"
    timeout: float | None = CALL_TIMEOUT
    stream: bool = True
    client_id: str | None = None
