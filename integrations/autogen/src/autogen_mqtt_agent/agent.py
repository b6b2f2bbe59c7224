"""A participant of a team that represents an agent on another host."""

from __future__ import annotations

import asyncio
import contextlib
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
from mqtt_agent.adapting.callers import last
from mqtt_agent.adapting.content import Block
from mqtt_agent.adapting.conversations import Conversations
from mqtt_agent.adapting.forks import in_child
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.adapting.requesters import Requester, RequesterSettings
from mqtt_agent.adapting.streaming import Emit, stream
from mqtt_agent.endpoints.timeouts import TASK_TIMEOUT
from mqtt_agent.errors import MQTTAgentError, PeerUnavailable, TaskRejected
from mqtt_agent.transport import Bound, BrokerSettings, MessageAudit, MessageIdentity
from mqtt_agent.wire import DEFAULT_NAMESPACE
from typing_extensions import Self, override

from autogen_mqtt_agent.conversation import Asked, Conversation
from autogen_mqtt_agent.delegating import control_turn, give_turn
from autogen_mqtt_agent.messages import AnyMessage, Codec
from autogen_mqtt_agent.places import place_of
from autogen_mqtt_agent.questions import OnQuestion, asking_here
from autogen_mqtt_agent.replies import Replies
from autogen_mqtt_agent.saved import DESCRIPTION, Absent, MQTTAgentConfig
from autogen_mqtt_agent.turns import MAX_PAYLOAD, Control

__all__ = ["MQTTAgent"]

logger: logging.Logger = logger_of(__name__)

_SHORT_RETENTION = 600.0
"""Seconds that turns are kept in the memory of a process whose agent id is new: no other process can ask for them."""


class MQTTAgent(BaseChatAgent, Component[MQTTAgentConfig]):
    """A participant that lives on another host, where :func:`serve_agent` or :func:`serve_team` runs it.

    In any team, the participant represents the hosted agent: its chunks, tool events and answers reach the team.
    Turns survive lost networks, a host that is killed and, with an ``agent_id``, also the end of this process.
    Participants with one ``agent_id`` share one connection, which is made on first use.

    Example:
        >>> writer = MQTTAgent("writer", broker="mqtt://localhost:1883", agent_id="host-a")  # doctest: +SKIP
        >>> team = RoundRobinGroupChat([planner, writer], max_turns=4)  # doctest: +SKIP

    Args:
        name: The participant's name in the team, a Python identifier. Without ``peer``, also the peer's agent id.
        broker: A URL, or several for failover; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``. See
            :class:`mqtt_agent.Connection`.
        agent_id: The id under which this process gives turns. A turn survives a restart only if the id is the same
            afterwards. None makes a new id, which all participants of the process without ``agent_id`` share.
        peer: The agent id of the host that runs the agent.
        namespace: The prefix of all topics.
        description: What the participant can do. Teams use it to choose the next speaker.
        message_types: Types that the peer may answer with besides AutoGen's own, such as ``StructuredMessage[Report]``.
        roster: The names of the other participants, or a mapping from names to what each can do. The host passes the
            roster to its factory. A handoff to a name outside the roster becomes text, since it would end a Swarm.
        absent: What to do when the peer is not online. ``raise`` raises PeerUnavailable. ``wait`` waits for the peer.
            ``notice`` answers with a notice, and the peer gets the messages that it missed with its next turn.
        grace: Seconds that the peer may be offline in the middle of a turn before ``absent`` applies. With
            ``absent="wait"`` there is no limit.
        timeout: Seconds that a turn may take; None for no limit.
        on_question: Answers the peer's questions. It is called in a thread with the question and the JSON Schema of the
            answer, or None instead of a schema. An async function is awaited on the team's event loop. When the peer
            does not accept the answer, the question comes again with the reason. Without ``on_question``, a question
            cancels the turn with an error.
        store: Where turns under way are kept, see :class:`mqtt_agent.Agent`.
        pool: Whether several processes give turns under ``agent_id``. Then ``store`` must be the URL of a PostgreSQL
            database.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.
        bound: Whether the endpoint speaks sender-bound topics: ``"prefer"``, ``"require"`` or ``"off"``; see
            :class:`mqtt_agent.transport.BrokerSettings`.
        identity: Signs the endpoint's messages, and proves who has signed those of others; see
            :class:`mqtt_agent.identity.Identity`.
        audit: Keeps a line about each message that the endpoint sends and receives; see
            :class:`mqtt_agent.identity.Audit`.

    Raises:
        InvalidIdentifier: A name or the namespace cannot be used in topics.
        ValueError: ``name`` is no identifier, ``broker`` is no URL, or ``agent_id`` has other settings in this process.
    """

    component_config_schema = MQTTAgentConfig
    component_provider_override: ClassVar[str | None] = "autogen_mqtt_agent.MQTTAgent"

    def __init__(
        self,
        name: str,
        *,
        broker: str | Sequence[str] | None = None,
        agent_id: str | None = None,
        peer: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        description: str = DESCRIPTION,
        message_types: Sequence[type[AnyMessage]] = (),
        roster: Sequence[str] | Mapping[str, str] | None = None,
        absent: Absent = "raise",
        grace: float = 60.0,
        timeout: float | None = TASK_TIMEOUT,
        on_question: OnQuestion | None = None,
        store: TaskStore | str | PathLike[str] | None = None,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        bound: Bound = "prefer",
        identity: MessageIdentity | None = None,
        audit: MessageAudit | None = None,
        pool: bool = False,
    ) -> None:
        super().__init__(name, description)
        self.peer: str = peer or name
        options: dict[str, Any] = {"max_payload": MAX_PAYLOAD}
        if agent_id is None and store is None:
            options["retention"] = _SHORT_RETENTION
        if pool:
            options["pool"] = True
        place = BrokerSettings(broker, namespace, credentials, tls, bound, identity, audit)
        self._requester = Requester(RequesterSettings(place, agent_id, store, prefix="autogen", options=options))
        self._on_question = on_question
        self._codec = Codec(message_types)
        self._chat_types = [each for each in message_types if issubclass(each, BaseChatMessage)]
        if roster is not None:
            roster = dict(roster) if isinstance(roster, Mapping) else dict.fromkeys(roster, "")
        self._config = MQTTAgentConfig(
            name=name,
            broker=broker,
            agent_id=agent_id,
            peer=peer,
            namespace=namespace,
            description=description,
            roster=roster,
            absent=absent,
            grace=grace,
            timeout=timeout,
        )
        self._conversation = Conversation(self._config, self._codec, place_of(name, peer, self.agent_id))
        self._queue: Conversations[None] = Conversations(limit=0)
        in_child(self._conversation.copied)

    @property
    def agent_id(self) -> str:
        """The id under which this process gives turns."""
        return self._requester.agent_id

    @property
    @override
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        own = [TextMessage, MultiModalMessage, StopMessage, HandoffMessage, ToolCallSummaryMessage]
        return (*own, *self._chat_types)

    # Turns

    @override
    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        """Give the turn to the peer, and wait for the answer. For the errors see :meth:`on_messages_stream`."""
        response = await last(self.on_messages_stream(messages, cancellation_token))
        assert isinstance(response, Response)
        return response

    @override
    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        """Give the turn to the peer. Yield the turn's events as they arrive, and then the peer's answer.

        Raises:
            PeerUnavailable: The peer is not online; see ``absent``.
            TaskFailed: The hosted agent failed.
            TaskError: The peer asks a question, and there is no ``on_question``.
            TaskTimeout: The turn took too long.
            TransportError: The broker cannot be reached, or it refuses the connection.
        """
        response: Response | None = None
        async with self._alone(cancellation_token):
            missed = self._conversation.missed()
            async with contextlib.aclosing(self._take([*missed, *messages], cancellation_token)) as events:
                async for event in events:
                    if isinstance(event, Response):
                        response = event
                    else:
                        yield event
        assert response is not None
        yield response  # the next turn may begin before this: a caller need not ask for anything after the response

    async def _take(
        self, messages: Sequence[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        for is_last_try in (False, True):
            try:
                asked = self._conversation.ask(messages, self.agent_id)
                async with contextlib.aclosing(self._follow(asked, token)) as events:
                    async for event in events:
                        yield event
                return
            except PeerUnavailable as error:
                if self._config.absent != "notice":
                    raise
                self._conversation.state.unsent = [self._codec.encode(message) for message in messages]
                words = f"{self.name} is not there now: {error}"
                notice = TextMessage(content=words, source=self.name, metadata={"mqtt_absent": "true"})
                yield Response(chat_message=notice)
                return
            except TaskRejected as error:
                # The peer already has a turn with this id, from an earlier process whose messages had other ids.
                if error.code != "conflict" or is_last_try:
                    raise

    @contextlib.asynccontextmanager
    async def _alone(self, token: CancellationToken | None) -> AsyncGenerator[None]:
        """Wait until the earlier turns are over: each turn continues from the state after the turn before it."""
        turn = self._queue.turn(self.name)
        entering = asyncio.ensure_future(turn.__aenter__())
        if token is not None:
            token.link_future(entering)
        try:
            await entering
            yield
        finally:
            # This task may be canceled in the moment in which its turn comes.
            if entering.done() and not entering.cancelled():
                await turn.__aexit__(None, None, None)

    async def _follow(
        self, asked: Asked, token: CancellationToken | None
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        under_way = self._conversation.begin(asked, self.agent_id)
        replies = Replies(self.name, self._codec, self._config.roster)
        ask = None if self._on_question is None else asking_here(self._on_question)

        async def give(emit: Emit) -> tuple[str, Any, list[Block] | None]:
            agent = self._requester.agent
            return await agent.await_on_loop(give_turn, self._config, asked, ask, emit)

        try:
            async with contextlib.aclosing(stream(give, token.add_callback if token else None)) as events:
                async for event in events:
                    if not isinstance(event, asyncio.Future):
                        for message in replies.event(event):
                            yield message
                        continue
                    task_id, result, answer = event.result()
                    response = replies.response(result, answer)
                    for message in replies.left_out(response):
                        yield message
                    under_way.answered(task_id, response.chat_message, from_host=replies.from_host)
                    yield response
        finally:
            under_way.end()

    def pending_turn(self) -> str | None:
        """The task id of the turn that is under way, or that was under way when the loaded state was saved.

        Raises:
            ValueError: The turn was given under another ``agent_id``.
        """
        pending, given_by = self._conversation.state.pending, self._conversation.state.given_by
        if pending is not None and given_by != self.agent_id:
            raise ValueError(
                f"agent {given_by} has given the turn, and only this agent gets the answer: make the participant with "
                f"MQTTAgent(agent_id={given_by!r})"
            )
        return pending

    async def resume(self, cancellation_token: CancellationToken | None = None) -> BaseChatMessage | None:
        """Wait for the answer to the turn that was under way when the loaded state was saved.

        A team that is loaded in the middle of a turn does not ask for that turn again. So give the answer to the team
        as its next task. :func:`resume_team` does this, also for a ``GraphFlow`` with several turns under way.

        Example:
            >>> await team.load_state(saved)  # doctest: +SKIP
            >>> result = await team.run(task=await writer.resume())  # doctest: +SKIP

        Returns:
            The answer; None when no turn was under way.

        Raises:
            ValueError: The turn was given under another ``agent_id``.
            TaskError, TransportError: See :meth:`on_messages_stream`.
        """
        response: Response | None = None
        async for each in self.resume_stream(cancellation_token):
            response = each if isinstance(each, Response) else response
        return None if response is None else response.chat_message

    async def resume_stream(
        self, cancellation_token: CancellationToken | None = None
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        """Yield the events of the turn that :meth:`resume` waits for, and then the answer.

        Without a turn under way, nothing is yielded.

        Raises:
            ValueError: The turn was given under another ``agent_id``.
            TaskError, TransportError: See :meth:`on_messages_stream`.
        """
        response: BaseAgentEvent | BaseChatMessage | Response | None = None
        async with self._alone(cancellation_token):
            pending = self.pending_turn()
            if pending is None:
                return
            async with contextlib.aclosing(self._follow(Asked(pending, None), cancellation_token)) as events:
                async for event in events:
                    if isinstance(event, Response):
                        response = event
                    else:
                        yield event
        if response is not None:
            yield response

    # Lifecycle

    @override
    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Begin a new conversation. The peer need not be online."""
        self._conversation.reset()

    @override
    async def on_pause(self, cancellation_token: CancellationToken) -> None:
        """If a turn is under way, tell the peer to pause its agent."""
        await self._control("pause")

    @override
    async def on_resume(self, cancellation_token: CancellationToken) -> None:
        """If a turn is under way, tell the peer to let its agent continue."""
        await self._control("resume")

    async def _control(self, action: Literal["pause", "resume"]) -> None:
        state = self._conversation.state
        if state.pending is None:
            return
        control = Control(conversation=state.conversation_id, action=action)
        try:
            await self._requester.agent.await_on_loop(control_turn, self.peer, control)
        except MQTTAgentError as error:
            logger.warning("%s did not %s its agent: %s", self.peer, action, error)

    @override
    async def save_state(self) -> Mapping[str, Any]:
        """The state of the participant's conversation. Works at any time, also in the middle of a turn."""
        return self._conversation.save()

    @override
    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state. An older state works too: the host stores its agent's state after each turn.

        The state may be loaded many times: the turns that follow belong to a new conversation each time. A turn that
        was under way when the state was saved stays the same turn: :meth:`resume` waits for its answer, and so does a
        turn with the same messages.

        Raises:
            ValueError: ``state`` is not the state of a participant.
        """
        self._conversation.load(state)

    @override
    async def close(self) -> None:
        """Disconnect, unless another participant needs the connection. A later use connects again."""
        await self._requester.aclose()

    @override
    def _to_config(self) -> MQTTAgentConfig:
        return self._config

    @override
    @classmethod
    def _from_config(cls, config: MQTTAgentConfig) -> Self:
        return cls(**dict(config))
