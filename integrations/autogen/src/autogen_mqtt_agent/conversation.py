"""The conversation of a participant with its peer: the state, and the ids of the turns."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autogen_agentchat.messages import BaseChatMessage
from mqtt_agent import TaskContext
from mqtt_agent.adapting.content import Block, Text
from pydantic import ValidationError

from autogen_mqtt_agent.messages import Codec
from autogen_mqtt_agent.parts import blocks_in, has_pictures
from autogen_mqtt_agent.places import Place
from autogen_mqtt_agent.saved import MQTTAgentConfig, MQTTAgentState
from autogen_mqtt_agent.turns import Turn, turn_id

__all__ = ["Asked", "Conversation", "UnderWay"]

_continued: set[str] = set()
"""The loaded turns that a participant of this process continues. Another participant that loads them does not."""


@dataclass(frozen=True)
class Asked:
    """A turn that a participant asks its peer for.

    Attributes:
        task_id: The id of the turn.
        turn: The turn; None for a turn that was given before.
        prompt: The turn as text, for people and for agents that do not use AutoGen.
        history: What was said before, for an agent that does not use AutoGen and does not know this conversation yet.
        within: The turn of a hosted agent in which this turn is asked for. When the host was killed, the hosted agent
            asks again.
        tries: How many turns at this place ended without an answer.
        shown: The prompt with its pictures, for an agent that does not use AutoGen; empty when there are no pictures.
    """

    task_id: str
    turn: Turn | None
    prompt: str = ""
    history: Sequence[dict[str, Any]] = ()
    within: TaskContext | None = None
    tries: int = 0
    shown: Sequence[Block] = ()


class Conversation:
    """The conversation of one participant. A loaded state begins a conversation of its own.

    A state can be loaded many times, by several users or by one user. Each time, the turns after the state belong to
    another conversation. Only the turn that was under way when the state was saved belongs to the loaded state itself.

    A participant that belongs to a hosted agent has one conversation for each conversation of its host, also when the
    host was restarted.

    Args:
        participant: The arguments of the participant.
        codec: Reads and writes messages.
        place: The place of a participant that belongs to a hosted agent.

    Attributes:
        state: The state, which the participant saves.
        known_to_peer: Whether the peer knows this conversation, so that it need not be told what was said before.
    """

    def __init__(self, participant: MQTTAgentConfig, codec: Codec, place: Place | None) -> None:
        self.state: MQTTAgentState = MQTTAgentState()
        self._participant = participant
        self._codec = codec
        self._place = place
        self._loaded = False
        self.known_to_peer: bool = True
        if place is not None:
            place.host.add(place.name, self)

    def save(self) -> dict[str, Any]:
        """The state as a JSON object."""
        return self.state.model_dump()

    def reset(self) -> None:
        """Forget everything. The next turn begins a new conversation."""
        self.state = MQTTAgentState(resets=self.state.resets + 1)
        self._loaded, self.known_to_peer = False, True

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: ``state`` is not the state of a participant.
        """
        try:
            loaded = MQTTAgentState.model_validate(json.loads(json.dumps(dict(state))))
        except ValidationError as error:
            name = self._participant.name
            raise ValueError(f"this is no saved state of participant {name}: {error}") from error
        self.state = loaded
        self.copied()

    def copied(self) -> None:
        """Begin a conversation of its own, since another participant may have the same state.

        A turn that is under way stays in its conversation. The turn after it is the first of the new conversation.
        """
        self._loaded = True
        if self.state.pending is None:
            self._go_on()

    def missed(self) -> list[BaseChatMessage]:
        """The messages that the peer has missed because it was not online."""
        decoded = map(self._codec.decode, self.state.unsent)
        return [each for each in decoded if isinstance(each, BaseChatMessage)]

    def ask(self, messages: Sequence[BaseChatMessage], agent_id: str) -> Asked:
        """The next turn. With the messages of a loaded turn that is under way, this is the loaded turn.

        Args:
            messages: The messages of the turn.
            agent_id: The agent that gives the turn. Only the agent that gave a turn gets its answer.
        """
        state = self.state
        if state.pending is not None:
            asked = self._asked(messages)
            if asked.task_id == state.pending and state.given_by == agent_id and state.pending not in _continued:
                return asked
        self._go_on()
        return self._asked(messages)

    def _go_on(self) -> None:
        """Begin a conversation of its own, if the state was loaded."""
        state, name = self.state, self.state.conversation_id
        if self._place is not None:
            name = f"{self._place.name}.{state.resets}" if state.resets else self._place.name
        elif self._loaded:
            name = uuid.uuid4().hex
        self._loaded = False
        if name != state.conversation_id:
            state.conversation_id, self.known_to_peer = name, False

    def _asked(self, messages: Sequence[BaseChatMessage]) -> Asked:
        state = self.state
        turn = Turn(
            conversation=state.conversation_id,
            seq=state.last_seq + 1,
            previous=state.last_turn,
            previous_of=state.last_of,
            participant=self._participant.name,
            roster=self._participant.roster or {},
            messages=[self._codec.encode(message) for message in messages],
        )
        prompt = "\n\n".join(f"{message.source}: {message.to_model_text()}" for message in messages)
        history = () if self.known_to_peer else tuple(state.history)
        shown = _shown(messages) if has_pictures(messages) else ()
        within = None if self._place is None else self._place.turn
        if within is None:
            return Asked(turn_id(turn, messages, [state.tries]), turn, prompt, history, shown=shown)
        return Asked(turn_id(turn, messages, [0, within.id]), turn, prompt, history, within, state.tries, shown)

    def begin(self, asked: Asked, agent_id: str) -> UnderWay:
        """Begin a turn."""
        if self.state.pending is not None:
            _continued.add(self.state.pending)
        self.state.pending, self.state.given_by = asked.task_id, agent_id
        self.state.prompt = asked.prompt or self.state.prompt
        return UnderWay(self)


def _shown(messages: Sequence[BaseChatMessage]) -> list[Block]:
    """Messages as blocks, each after the name of its author."""
    shown: list[Block] = []
    for message in messages:
        first, *others = blocks_in(message) or [Text("")]
        name = f"{message.source}: "
        shown += [Text(name + first.text)] if isinstance(first, Text) else [Text(name), first]
        shown += others
    return shown


class UnderWay:
    """The turn that is under way in a conversation. A reset leaves the turn to the conversation before the reset."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._state = conversation.state
        self._answered = False

    def answered(self, task_id: str, answer: BaseChatMessage, *, from_host: bool) -> None:
        """Note the answer.

        Args:
            task_id: The id of the task that gave the answer.
            answer: The answer.
            from_host: Whether the peer is an :class:`AgentHost`, which keeps its state after each turn. Any other peer
                must be told what was said before, when a new conversation begins from this state.
        """
        state, self._answered = self._state, True
        if not from_host:
            said = [("user", state.prompt), ("agent", answer.to_model_text())]
            state.history += [{"role": role, "content": text} for role, text in said if text]
        state.last_seq, state.last_turn, state.tries = state.last_seq + 1, task_id, 0
        state.last_of = state.given_by
        state.unsent = []
        if self._conversation.state is state:
            self._conversation.known_to_peer = True

    def end(self) -> None:
        """Note that no turn is under way any more."""
        self._state.pending, self._state.prompt = None, ""
        if not self._answered:
            self._state.tries += 1  # the same messages are a new turn then, with another id
