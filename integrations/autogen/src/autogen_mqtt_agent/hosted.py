"""A ChatAgent or a Team that a host runs, behind one face."""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from autogen_agentchat.agents import SocietyOfMindAgent
from autogen_agentchat.base import ChatAgent, Response, TaskResult, Team
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken

from autogen_mqtt_agent.messages import AnyMessage

__all__ = ["Factory", "Hosted", "make"]

logger: logging.Logger = logging.getLogger(__name__)

Factory = Callable[..., ChatAgent | Team | Awaitable[ChatAgent | Team]]
"""Makes what is hosted, one for each conversation: called with its id, and with the roster if it takes two."""

_SOCIETY = "mqtt_society_context"


class Hosted(ABC):
    """One instance, which takes part in one conversation."""

    name: str

    @abstractmethod
    def take_turn(
        self, messages: Sequence[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[AnyMessage | Response, None]:
        """Take a turn: what happens, and the response."""

    @abstractmethod
    async def save_state(self) -> Mapping[str, Any]:
        """All that another instance needs to go on."""

    @abstractmethod
    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""

    @abstractmethod
    async def pause(self) -> None:
        """Pause the turn."""

    @abstractmethod
    async def resume(self) -> None:
        """Go on with the turn."""

    async def close(self) -> None:
        """Release what it holds."""


class _HostedAgent(Hosted):
    def __init__(self, agent: ChatAgent) -> None:
        self._agent = agent
        self.name = agent.name

    async def take_turn(
        self, messages: Sequence[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[AnyMessage | Response, None]:
        async for each in self._agent.on_messages_stream(messages, token):
            yield each

    async def save_state(self) -> Mapping[str, Any]:
        state = await self._agent.save_state()
        if isinstance(self._agent, SocietyOfMindAgent):  # its own state leaves out what it was told before
            return {**state, _SOCIETY: await self._agent._model_context.save_state()}
        return state

    async def load_state(self, state: Mapping[str, Any]) -> None:
        own = {key: value for key, value in state.items() if key != _SOCIETY}
        await self._agent.load_state(own)
        if isinstance(self._agent, SocietyOfMindAgent) and _SOCIETY in state:
            await self._agent._model_context.load_state(state[_SOCIETY])

    async def pause(self) -> None:
        await self._agent.on_pause(CancellationToken())

    async def resume(self) -> None:
        await self._agent.on_resume(CancellationToken())

    async def close(self) -> None:
        await self._agent.close()


class _HostedTeam(Hosted):
    def __init__(self, team: Team) -> None:
        self._team = team
        self.name = team.name

    async def take_turn(
        self, messages: Sequence[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[AnyMessage | Response, None]:
        result: TaskResult | None = None
        task = list(messages) or None  # a team takes no empty list
        async for each in self._team.run_stream(task=task, cancellation_token=token, output_task_messages=False):
            if isinstance(each, TaskResult):
                result = each
            else:
                yield each
        said = [each for each in result.messages if isinstance(each, BaseChatMessage)] if result else []
        stopped = {"mqtt_stop_reason": str(result.stop_reason)} if result and result.stop_reason else {}
        if said:
            # Its last word is its answer: with an id of its own, as it has been told as an inner message too.
            fresh = TextMessage(content="", source=self.name).id
            answer = said[-1].model_copy(update={"id": fresh, "metadata": {**said[-1].metadata, **stopped}})
        else:
            answer = TextMessage(content="No response.", source=self.name, metadata=stopped)
        yield Response(chat_message=answer, inner_messages=list(result.messages) if result else [])

    async def save_state(self) -> Mapping[str, Any]:
        return await self._team.save_state()

    async def load_state(self, state: Mapping[str, Any]) -> None:
        await self._team.load_state(state)

    async def pause(self) -> None:
        await self._team.pause()

    async def resume(self) -> None:
        await self._team.resume()


async def make(factory: Factory, conversation: str, roster: Mapping[str, str]) -> Hosted:
    """A new instance for a conversation.

    Raises:
        TypeError: The factory gave something else.
    """
    arguments = (conversation, dict(roster))[: _count_parameters(factory)]
    made = factory(*arguments)
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, Team):
        return _HostedTeam(made)
    if isinstance(made, ChatAgent):
        return _HostedAgent(made)
    raise TypeError(f"the factory must give a ChatAgent or a Team, not {type(made).__name__}")


def _count_parameters(factory: Factory) -> int:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some callables do not tell
        return 1
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return 2
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return len([each for each in positional if each.default is each.empty])
