"""The task handlers of a host: they take the turns that participants on other hosts give to it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, ModelClientStreamingChunkEvent, TextMessage
from autogen_core import CancellationToken
from mqtt_agent import Agent, TaskContext
from mqtt_agent.adapting.content import as_text
from mqtt_agent.adapting.conversations import conversation_of, proof_of
from mqtt_agent.adapting.instances import Instances
from mqtt_agent.adapting.parts import blocks_of, files_of, message_of, prompt_of
from mqtt_agent.errors import TaskFailed, TaskRejected
from pydantic import ValidationError

from autogen_mqtt_agent.instances import Factory, Instance, Maker
from autogen_mqtt_agent.messages import Codec
from autogen_mqtt_agent.parts import blocks_in, has_pictures, message_from
from autogen_mqtt_agent.turns import Answer, Control, Told, Turn

__all__ = ["Turns"]

_GENERATED = re.compile(r"autogen-[0-9a-f]{12}")
"""The names of agents that exist for one process. A saved team goes on in another process, under another such name."""


class Turns:
    """The task handlers of a host. Turns of one conversation run one at a time, in the order of arrival.

    Args:
        agent: The host; its store keeps the turns.
        factory: Makes the instance of a conversation.
        codec: Reads and writes messages.
        max_conversations: How many instances are kept in memory between turns.
        max_concurrency: How many turns run at once.
        whole_every: Seconds after which the state of a conversation is stored whole again.

    Attributes:
        instances: The instances in memory.
    """

    def __init__(
        self,
        agent: Agent,
        factory: Factory,
        codec: Codec,
        max_conversations: int,
        max_concurrency: int,
        whole_every: float,
    ) -> None:
        self.instances: Instances[Instance] = Instances(agent, max_conversations, max_concurrency, whole_every)
        self._maker = Maker(factory)
        self._codec = codec

    async def on_turn(self, task: TaskContext) -> Any:
        """Handle a turn that a participant gives."""
        try:
            turn = Turn.model_validate(task.data)
        except ValidationError as error:
            raise TaskRejected(
                f"the data of the task is no turn: {error.errors()[0]['msg']}", code="not_a_turn"
            ) from error
        messages = [self._codec.decode(each) for each in turn.messages]
        _check_previous(task, turn)
        name = conversation_of(task, turn.conversation)
        return await self._take(task, name, turn, [each for each in messages if isinstance(each, BaseChatMessage)])

    async def on_plain_task(self, task: TaskContext) -> Any:
        """Take a turn for an agent that does not use AutoGen. The answer is text, or a message with pictures."""
        name = task.conversation
        turn = Turn(conversation=name)
        message = _plain_message(task)
        messages = [] if message is None else [message]
        answer = Answer.model_validate(await self._take(task, name, turn, messages, goes_on=True))
        said = self._codec.decode(answer.chat_message)
        if isinstance(said, BaseChatMessage) and has_pictures([said]):
            return message_of(blocks_in(said))
        return answer.chat_message["text"]

    async def on_control(self, task: TaskContext) -> None:
        """Pause or resume the turn that a conversation is in."""
        control = Control.model_validate(task.data)
        instance = self.instances.at_work(conversation_of(task, control.conversation))
        if instance is not None:
            await getattr(instance, control.action)()

    async def _take(
        self, task: TaskContext, name: str, turn: Turn, messages: Sequence[BaseChatMessage], *, goes_on: bool = False
    ) -> dict[str, Any]:
        async def new_instance() -> Instance:
            return await self._maker.make(name, turn.roster)

        async def take(instance: Instance) -> dict[str, Any]:
            fresh = [message for message in messages if message.id not in instance.seen]
            with instance.hosted.taking(task):
                response = await self._run(task, instance, fresh)
            # Its own answer is seen too: after `resume()`, a team gives the answer to all participants as a task.
            instance.seen += [*(message.id for message in fresh), response.chat_message.id]
            return self._encode(instance.name, response)

        return await self.instances.take(
            task,
            name,
            turn.previous,
            new_instance,
            take,
            previous_of=turn.previous_of,
            goes_on=goes_on,
        )

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


def _plain_message(task: TaskContext) -> BaseChatMessage | None:
    """The message of a task that is no turn: its text, its data and its pictures; None when the task says nothing."""
    source, blocks = task.sender or "user", blocks_of(task.parts)
    if files_of(blocks):
        return message_from(blocks, source)
    prompt, data = prompt_of(task), [] if task.data is None else [as_text(task.data)]
    said = [*([] if prompt is None else [prompt]), *data]
    return TextMessage(content="\n".join(said), source=source) if said else None


def _check_previous(task: TaskContext, turn: Turn) -> None:
    """Refuse that a requester whose name is proven goes on from the turn of another requester.

    Raises:
        TaskFailed: The previous turn was another requester's.
    """
    other = turn.previous_of
    if other is None or other == task.sender or proof_of(task) is None or _GENERATED.fullmatch(other):
        return
    raise TaskFailed(
        f"turn {turn.previous} was given by {other}, and only {other} can continue its conversation: reset the"
        f" conversation, or give the turn as {other}",
        code="CONVERSATION_LOST",
    )
