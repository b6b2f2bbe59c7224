"""The agents and teams that a host runs: one instance for each conversation."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from autogen_agentchat.agents import SocietyOfMindAgent
from autogen_agentchat.base import ChatAgent, Response, TaskResult, Team
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken
from autogen_core.model_context import ChatCompletionContext

from autogen_mqtt_agent.messages import AnyMessage
from autogen_mqtt_agent.places import HostedConversation

__all__ = ["Factory", "Instance", "Maker"]

Factory = Callable[..., ChatAgent | Team | Awaitable[ChatAgent | Team]]
"""Makes the instance of a conversation. The function gets the conversation's id and, if it takes two arguments, also
the roster: a dict with the names of the other participants and what each can do."""

_SOCIETY = "mqtt_society_context"


class _AgentInstance:
    def __init__(self, agent: ChatAgent, hosted: HostedConversation) -> None:
        self._agent = agent
        self.name: str = agent.name
        self.seen: list[str] = []
        self.hosted: HostedConversation = hosted

    async def take_turn(
        self, messages: Sequence[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[AnyMessage | Response, None]:
        async for each in self._agent.on_messages_stream(messages, token):
            yield each

    async def save(self) -> dict[str, Any]:
        state = await self._agent.save_state()
        if isinstance(self._agent, SocietyOfMindAgent):
            # The state that AutoGen saves lacks the messages that the agent was given.
            state = {**state, _SOCIETY: await self._agent._model_context.save_state()}
        return {"state": state, "seen": self.seen, "participants": self.hosted.save()}

    async def load(self, saved: dict[str, Any]) -> None:
        state = dict(saved["state"])
        society = state.pop(_SOCIETY, None)
        await self._agent.load_state(state)
        if isinstance(self._agent, SocietyOfMindAgent) and society is not None:
            await self._agent._model_context.load_state(society)
        self.hosted.load(saved.get("participants", {}))
        self.seen = list(saved["seen"])

    async def pause(self) -> None:
        await self._agent.on_pause(CancellationToken())

    async def resume(self) -> None:
        await self._agent.on_resume(CancellationToken())

    async def close(self) -> None:
        await self._agent.close()


class _TeamInstance:
    def __init__(self, team: Team, hosted: HostedConversation) -> None:
        self._team = team
        self.name: str = team.name
        self.seen: list[str] = []
        self.hosted: HostedConversation = hosted

    async def take_turn(
        self, messages: Sequence[BaseChatMessage], token: CancellationToken
    ) -> AsyncGenerator[AnyMessage | Response, None]:
        result = TaskResult(messages=[])
        task = list(messages) or None  # a team does not accept an empty list
        async for each in self._team.run_stream(task=task, cancellation_token=token, output_task_messages=False):
            if isinstance(each, TaskResult):
                result = each
            else:
                yield each
        said = [each for each in result.messages if isinstance(each, BaseChatMessage)]
        stopped = {"mqtt_stop_reason": str(result.stop_reason)} if result.stop_reason else {}
        answer = TextMessage(content="No response.", source=self.name, metadata=stopped)
        if said:
            # The last message is the answer. The answer gets a new id, since the same message is also an inner message.
            answer = said[-1].model_copy(update={"id": answer.id, "metadata": {**said[-1].metadata, **stopped}})
        yield Response(chat_message=answer, inner_messages=list(result.messages))

    async def save(self) -> dict[str, Any]:
        return {"state": await self._team.save_state(), "seen": self.seen, "participants": self.hosted.save()}

    async def load(self, saved: dict[str, Any]) -> None:
        await self._team.load_state(saved["state"])
        self.hosted.load(saved.get("participants", {}))
        self.seen = list(saved["seen"])

    async def pause(self) -> None:
        await self._team.pause()

    async def resume(self) -> None:
        await self._team.resume()

    async def close(self) -> None:
        pass


Instance = _AgentInstance | _TeamInstance
"""A ChatAgent or a Team that takes part in one conversation. ``seen`` has the ids of the messages that it has seen, and
``hosted`` is the conversation."""


class Maker:
    """Makes an instance for each conversation.

    Args:
        factory: The user's function.
    """

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._parameters = _count_parameters(factory)
        self._owners: dict[int, tuple[weakref.ref[Any], str]] = {}  # by the id() of an agent that still exists

    async def make(self, conversation: str, roster: Mapping[str, str]) -> Instance:
        """Make an instance for a conversation.

        Raises:
            TypeError: The factory returned neither a ChatAgent nor a Team.
            ValueError: The factory returned an agent, or a part of an agent, that belongs to another conversation.
        """
        hosted = HostedConversation(conversation)
        with hosted.making():
            made = self._factory(*(conversation, dict(roster))[: self._parameters])
            if inspect.isawaitable(made):
                made = await made
        if not isinstance(made, (ChatAgent, Team)):
            raise TypeError(f"the factory must return a ChatAgent or a Team, not {type(made).__name__}")
        self._own(made, conversation)
        return _TeamInstance(made, hosted) if isinstance(made, Team) else _AgentInstance(made, hosted)

    def _own(self, made: ChatAgent | Team, conversation: str) -> None:
        parts = {id(part): part for part in _parts(made)}
        for key, part in parts.items():
            known, owner = self._owners.get(key, (None, ""))
            if known is not None and known() is part and owner != conversation:
                raise ValueError(_shared(made, part, conversation, owner))
        for key, part in parts.items():
            self._owners[key] = (weakref.ref(part, lambda _, key=key: self._owners.pop(key, None)), conversation)


def _shared(made: ChatAgent | Team, part: Any, conversation: str, owner: str) -> str:
    kind, name = type(part).__name__, getattr(part, "name", "")
    what = f"{kind} {name!r}" if name else kind
    inside = "" if part is made else f" inside a new {type(made).__name__}"
    return (
        f"the factory returned the same {what}{inside} for conversation {conversation} as for conversation {owner}: "
        f"each conversation would read what was said in the other one. Let the factory make a new {kind} each time, as "
        f"in: lambda conversation_id: {kind}(...)"
    )


_INSIDE = ("_participants", "_team", "_wrapped_agent", "_model_context", "_workbench", "_tools", "_task_runner")
"""The attributes in which AutoGen's agents, teams and tools keep further agents and their memories."""


def _parts(made: Any) -> list[Any]:
    """An agent or a team, with all agents, teams and model contexts inside it. Each of them remembers what was said."""
    found: dict[int, Any] = {}
    waiting = [made]
    while waiting:
        part = waiting.pop()
        if id(part) in found:
            continue
        found[id(part)] = part
        for inner in (getattr(part, name, None) for name in _INSIDE):
            waiting += inner if isinstance(inner, (list, tuple)) else [] if inner is None else [inner]
    return [part for part in found.values() if isinstance(part, (ChatAgent, Team, ChatCompletionContext))]


def _count_parameters(factory: Factory) -> int:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some callables have no signature that can be read
        return 1
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return 2
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return len([each for each in positional if each.default is each.empty])
