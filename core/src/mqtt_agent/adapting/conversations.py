"""The conversations of a host: each runs one turn at a time, and the latest conversations are kept in memory.

A host is an agent that serves the agents of a framework to peers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from mqtt_agent.agents import Agent
from mqtt_agent.agents.executing.conversation import conversation_of, own_name, proof_of
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.agents.store.base import VERIFIED
from mqtt_agent.logs import logger_of
from mqtt_agent.wire import Topics, normalize_namespace

__all__ = ["Conversation", "Conversations", "conversation_of", "own_name", "proof_of", "saved_by_task"]

logger: logging.Logger = logger_of(__name__)

T = TypeVar("T")


class Conversation(Generic[T]):
    """One conversation.

    Attributes:
        name: The name of the conversation.
        kept: The value that the host keeps in memory between two turns, or None.
        users: How many turns run or wait.
        turn: The lock that the running turn holds.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept: T | None = None
        self.users = 0
        self.turn: asyncio.Lock = asyncio.Lock()


class Conversations(Generic[T]):
    """The conversations of one host.

    Example:
        >>> async with conversations.turn("trip-to-oslo") as conversation:  # doctest: +SKIP
        ...     conversation.kept = conversation.kept or make_instance()

    Args:
        limit: How many conversations without a running turn are kept in memory.
        close: Awaited with the ``kept`` value of a conversation that is removed from memory.
    """

    def __init__(self, limit: int, close: Callable[[T], Awaitable[None]] | None = None) -> None:
        self._limit = limit
        self._close = close
        self._all: OrderedDict[str, Conversation[T]] = OrderedDict()

    def all(self) -> list[Conversation[T]]:
        """The conversations in memory, from the least to the most recently used."""
        return list(self._all.values())

    def find(self, name: str) -> Conversation[T] | None:
        """The conversation of this name, if it is in memory."""
        return self._all.get(name)

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncGenerator[Conversation[T]]:
        """Wait for a turn in a conversation. Turns of one conversation run one at a time, in the order of arrival."""
        found = self._all.setdefault(name, Conversation(name))
        found.users += 1
        try:
            async with found.turn:
                self._all.move_to_end(name)
                yield found
        finally:
            found.users -= 1
            await self._trim()

    async def close(self) -> None:
        """Remove all conversations from memory, and close their ``kept`` values."""
        everything, self._all = self.all(), OrderedDict()
        for conversation in everything:
            await self._let_go(conversation)

    async def _trim(self) -> None:
        idle = [each for each in self._all.values() if not each.users]
        for conversation in idle[: max(0, len(idle) - self._limit)]:
            del self._all[conversation.name]
            await self._let_go(conversation)

    async def _let_go(self, conversation: Conversation[T]) -> None:
        kept, conversation.kept = conversation.kept, None
        if kept is None or self._close is None:
            return
        try:
            await self._close(kept)
        except Exception:  # a conversation that cannot be closed must not keep the others open
            logger.warning("conversation %s could not be closed", conversation.name, exc_info=True)


async def saved_by_task(agent: Agent, task_id: str, requester: str | None, *, proven: bool = True) -> Any:
    """Read the value that the handler of an earlier task saved last with :meth:`TaskContext.save`.

    A host that saves its state with each task can go on from there in the next task of the conversation.

    Args:
        agent: The agent that executed the task.
        task_id: The id of the task.
        requester: The agent that gave the task; None when the task did not name its requester.
        proven: Whether the agent that wants the value has a proven name. Otherwise the value of a task whose requester
            was proven is not read.

    Returns:
        The saved value; None when the handler has saved nothing, the agent's store does not keep the task any more, or
        the value may not be read.

    Raises:
        StoreError: The store cannot be read.
    """
    owner = f"{normalize_namespace(agent.namespace)}/{agent.agent_id}"
    record = await agent.store.get(TaskKey(owner, "received", task_id, requester or ""))
    if record is None or (not proven and _is_proven(agent, record)):
        return None
    return record.saved


def _is_proven(agent: Agent, record: TaskRecord) -> bool:
    """Whether a signature or a sender-bound topic has proven who gave a task."""
    by_topic = record.reply_to is not None and Topics(agent.namespace).bound.writer(record.reply_to) == agent.agent_id
    return by_topic or record.task.get(VERIFIED) is True
