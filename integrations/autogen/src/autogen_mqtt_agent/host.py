"""Hosting an agent or a team, so that it can take part in teams on other hosts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from os import PathLike
from typing import Any

from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, ModelClientStreamingChunkEvent, TextMessage
from autogen_core import CancellationToken
from mqtt_agent import TLS, Agent, Password, TaskContext, TaskStore, Token
from mqtt_agent.errors import TaskRejected
from pydantic import ValidationError
from typing_extensions import Self

from autogen_mqtt_agent.conversations import Conversation, Conversations
from autogen_mqtt_agent.hosted import Factory, Hosted
from autogen_mqtt_agent.messages import AnyMessage, Codec
from autogen_mqtt_agent.turns import CONTROL, MAX_PAYLOAD, TURN, Answer, Control, Told, Turn

__all__ = ["AgentHost"]

_WAITING_TURNS = 1000


class AgentHost:
    """Runs what a factory makes, one instance for each conversation, for :class:`MQTTAgent` participants elsewhere.

    It is an async context manager; :func:`serve_agent` is the same for scripts. After each turn the instance's state
    and its answer are stored: a host that is killed in the middle of a turn takes that turn again when it is back, from
    the state before it, and a turn that was answered is answered again without being taken.

    A task that is no turn, from an agent that knows nothing of AutoGen, gets the answer to its prompt as text. Tasks
    with one context id are one conversation then, as long as the host runs.

    Args:
        factory: Called with a conversation's id, and with the roster (names of the other participants, and what they
            can do) if it takes two arguments; gives a ``ChatAgent`` or a ``Team``, may be async.
        agent_id: Its name: one process at a time.
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        namespace: The prefix of all topics.
        description: For the person or the model that chooses an agent.
        capabilities: Short words to search for.
        message_types: Types of messages that callers may send besides AutoGen's own.
        max_conversations: How many instances are kept in memory between turns; the others are made anew.
        max_concurrent: How many turns run at once.
        retention: Seconds that turns are kept after they were answered; a conversation that has been silent for longer
            cannot go on once its instance is gone.
        store: Where turns are kept, see :class:`mqtt_agent.Agent`.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.
        drain_timeout: Seconds that :meth:`stop` waits for turns that run; they are taken again at the next start.

    Raises:
        TypeError: ``factory`` is no function, but what one should make.
    """

    def __init__(
        self,
        factory: Factory,
        *,
        agent_id: str,
        broker: str | None = None,
        namespace: str = "a2a/v1",
        description: str = "",
        capabilities: Sequence[str] = (),
        message_types: Sequence[type[AnyMessage]] = (),
        max_conversations: int = 100,
        max_concurrent: int = 8,
        retention: float = 30 * 24 * 3600,
        store: TaskStore | str | PathLike[str] | None = None,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        drain_timeout: float = 10.0,
    ) -> None:
        if not callable(factory):
            made = type(factory).__name__
            raise TypeError(f"give a function that makes a {made} for each conversation, not a {made}")
        self.agent: Agent = Agent(
            agent_id,
            broker=broker,
            namespace=namespace,
            description=description,
            capabilities=capabilities,
            store=store,
            credentials=credentials,
            tls=tls,
            max_concurrency=_WAITING_TURNS,  # those that wait for their conversation's turn are among them
            drain_timeout=drain_timeout,
            retention=retention,
            max_payload=MAX_PAYLOAD,
        )
        self._codec = Codec(message_types)
        self._conversations = Conversations(self.agent, factory, max_conversations)
        self._slots = asyncio.Semaphore(max_concurrent)
        self.agent.on_task(TURN)(self._on_turn)
        self.agent.on_task(CONTROL)(self._on_control)
        self.agent.on_task(self._on_plain_task)

    @property
    def live_conversations(self) -> int:
        """How many instances are in memory."""
        return self._conversations.live

    async def start(self) -> None:
        """Connect, and take up what was left; a second call changes nothing."""
        await self.agent.start()

    async def stop(self) -> None:
        """Finish the turns that run, and disconnect; a second call changes nothing."""
        await self.agent.stop()
        await self._conversations.close()

    async def serve_forever(self) -> None:
        """Start, and serve until the task is canceled or the connection is lost for good."""
        try:
            await self.agent.serve_forever()
        finally:
            await self._conversations.close()

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM. Blocks; for scripts. See :meth:`mqtt_agent.Agent.run`."""
        self.agent.run()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

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
        turn = Turn(conversation=name, previous=known.last if known is not None else None)
        messages = [TextMessage(content=task.prompt, source=task.sender or "user")] if task.prompt else []
        answer = Answer.model_validate(await self._take(task, turn, messages))
        return answer.chat_message["text"]

    async def _on_control(self, task: TaskContext) -> None:
        control = Control.model_validate(task.data)
        conversation = self._conversations.find(control.conversation)
        if conversation is not None and conversation.at_work is not None:
            await getattr(conversation.at_work, control.action)()

    async def _take(self, task: TaskContext, turn: Turn, messages: Sequence[BaseChatMessage]) -> dict[str, Any]:
        if task.saved is not None:
            return task.saved["answer"]  # killed between the turn and the answer
        async with self._conversations.turn(turn.conversation) as conversation, self._slots:
            hosted = await self._conversations.instance(conversation, turn)
            fresh = [message for message in messages if message.id not in conversation.seen]
            async with _at_work(conversation, hosted):
                response = await self._run(task, hosted, fresh)
                inner = [each for each in response.inner_messages or () if not _is_chunk(each)]
                answer = Answer(
                    autogen=1,
                    name=hosted.name,
                    chat_message=self._codec.encode(response.chat_message),
                    inner_messages=[self._codec.encode(each) for each in inner],
                ).model_dump()
                # Also its own answer, which a caller that goes on from a saved state may give to all as a task.
                seen = [*conversation.seen, *(message.id for message in fresh), response.chat_message.id]
                await task.save({"state": await hosted.save_state(), "seen": seen, "answer": answer})
            self._conversations.put_back(conversation, hosted, task.id, seen)
            return answer

    async def _run(self, task: TaskContext, hosted: Hosted, messages: Sequence[BaseChatMessage]) -> Response:
        token = CancellationToken()
        response: Response | None = None
        try:
            async with contextlib.aclosing(hosted.take_turn(messages, token)) as events:
                async for each in events:  # to its end: some agents do more after their response
                    if isinstance(each, Response):
                        response = each
                    else:
                        told = Told(autogen=1, message=self._codec.encode(each), own=each.source == hosted.name)
                        await task.stream(told.model_dump())
        finally:
            token.cancel()
        if response is None:
            raise RuntimeError(f"{hosted.name} gave no response")
        return response


@contextlib.asynccontextmanager
async def _at_work(conversation: Conversation, hosted: Hosted) -> AsyncIterator[None]:
    """An instance that fails in the middle of a turn is not used again: who knows what it has kept of it."""
    conversation.at_work = hosted
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            await hosted.close()
        raise
    finally:
        conversation.at_work = None


def _is_chunk(message: AnyMessage) -> bool:
    return isinstance(message, ModelClientStreamingChunkEvent)
