"""Where an agent or a team is hosted, so that it can take part in teams on other hosts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from os import PathLike
from typing import Any

from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, ModelClientStreamingChunkEvent, TextMessage
from autogen_core import CancellationToken
from mqtt_agent import TLS, Agent, Password, TaskContext, TaskStore, Token
from mqtt_agent.adapting.conversations import Conversation, Conversations, saved_by_task
from mqtt_agent.adapting.serving import OnStarted, serve
from mqtt_agent.deprecation import renamed_arguments, warn_renamed
from mqtt_agent.errors import TaskFailed, TaskRejected
from mqtt_agent.wire import DEFAULT_NAMESPACE
from pydantic import ValidationError
from typing_extensions import Self

from autogen_mqtt_agent.instances import Factory, Instance, Standing, make
from autogen_mqtt_agent.messages import AnyMessage, Codec
from autogen_mqtt_agent.turns import CONTROL, MAX_PAYLOAD, TURN, Answer, Control, Told, Turn

__all__ = ["AgentHost", "aserve_agent", "aserve_team", "serve_agent", "serve_team"]

_WAITING_TURNS = 1000


class AgentHost(Agent):
    """Runs an agent or a team for :class:`MQTTAgent` participants elsewhere, one instance for each conversation.

    A host is a :class:`mqtt_agent.Agent`, so it is an async context manager, and ``run()`` serves until a signal comes.
    After each turn, the instance's state and its answer are stored together. A host that is killed in the middle of a
    turn takes that turn again when it is back, from the state before the turn. A turn that was answered is answered
    again without being taken.

    The host also takes tasks that are no turns, from agents that know nothing of AutoGen. The instance gets the task's
    prompt, and the result is the answer as text. Tasks with one context id are one conversation, as long as the host
    runs.

    Args:
        factory: Makes the instance of a conversation, a ``ChatAgent`` or a ``Team``; may be async. The function gets
            the conversation's id and, if it takes two arguments, also the roster of the caller's team: a dict with the
            names of the other participants and what each can do.
        agent_id: The host's name, which one process at a time can have.
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        namespace: The prefix of all topics.
        description: For the person or the model that chooses an agent.
        capabilities: Short words to search for.
        message_types: Types of messages that callers may send besides AutoGen's own.
        max_conversations: How many instances are kept in memory between turns. The others are made anew.
        max_concurrency: How many turns run at once.
        retention: Seconds that turns are kept after they were answered. A conversation that has been silent for longer
            cannot go on once its instance is no longer in memory.
        store: Where turns are kept, see :class:`mqtt_agent.Agent`.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.
        drain_timeout: Seconds that :meth:`stop` waits for turns that run. A turn that needs longer is taken again at
            the next start.

    Raises:
        TypeError: ``factory`` is an agent or a team, and not a function that makes one.
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL.
    """

    @renamed_arguments(max_concurrent="max_concurrency")
    def __init__(
        self,
        factory: Factory,
        *,
        agent_id: str,
        broker: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        description: str = "",
        capabilities: Sequence[str] = (),
        message_types: Sequence[type[AnyMessage]] = (),
        max_conversations: int = 100,
        max_concurrency: int = 8,
        retention: float = 30 * 24 * 3600,
        store: TaskStore | str | PathLike[str] | None = None,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        drain_timeout: float = 10.0,
    ) -> None:
        if not callable(factory):
            made = type(factory).__name__
            raise TypeError(f"give a function that makes a {made} for each conversation, not a {made}")
        super().__init__(
            agent_id,
            broker=broker,
            namespace=namespace,
            description=description,
            capabilities=capabilities,
            store=store,
            credentials=credentials,
            tls=tls,
            max_concurrency=_WAITING_TURNS,  # turns that wait for an earlier turn of their conversation count too
            drain_timeout=drain_timeout,
            retention=retention,
            max_payload=MAX_PAYLOAD,
        )
        self._factory = factory
        self._codec = Codec(message_types)
        self._conversations = Conversations[Standing](max_conversations, Standing.close)
        self._slots = asyncio.Semaphore(max_concurrency)
        self.on_task(TURN)(self._on_turn)
        self.on_task(CONTROL)(self._on_control)
        self.on_task(self._on_plain_task)

    @property
    def agent(self) -> Self:
        """The old way to the agent that a host is itself now."""
        warn_renamed("AgentHost.agent", "AgentHost")
        return self

    @property
    def live_conversations(self) -> int:
        """How many instances are in memory."""
        return sum(1 for each in self._conversations.all() if each.kept is not None and each.kept.instance is not None)

    async def stop(self) -> None:
        """Finish the turns that run, disconnect, and let go of all instances; a second call changes nothing."""
        await super().stop()
        await self._conversations.close()

    # Tasks

    async def _on_turn(self, task: TaskContext) -> Any:
        try:
            turn = Turn.model_validate(task.data)
        except ValidationError as error:
            raise TaskRejected(f"this is no turn: {error.errors()[0]['msg']}", code="not_a_turn") from error
        messages = [self._codec.decode(each) for each in turn.messages]
        return await self._take(task, turn, [each for each in messages if isinstance(each, BaseChatMessage)])

    async def _on_plain_task(self, task: TaskContext) -> Any:
        name = task.context_id or task.id
        known = self._conversations.find(name)
        turn = Turn(conversation=name, previous=known.kept.last if known is not None and known.kept else None)
        messages = [TextMessage(content=task.prompt, source=task.sender or "user")] if task.prompt else []
        answer = Answer.model_validate(await self._take(task, turn, messages))
        return answer.chat_message["text"]

    async def _on_control(self, task: TaskContext) -> None:
        control = Control.model_validate(task.data)
        conversation = self._conversations.find(control.conversation)
        standing = conversation.kept if conversation is not None else None
        if standing is not None and standing.at_work:
            await getattr(standing.instance, control.action)()

    async def _take(self, task: TaskContext, turn: Turn, messages: Sequence[BaseChatMessage]) -> dict[str, Any]:
        if task.saved is not None:
            return task.saved["answer"]  # the host was killed after the turn and before its answer was sent
        async with self._conversations.turn(turn.conversation) as conversation, self._slots:
            standing, instance = await self._go_on(conversation, turn)
            fresh = [message for message in messages if message.id not in standing.seen]
            async with standing.turn(instance):
                response = await self._run(task, instance, fresh)
                answer = self._encode(instance.name, response)
                # Also the agent's own answer: a caller that goes on from a saved state may give it to all as a task.
                seen = [*standing.seen, *(message.id for message in fresh), response.chat_message.id]
                await task.save({"state": await instance.save_state(), "seen": seen, "answer": answer})
            standing.last, standing.seen = task.id, seen
            return answer

    async def _go_on(self, conversation: Conversation[Standing], turn: Turn) -> tuple[Standing, Instance]:
        """Where the conversation stood after the previous turn, and an instance in the state of that time.

        The record of the previous turn's task holds that state. So the conversation goes on when the instance is gone,
        when the host was killed, and when the caller has gone back to an earlier point of the conversation.
        """
        standing = conversation.kept = conversation.kept or Standing()
        if standing.instance is not None and standing.last == turn.previous:
            return standing, standing.instance
        saved = None if turn.previous is None else await saved_by_task(self, turn.previous)
        if turn.previous is not None and (not isinstance(saved, dict) or "state" not in saved):
            raise TaskFailed(
                f"the conversation as it was after turn {turn.previous} is not kept any more: reset it",
                code="CONVERSATION_LOST",
            )
        await standing.close()
        instance = await make(self._factory, turn.conversation, turn.roster)
        standing.last, standing.seen = turn.previous, []
        if saved is not None:
            await instance.load_state(saved["state"])
            standing.seen = list(saved["seen"])
        return standing, instance

    async def _run(self, task: TaskContext, instance: Instance, messages: Sequence[BaseChatMessage]) -> Response:
        token = CancellationToken()
        response: Response | None = None
        try:
            async with contextlib.aclosing(instance.take_turn(messages, token)) as events:
                async for each in events:  # to the end: some agents do more after their response
                    if isinstance(each, Response):
                        response = each
                    else:
                        told = Told(autogen=1, message=self._codec.encode(each), own=each.source == instance.name)
                        await task.stream(told.model_dump())
        finally:
            token.cancel()
        if response is None:
            raise RuntimeError(f"{instance.name} gave no response")
        return response

    def _encode(self, name: str, response: Response) -> dict[str, Any]:
        inner = response.inner_messages or ()
        return Answer(
            autogen=1,
            name=name,
            chat_message=self._codec.encode(response.chat_message),
            inner_messages=[
                self._codec.encode(each) for each in inner if not isinstance(each, ModelClientStreamingChunkEvent)
            ],
        ).model_dump()


def serve_agent(factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Any) -> None:
    """Host an agent until SIGINT or SIGTERM. Blocks; for scripts.

    Example:
        >>> serve_agent(make_writer, agent_id="writer", broker="mqtt://localhost:1883")  # doctest: +SKIP

    Args:
        factory: Called with a conversation's id; returns the agent that takes part in the conversation.
        agent_id: The host's name, which one process at a time can have.
        on_started: Called when the host serves. By default, a line on the standard error says what is served.
        options: See :class:`AgentHost`: ``broker``, ``namespace``, ``store``, ``credentials`` and so on.

    Raises:
        SystemExit: The broker is not there or refuses, the store cannot be opened, or another process has taken over.
            With ``on_started``, the :class:`mqtt_agent.errors.MQTTAgentError` itself is raised.
    """
    return serve(AgentHost(factory, agent_id=agent_id, **options), "serve_agent", on_started)


async def aserve_agent(factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Any) -> None:
    """Host an agent until the task that awaits this function is canceled. For the arguments see :func:`serve_agent`.

    Raises:
        TransportError: The broker is not there, refuses, or another process has taken over.
        StoreError: The store cannot be opened.
    """
    await AgentHost(factory, agent_id=agent_id, **options).serve_forever(on_started)


def serve_team(factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Any) -> None:
    """Host a team until SIGINT or SIGTERM. Blocks; for scripts.

    The factory returns the team that takes part in a conversation. The team's last message is its answer, and the
    messages before come as inner messages. For the other arguments and the errors see :func:`serve_agent`.
    """
    return serve(AgentHost(factory, agent_id=agent_id, **options), "serve_team", on_started)


async def aserve_team(factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Any) -> None:
    """Host a team until the task that awaits this function is canceled. See :func:`serve_team`."""
    await AgentHost(factory, agent_id=agent_id, **options).serve_forever(on_started)
