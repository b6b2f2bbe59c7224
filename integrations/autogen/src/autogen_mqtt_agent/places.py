"""The place of a participant that belongs to a hosted agent: its conversation and its turn there.

A host that was killed in the middle of a turn makes the agent again, and runs the turn again. The agent's own remote
participants then ask for the same turns. A participant that knows its place gives the same ids to these turns, and so
gets the answers of the turns that it has asked for before.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary

from mqtt_agent import TaskContext

__all__ = ["HostedConversation", "Participant", "Place", "place_of"]


class Participant(Protocol):
    """The conversation of a remote participant that belongs to a hosted agent."""

    def save(self) -> Mapping[str, Any]:
        """The state, a JSON object."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        ...


class HostedConversation:
    """A conversation of a host, in which an agent with participants of its own takes part.

    Args:
        name: The name of the conversation.

    Attributes:
        turn: The task of the turn that runs now; None between two turns.
    """

    def __init__(self, name: str) -> None:
        self.turn: TaskContext | None = None
        self._name = name
        self._made: Counter[str] = Counter()
        self._participants: WeakValueDictionary[str, Participant] = WeakValueDictionary()

    def add(self, place: str, participant: Participant) -> None:
        """Note a participant of the factory. A participant that was made during a turn is not needed after the turn."""
        if self.turn is None:
            self._participants[place] = participant

    def save(self) -> dict[str, Any]:
        """The states of the participants. The state of a hosted agent may lack them, as for an ``AgentTool``."""
        return {place: participant.save() for place, participant in self._participants.items()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Let the participants continue from these states."""
        for place, participant in self._participants.items():
            if place in saved:
                participant.load(saved[place])

    @contextmanager
    def making(self) -> Iterator[None]:
        """While the factory makes the agent, with its participants."""
        with self._here():
            yield

    @contextmanager
    def taking(self, turn: TaskContext) -> Iterator[None]:
        """While the agent takes a turn, in which it may make participants too."""
        self.turn, self._made = turn, Counter()
        try:
            with self._here():
                yield
        finally:
            self.turn = None

    @contextmanager
    def _here(self) -> Iterator[None]:
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def new_place(self, *names: str | None) -> Place:
        """The place of a new participant. Participants with equal names are told apart by their order."""
        made_in = [self._name, None if self.turn is None else self.turn.id, *names]
        number = self._made[json.dumps(made_in)]
        self._made[json.dumps(made_in)] += 1
        return Place(self, hashlib.sha256(json.dumps([*made_in, number]).encode()).hexdigest()[:32])


@dataclass(frozen=True)
class Place:
    """The place of a participant that belongs to a hosted agent.

    Attributes:
        host: The conversation of the hosted agent.
        name: A name for the participant's own conversation, the same each time that the host makes the agent.
    """

    host: HostedConversation
    name: str

    @property
    def turn(self) -> TaskContext | None:
        """The task of the turn that the hosted agent takes now."""
        return self.host.turn


_current: ContextVar[HostedConversation | None] = ContextVar("mqtt_agent_hosted_conversation", default=None)


def place_of(*names: str | None) -> Place | None:
    """The place of a participant that is made now; None when it does not belong to a hosted agent.

    Args:
        names: What distinguishes the participant: its name, its peer, and so on.
    """
    host = _current.get()
    return None if host is None else host.new_place(*names)
