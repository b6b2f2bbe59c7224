"""The instances that a host runs: one for each conversation, restored from the state after the previous turn.

This is for a framework whose agents keep their state in memory, and can save and load it. The state after a turn is
stored with the turn's task, together with the answer. So a conversation can continue without its instance: after the
host was killed, after the instance was removed from memory, and from an earlier turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar, cast

from mqtt_agent.adapting.conversations import Conversation, Conversations, saved_by_task
from mqtt_agent.agents import Agent, TaskContext
from mqtt_agent.errors import TaskFailed

__all__ = ["Instance", "Instances"]

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")
_ANSWER = "answer"


class Instance(Protocol):
    """An agent of a framework that takes part in one conversation."""

    async def save(self) -> dict[str, Any]:
        """The state as a JSON object, without a key ``answer``."""
        ...

    async def load(self, saved: dict[str, Any]) -> None:
        """Continue from a state that :meth:`save` returned. The instance is new."""
        ...

    async def close(self) -> None:
        """Release what the instance holds. The instance is not used again."""
        ...


I = TypeVar("I", bound=Instance)  # noqa: E741


class _Kept(Generic[I]):
    """The part of a conversation that is in memory.

    Attributes:
        conversation: The name of the conversation.
        instance: Takes part in the conversation; None when there is no instance in memory.
        last: The task id of the last turn that the instance took.
        at_work: Whether the instance is in the middle of a turn.
    """

    def __init__(self, conversation: str) -> None:
        self.conversation = conversation
        self.instance: I | None = None
        self.last: str | None = None
        self.at_work = False

    async def close(self) -> None:
        """Close the instance, and forget it."""
        instance, self.instance = self.instance, None
        if instance is None:
            return
        try:
            await instance.close()
        except Exception:  # the conversation goes on with another instance
            logger.warning("the instance of conversation %s could not be closed", self.conversation, exc_info=True)


class Instances(Generic[I]):
    """The instances of one host. Turns of one conversation run one at a time, in the order of arrival.

    Args:
        agent: The host; its store keeps the turns.
        limit: How many instances are kept in memory between turns.
        max_concurrency: How many turns run at once.
    """

    def __init__(self, agent: Agent, limit: int, max_concurrency: int) -> None:
        self._agent = agent
        self._conversations = Conversations[_Kept[I]](limit, _Kept[I].close)
        self._max_concurrency = max_concurrency
        self._slots = asyncio.Semaphore(max_concurrency)

    @property
    def count(self) -> int:
        """How many instances are in memory."""
        return sum(1 for each in self._conversations.all() if each.kept is not None and each.kept.instance is not None)

    def last_turn(self, name: str) -> str | None:
        """The task id of a conversation's last turn; None when the conversation is not in memory."""
        kept = self._kept(name)
        return None if kept is None else kept.last

    def at_work(self, name: str) -> I | None:
        """The instance that is in the middle of a turn of a conversation; None when there is none."""
        kept = self._kept(name)
        return kept.instance if kept is not None and kept.at_work else None

    def _kept(self, name: str) -> _Kept[I] | None:
        conversation = self._conversations.find(name)
        return None if conversation is None else conversation.kept

    async def take(
        self,
        task: TaskContext,
        name: str,
        previous: str | None,
        make: Callable[[], Awaitable[I]],
        turn: Callable[[I], Awaitable[T]],
    ) -> T:
        """Take a turn in a conversation, and store its answer together with the state after the turn.

        An instance whose turn fails is closed, since its state may hold half of the turn. The next turn continues from
        the stored state.

        Args:
            task: The task that asks for the turn.
            name: The name of the conversation.
            previous: The task id of the previous turn, after whose state this turn continues; None for the first turn.
            make: Makes a new instance for the conversation.
            turn: Lets an instance take the turn, and returns the answer, any JSON value.

        Returns:
            The answer. A task that was answered before gives the stored answer, and no turn is taken.

        Raises:
            TaskFailed: The state after the previous turn is not stored any more.
            BaseException: Any error of ``make`` or ``turn``.
        """
        if task.saved is not None:
            return task.saved[_ANSWER]  # the host was killed after the turn and before its answer was sent
        async with self._conversations.turn(name) as conversation, self._slots:
            kept, instance = await self._go_on(conversation, previous, make)
            kept.at_work = True
            try:
                answer = await turn(instance)
                await task.save({**await instance.save(), _ANSWER: answer})
            except BaseException:
                await kept.close()
                raise
            finally:
                kept.at_work = False
            kept.last = task.id
            return answer

    async def _go_on(
        self, conversation: Conversation[_Kept[I]], previous: str | None, make: Callable[[], Awaitable[I]]
    ) -> tuple[_Kept[I], I]:
        """Return an instance whose state is the state after the previous turn."""
        kept = conversation.kept = conversation.kept or _Kept[I](conversation.name)
        if kept.instance is not None and kept.last == previous:
            return kept, kept.instance
        saved: Any = None if previous is None else await saved_by_task(self._agent, previous)
        if previous is not None and not (isinstance(saved, dict) and _ANSWER in saved):
            raise TaskFailed(
                f"the state after turn {previous} is not stored any more: reset the conversation",
                code="CONVERSATION_LOST",
            )
        await kept.close()
        instance = await make()
        if saved is not None:
            await instance.load(cast("dict[str, Any]", saved))
        kept.instance, kept.last = instance, previous
        return kept, instance

    async def close(self) -> None:
        """Close all instances. Then the host can start again, also on another event loop."""
        self._slots = asyncio.Semaphore(self._max_concurrency)
        await self._conversations.close()
