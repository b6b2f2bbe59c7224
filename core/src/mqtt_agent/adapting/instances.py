"""The instances that a host runs: one for each conversation, restored from the state after the previous turn.

This is for a framework whose agents keep their state in memory, and can save and load it. The state after a turn is
stored with the turn's task, together with the answer; see :mod:`mqtt_agent.adapting.states`. So a conversation can
continue without its instance: after the host was killed, after the instance was removed from memory, and from an
earlier turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

from mqtt_agent.adapting.conversations import Conversations, proof_of
from mqtt_agent.adapting.states import StateAfter, StateLost, answer_of, read_state, store_state
from mqtt_agent.agents import Agent, TaskContext
from mqtt_agent.errors import TaskFailed
from mqtt_agent.logs import logger_of

__all__ = ["WHOLE_EVERY", "Instance", "Instances"]

logger: logging.Logger = logger_of(__name__)

T = TypeVar("T")
WHOLE_EVERY = 86400.0
"""Seconds after which the state of a conversation is stored whole again."""


class Instance(Protocol):
    """An agent of a framework that takes part in one conversation."""

    async def save(self) -> dict[str, Any]:
        """The state as a JSON object, without the keys ``answer`` and ``stored``."""
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
        after: The state of the instance after its last turn; None before the first turn.
        last: The task id of the last turn that the instance took, and its requester.
        at_work: Whether the instance is in the middle of a turn.
    """

    def __init__(self, conversation: str) -> None:
        self.conversation = conversation
        self.instance: I | None = None
        self.after: StateAfter | None = None
        self.last: tuple[str, str | None] | None = None
        self.at_work = False

    async def close(self) -> None:
        """Close the instance, and forget it."""
        instance, self.instance, self.after = self.instance, None, None
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
        whole_every: Seconds after which the state of a conversation is stored whole again, and not as a change. The
            host must keep its tasks for this long, in addition to the time for which states can be restored.
    """

    def __init__(self, agent: Agent, limit: int, max_concurrency: int, whole_every: float = WHOLE_EVERY) -> None:
        self._agent = agent
        self._conversations = Conversations[_Kept[I]](limit, _Kept[I].close)
        self._max_concurrency = max_concurrency
        self._whole_every = whole_every
        self._slots = asyncio.Semaphore(max_concurrency)

    @property
    def count(self) -> int:
        """How many instances are in memory."""
        return sum(1 for each in self._conversations.all() if each.kept is not None and each.kept.instance is not None)

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
        *,
        previous_of: str | None = None,
        goes_on: bool = False,
    ) -> T:
        """Take a turn in a conversation, and store its answer together with the state after the turn.

        An instance whose turn fails is closed, since its state may hold half of the turn. The next turn continues from
        the stored state.

        Args:
            task: The task that asks for the turn.
            name: The name of the conversation. No other requester may be able to name it; see :func:`conversation_of`.
            previous: The task id of the previous turn, after whose state this turn continues; None for the first turn.
            make: Makes a new instance for the conversation.
            turn: Lets an instance take the turn, and returns the answer, any JSON value.
            previous_of: The requester of the previous turn; None means the requester of this turn. The caller has
                checked that this requester's conversations may be continued.
            goes_on: Whether the turn continues from the conversation's latest turn in memory, instead of ``previous``.

        Returns:
            The answer. A task that was answered before gives the stored answer, and no turn is taken.

        Raises:
            TaskFailed: The state after the previous turn is not stored any more.
            BaseException: Any error of ``make`` or ``turn``.
        """
        if task.saved is not None:
            return answer_of(task.saved)  # the host was killed after the turn and before its answer was sent
        async with self._conversations.turn(name) as conversation, self._slots:
            kept = conversation.kept = conversation.kept or _Kept[I](conversation.name)
            before = None if previous is None else (previous, previous_of or task.sender)
            instance = await self._go_on(task, kept, kept.last if goes_on else before, make)
            kept.at_work = True
            try:
                answer = await turn(instance)
                kept.after = await store_state(task, await instance.save(), answer, kept.after, self._whole_every)
            except BaseException:
                await kept.close()
                raise
            finally:
                kept.at_work = False
            kept.last = task.id, task.sender
            return answer

    async def _go_on(
        self,
        task: TaskContext,
        kept: _Kept[I],
        previous: tuple[str, str | None] | None,
        make: Callable[[], Awaitable[I]],
    ) -> I:
        """Return an instance whose state is the state after the previous turn."""
        if kept.instance is not None and kept.last == previous:
            return kept.instance
        try:
            proven = proof_of(task) is not None
            after = None if previous is None else await read_state(self._agent, *previous, proven=proven)
        except StateLost as error:
            raise TaskFailed(f"{error}: reset the conversation", code="CONVERSATION_LOST") from None
        await kept.close()
        instance = await make()
        if after is not None:
            await instance.load(after.state)
        kept.instance, kept.after, kept.last = instance, after, previous
        return instance

    async def close(self) -> None:
        """Close all instances. Then the host can start again, also on another event loop."""
        self._slots = asyncio.Semaphore(self._max_concurrency)
        await self._conversations.close()
