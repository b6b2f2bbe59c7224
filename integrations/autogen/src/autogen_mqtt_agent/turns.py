"""The wire format of a participant's turn: the data, the events and the result of a task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from autogen_agentchat.messages import BaseChatMessage
from mqtt_agent.wire import DEFAULT_MAX_PAYLOAD
from pydantic import BaseModel, Field

from autogen_mqtt_agent.messages import essence

__all__ = ["AUTOGEN", "CONTROL", "MAX_PAYLOAD", "TURN", "Answer", "Control", "Told", "Turn", "turn_id"]

TURN = "autogen.turn"
"""The type of a task that asks for a turn."""

CONTROL = "autogen.control"
"""The type of a task that pauses or resumes a turn."""

AUTOGEN = "autogen"
"""The key in the ``meta`` of a host's card that says that the host takes turns."""

MAX_PAYLOAD = 16 * DEFAULT_MAX_PAYLOAD
"""Bytes of the largest turn or answer that is read. Turns may contain pictures."""


class Turn(BaseModel):
    """A turn that a participant is asked to take.

    Attributes:
        autogen: The version of this format.
        conversation: Names the conversation. One instance of the hosted agent takes part in a conversation.
        seq: The number of the turn, 1 for the first.
        previous: The task id of the previous turn, after whose state this turn continues; None for the first.
        previous_of: The agent that asked for the previous turn; None means the agent that asks for this turn.
        participant: The agent's name in the caller's team.
        roster: The names of the other participants of that team, and what each can do.
        messages: The new messages, encoded with :meth:`Codec.encode`.
    """

    autogen: Literal[1] = 1
    conversation: str
    seq: int = 1
    previous: str | None = None
    previous_of: str | None = None
    participant: str = ""
    roster: dict[str, str] = Field(default_factory=dict)
    messages: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


class Answer(BaseModel):
    """The result of a turn.

    Attributes:
        autogen: The version of this format.
        name: The name that the hosted agent has on its host.
        chat_message: The agent's answer, encoded.
        inner_messages: The events before the answer, encoded, without the chunks that a model streams.
    """

    autogen: Literal[1]
    name: str = ""
    chat_message: dict[str, Any]
    inner_messages: list[dict[str, Any]] | None = None


class Told(BaseModel):
    """Something that happens during a turn.

    Attributes:
        autogen: The version of this format.
        message: The event or message, encoded.
        own: Whether the message's source is the hosted agent or team itself, and not a member of the hosted team.
    """

    autogen: Literal[1]
    message: dict[str, Any]
    own: bool = False


class Control(BaseModel):
    """Tells a host to pause or resume the turn that a conversation is in.

    Attributes:
        conversation: Names the conversation.
        action: What the hosted agent does: pause or resume.
    """

    conversation: str
    action: Literal["pause", "resume"]


def turn_id(turn: Turn, messages: Sequence[BaseChatMessage], place: Sequence[Any]) -> str:
    """The task id of a turn. The same messages at the same point of a conversation give the same id.

    So a caller that was restarted, and gives the turn again, gets the answer of the turn that it gave before.

    Args:
        turn: The turn.
        messages: The turn's messages, decoded.
        place: JSON values that tell apart turns with equal messages at this point of the conversation.
    """
    asked = json.dumps([turn.previous, place[0], [essence(message) for message in messages], *place[1:]])
    return f"{turn.conversation}.{turn.seq}.{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
