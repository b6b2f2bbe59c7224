"""What a participant's turn looks like between two hosts: the data and the result of a task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from autogen_agentchat.messages import BaseChatMessage
from mqtt_agent.wire import DEFAULT_MAX_PAYLOAD
from pydantic import BaseModel, Field

from autogen_mqtt_agent.messages import essence

__all__ = ["CONTROL", "MAX_PAYLOAD", "TURN", "Answer", "Control", "Told", "Turn", "turn_id"]

TURN = "autogen.turn"
"""The task type of a turn."""

CONTROL = "autogen.control"
"""The task type of a word about a turn that runs."""

MAX_PAYLOAD = 16 * DEFAULT_MAX_PAYLOAD
"""Bytes of the largest turn or answer that is read: pictures travel in them."""


class Turn(BaseModel):
    """A turn that a participant is asked to take.

    Attributes:
        autogen: The version of this form.
        conversation: Which conversation it belongs to; one instance of the hosted agent takes part in it.
        seq: The number of the turn, 1 for the first.
        previous: The task id of the turn before, whose state this one goes on from; None for the first.
        participant: What the agent is called in the caller's team.
        roster: The other participants there, and what they can do.
        messages: What is new, each as :meth:`Codec.encode` made it.
    """

    autogen: Literal[1] = 1
    conversation: str
    seq: int = 1
    previous: str | None = None
    participant: str = ""
    roster: dict[str, str] = Field(default_factory=dict)
    messages: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


class Answer(BaseModel):
    """What came of a turn.

    Attributes:
        autogen: The version of this form.
        name: What the hosted agent calls itself.
        chat_message: Its answer, encoded.
        inner_messages: What happened on the way there, encoded; without the chunks of a model's stream.
    """

    autogen: Literal[1]
    name: str = ""
    chat_message: dict[str, Any]
    inner_messages: list[dict[str, Any]] | None = None


class Told(BaseModel):
    """Something that happens during a turn.

    Attributes:
        autogen: The version of this form.
        message: What happened, encoded.
        own: Whether the hosted agent itself is its source, and not somebody in a team of its own.
    """

    autogen: Literal[1]
    message: dict[str, Any]
    own: bool = False


class Control(BaseModel):
    """A word about the turn that a conversation is in.

    Attributes:
        conversation: Which one.
        action: What the hosted agent is to do.
    """

    conversation: str
    action: Literal["pause", "resume"]


def turn_id(conversation: str, seq: int, previous: str | None, tries: int, messages: Sequence[BaseChatMessage]) -> str:
    """The task id of a turn: the same whenever the same is asked at the same point of a conversation.

    So a caller that starts again, and asks again, gets the answer of the turn that is under way or done already.
    """
    asked = json.dumps([previous, tries, [essence(message) for message in messages]])
    return f"{conversation}.{seq}.{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
