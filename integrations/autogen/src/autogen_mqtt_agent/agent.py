"""A participant that lives on another host."""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, Literal

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import (
    BaseAgentEvent,
    BaseChatMessage,
    HandoffMessage,
    MultiModalMessage,
    StopMessage,
    TextMessage,
    ToolCallSummaryMessage,
)
from autogen_core import CancellationToken, Component
from mqtt_agent import TLS, Password, TaskStore, Token
from mqtt_agent.errors import MQTTAgentError, PeerUnavailable, TaskRejected
from pydantic import ValidationError
from typing_extensions import Self, override

from autogen_mqtt_agent.bridge import Emit, Outcome, stream
from autogen_mqtt_agent.caller import Caller, CallerSettings
from autogen_mqtt_agent.incoming import Incoming
from autogen_mqtt_agent.messages import AnyMessage, Codec
from autogen_mqtt_agent.remote import Assignment, give, tell
from autogen_mqtt_agent.settings import without_password
from autogen_mqtt_agent.standing import DESCRIPTION, Absent, MQTTAgentConfig, MQTTAgentState
from autogen_mqtt_agent.turns import Control, Turn, turn_id

__all__ = ["MQTTAgent"]

logger: logging.Logger = logging.getLogger(__name__)


class MQTTAgent(BaseChatAgent, Component[MQTTAgentConfig]):
    """A participant that lives on another host, where :func:`serve_agent` or :func:`serve_team` runs it.

    It stands in any team for the real one: its streaming chunks, tool events and answers come through. Turns survive
    lost networks, a host that is killed, and with an ``agent_id`` also the end of this process. Participants with one
    ``agent_id`` share one connection, which is made on first use.

    Example:
        >>> writer = MQTTAgent("writer", broker="mqtt://localhost:1883", agent_id="host-a")  # doctest: +SKIP
        >>> team = RoundRobinGroupChat([planner, writer], max_turns=4)  # doctest: +SKIP

    Args:
        name: What it is called in the team, a Python identifier; also the peer's agent id unless ``peer`` is given.
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        agent_id: The name of this end, which must be the same after a restart for a turn to survive it. None: a fresh
            one for all participants of the process that have none.
        peer: The agent id of the other end.
        namespace: The prefix of all topics.
        description: For whoever chooses the next speaker.
        message_types: Types that it may answer with besides AutoGen's own, such as ``StructuredMessage[Report]``.
        roster: The other participants, or these with what they can do, told to the host's factory. A handoff to
            somebody else then becomes plain text, since it would end a Swarm.
        absent: What to do when the peer is not there: ``raise`` PeerUnavailable, ``wait`` for it, or answer with a
            ``notice``, and tell the peer in its next turn what it missed.
        grace: Seconds that the peer may be away in the middle of a turn before that counts; unless ``wait``.
        timeout: Seconds that a turn may take; None for no limit.
        store: Where turns under way are kept, see :class:`mqtt_agent.Agent`.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.

    Raises:
        InvalidIdentifier: A name or the namespace cannot be used in topics.
        ValueError: ``name`` is no identifier, or ``broker`` no URL, or the ``agent_id`` is used with other settings.
    """

    component_config_schema = MQTTAgentConfig
    component_provider_override: ClassVar[str | None] = "autogen_mqtt_agent.MQTTAgent"

    def __init__(
        self,
        name: str,
        *,
        broker: str | None = None,
        agent_id: str | None = None,
        peer: str | None = None,
        namespace: str = "a2a/v1",
        description: str = DESCRIPTION,
        message_types: Sequence[type[AnyMessage]] = (),
        roster: Sequence[str] | Mapping[str, str] | None = None,
        absent: Absent = "raise",
        grace: float = 60.0,
        timeout: float | None = None,
        store: TaskStore | str | PathLike[str] | None = None,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
    ) -> None:
        super().__init__(name, description)
        self.peer: str = peer or name
        self._caller = Caller.shared(CallerSettings(broker, agent_id, namespace, store, credentials, tls))
        self._codec = Codec(message_types)
        self._chat_types = [each for each in message_types if issubclass(each, BaseChatMessage)]
        if roster is not None and not isinstance(roster, Mapping):
            roster = dict.fromkeys(roster, "")
        self._roster = None if roster is None else dict(roster)
        self._absent: Absent = absent
        self._grace = grace
        self._timeout = timeout
        self._state = MQTTAgentState()
        self._config = MQTTAgentConfig(
            name=name,
            broker=without_password(broker),
            agent_id=agent_id,
            peer=peer,
            namespace=namespace,
            description=description,
            roster=self._roster,
            absent=absent,
            grace=grace,
            timeout=timeout,
        )

    @property
    def agent_id(self) -> str:
        """The name of this end."""
        return self._caller.agent_id

    @property
    @override
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        own = [TextMessage, MultiModalMessage, StopMessage, HandoffMessage, ToolCallSummaryMessage]
        return (*own, *self._chat_types)

    # Turns

    @override
    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        """Give the turn to the peer, and wait for its answer."""
        return await _last(self.on_messages_stream(messages, cancellation_token))

    @override
    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        """Give the turn to the peer: what happens there, as it happens, and then its answer.

        Raises:
            PeerUnavailable: The peer is not there; see ``absent``.
            TaskFailed: The hosted agent failed.
            TaskTimeout: The turn took too long.
            TransportError: The broker is not there, or refuses.
        """
        missed = [each for each in map(self._codec.decode, self._state.unsent) if isinstance(each, BaseChatMessage)]
        messages = [*missed, *messages]
        async with contextlib.aclosing(self._take(messages, cancellation_token)) as events:
            async for event in events:
                yield event

    async def _take(
        self, messages: Sequence[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        try:
            async for event in self._give(messages, token):
                yield event
        except PeerUnavailable as error:
            if self._absent != "notice":
                raise
            self._state.unsent = [self._codec.encode(message) for message in messages]
            notice = f"{self.name} is not there now: {error}"
            yield Response(chat_message=TextMessage(content=notice, source=self.name, metadata={"mqtt_absent": "true"}))
        except TaskRejected as error:
            if error.code != "conflict":
                raise
            # The peer knows the turn from another life of ours, with other ids of the messages in it.
            async for event in self._give(messages, token):
                yield event

    async def _give(
        self, messages: Sequence[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        state, seq = self._state, self._state.last_seq + 1
        turn = Turn(
            conversation=state.conversation_id,
            seq=seq,
            previous=state.last_turn,
            participant=self.name,
            roster=self._roster or {},
            messages=[self._codec.encode(message) for message in messages],
        )
        state.given_by = self.agent_id
        state.pending = turn_id(state.conversation_id, seq, state.last_turn, state.tries, messages)
        prompt = "\n\n".join(f"{message.source}: {message.to_model_text()}" for message in messages)
        async with contextlib.aclosing(self._follow(state.pending, turn, prompt, token)) as events:
            async for event in events:
                yield event

    async def _follow(
        self, task_id: str, turn: Turn | None, prompt: str, token: CancellationToken | None
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        state = self._state
        assignment = Assignment(self.peer, task_id, turn, prompt, self._absent == "wait", self._grace, self._timeout)
        incoming = Incoming(self.name, self._codec, self._roster)

        async def work(emit: Emit) -> Any:
            return await self._caller.use(self).await_on_loop(give, assignment, emit)

        answered = False
        try:
            async with contextlib.aclosing(stream(work, token)) as events:
                async for event in events:
                    if isinstance(event, Outcome):
                        response = incoming.response(event.get())
                        for late in incoming.left_out(response):
                            yield late
                        state.last_seq, state.last_turn = state.last_seq + 1, task_id
                        state.tries, state.unsent, answered = 0, [], True
                        yield response
                    else:
                        for message in incoming.event(event):
                            yield message
        finally:
            state.pending = None
            if not answered:
                state.tries += 1  # the id of this turn now stands for its failure

    async def resume(self, cancellation_token: CancellationToken | None = None) -> BaseChatMessage | None:
        """Wait for the answer to the turn that was under way when the state was saved that has been loaded.

        Give it to the team as the next task, and the team goes on from there: a team that is loaded in the middle of a
        turn does not ask for that turn again.

        Example:
            >>> await team.load_state(saved)  # doctest: +SKIP
            >>> result = await team.run(task=await writer.resume())  # doctest: +SKIP

        Returns:
            The answer; None when no turn was under way.

        Raises:
            ValueError: The turn was given under another ``agent_id``.
            TaskError, TransportError: See :meth:`on_messages_stream`.
        """
        if self._state.pending is None:
            return None
        return (await _last(self.resume_stream(cancellation_token))).chat_message

    async def resume_stream(
        self, cancellation_token: CancellationToken | None = None
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        """The same as :meth:`resume`, with what happens until then; nothing when no turn was under way."""
        if self._state.pending is not None:
            if self._state.given_by != self.agent_id:
                raise ValueError(
                    f"{self._state.given_by} has given the turn: only MQTTAgent(agent_id=...) with it can resume"
                )
            async with contextlib.aclosing(self._follow(self._state.pending, None, "", cancellation_token)) as events:
                async for event in events:
                    yield event

    # Life

    @override
    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Begin a new conversation. The peer need not be there."""
        self._state = MQTTAgentState()

    @override
    async def on_pause(self, cancellation_token: CancellationToken) -> None:
        """Tell the peer, when a turn is under way, to pause its agent."""
        await self._tell("pause")

    @override
    async def on_resume(self, cancellation_token: CancellationToken) -> None:
        """Tell the peer, when a turn is under way, to let its agent go on."""
        await self._tell("resume")

    async def _tell(self, action: Literal["pause", "resume"]) -> None:
        if self._state.pending is None:
            return
        control = Control(conversation=self._state.conversation_id, action=action)
        try:
            await self._caller.use(self).await_on_loop(tell, self.peer, control)
        except MQTTAgentError as error:
            logger.warning("%s could not be told to %s: %s", self.peer, action, error)

    @override
    async def save_state(self) -> Mapping[str, Any]:
        """Where it stands; at once, and also in the middle of a turn."""
        return self._state.model_dump()

    @override
    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there, or go back to there: the host keeps the state after each turn.

        Raises:
            ValueError: It is no state of such an agent.
        """
        try:
            self._state = MQTTAgentState.model_validate(json.loads(json.dumps(dict(state))))
        except ValidationError as error:
            raise ValueError(f"this is no state of {self.name}: {error}") from error

    @override
    async def close(self) -> None:
        """Disconnect, when no other participant needs the connection. Using it connects again."""
        await self._caller.release(self)

    @override
    def _to_config(self) -> MQTTAgentConfig:
        return self._config

    @override
    @classmethod
    def _from_config(cls, config: MQTTAgentConfig) -> Self:
        return cls(**dict(config))


async def _last(events: AsyncGenerator[Any, None]) -> Response:
    response: Response | None = None
    async with contextlib.aclosing(events):
        async for event in events:
            response = event if isinstance(event, Response) else response
    assert response is not None
    return response
