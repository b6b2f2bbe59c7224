"""The task handlers of a host: they take the turns that participants on other hosts give to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, ModelClientStreamingChunkEvent, TextMessage
from autogen_core import CancellationToken
from mqtt_agent import Agent, TaskContext
from mqtt_agent.adapting.conversations import Conversation, Conversations, saved_by_task
from mqtt_agent.errors import TaskFailed, TaskRejected
from pydantic import ValidationError

from autogen_mqtt_agent.instances import Factory, Instance, Standing, make
from autogen_mqtt_agent.messages import Codec
from autogen_mqtt_agent.turns import Answer, Control, Told, Turn

__all__ = ["Turns"]


class Turns:
    """The task handlers of a host. Turns of one conversation run one at a time, in the order in which they come.

    Args:
        agent: The host; its store keeps the turns.
        factory: Makes the instance of a conversation.
        codec: Reads and writes messages.
        max_conversations: How many instances are kept in memory between turns.
        max_concurrency: How many turns run at once.
    """

    def __init__(
        self, agent: Agent, factory: Factory, codec: Codec, max_conversations: int, max_concurrency: int
    ) -> None:
        self._agent = agent
        self._factory = factory
        self._codec = codec
        self._conversations = Conversations[Standing](max_conversations, Standing.close)
        self._max_concurrency = max_concurrency
        self._slots = asyncio.Semaphore(max_concurrency)

    @property
    def instances(self) -> int:
        """How many instances are in memory."""
        return sum(1 for each in self._conversations.all() if each.kept is not None and each.kept.instance is not None)

    async def close(self) -> None:
        """Close all instances. The host can start again then, also on another event loop."""
        self._slots = asyncio.Semaphore(self._max_concurrency)
        await self._conversations.close()

    async def on_turn(self, task: TaskContext) -> Any:
        """Handle a turn that a participant gives."""
        try:
            turn = Turn.model_validate(task.data)
        except ValidationError as error:
            raise TaskRejected(
                f"the data of the task is no turn: {error.errors()[0]['msg']}", code="not_a_turn"
            ) from error
        messages = [self._codec.decode(each) for each in turn.messages]
        return await self._take(task, turn, [each for each in messages if isinstance(each, BaseChatMessage)])

    async def on_plain_task(self, task: TaskContext) -> Any:
        """Take a turn for an agent that does not use AutoGen, and return the answer as text."""
        name = task.context_id or task.id
        known = self._conversations.find(name)
        turn = Turn(conversation=name, previous=known.kept.last if known is not None and known.kept else None)
        messages = [TextMessage(content=task.prompt, source=task.sender or "user")] if task.prompt else []
        answer = Answer.model_validate(await self._take(task, turn, messages))
        return answer.chat_message["text"]

    async def on_control(self, task: TaskContext) -> None:
        """Pause or resume the turn that a conversation is in."""
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
                # The agent's own answer, too: after `resume()`, a team gives the answer to all participants as a task.
                seen = [*standing.seen, *(message.id for message in fresh), response.chat_message.id]
                await task.save({"state": await instance.save_state(), "seen": seen, "answer": answer})
            standing.last, standing.seen = task.id, seen
            return answer

    async def _go_on(self, conversation: Conversation[Standing], turn: Turn) -> tuple[Standing, Instance]:
        """Return the conversation's state after the previous turn, and an instance in that state.

        The stored task of the previous turn holds that state. So a conversation can continue without its instance,
        after the host was killed, or from an earlier turn after the caller has loaded an older state.
        """
        standing = conversation.kept = conversation.kept or Standing()
        if standing.instance is not None and standing.last == turn.previous:
            return standing, standing.instance
        saved = None if turn.previous is None else await saved_by_task(self._agent, turn.previous)
        if turn.previous is not None and (not isinstance(saved, dict) or "state" not in saved):
            raise TaskFailed(
                f"the state after turn {turn.previous} is not stored any more: reset the conversation",
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
