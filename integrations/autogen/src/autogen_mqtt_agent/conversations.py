"""The conversations that a host takes part in: the latest live in memory, all of them in the store."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from mqtt_agent import Agent
from mqtt_agent.agents.store import TaskKey
from mqtt_agent.errors import TaskFailed
from mqtt_agent.wire import normalize_namespace

from autogen_mqtt_agent.hosted import Factory, Hosted, make
from autogen_mqtt_agent.turns import Turn

__all__ = ["Conversation", "Conversations"]

logger: logging.Logger = logging.getLogger(__name__)


class Conversation:
    """One conversation.

    Attributes:
        hosted: The instance that takes part in it, between turns; None when a turn has it, and when there is none.
        at_work: The instance that is in the middle of a turn.
        last: The task id of the turn that ``hosted`` has taken last.
        seen: The ids of the messages that it has seen until then.
        users: How many turns run or wait.
        turn: Held by the turn that runs; the others wait in the order in which they came.
    """

    def __init__(self) -> None:
        self.hosted: Hosted | None = None
        self.at_work: Hosted | None = None
        self.last: str | None = None
        self.seen: list[str] = []
        self.users = 0
        self.turn: asyncio.Lock = asyncio.Lock()


class Conversations:
    """Finds or makes the instance for each turn.

    After each turn its task's record holds the state that the instance had then. The next turn names that task, so a
    turn finds the state it goes on from when the instance is gone, when the host was killed, and when the caller has
    gone back to an earlier point of the conversation.

    Args:
        agent: Whose store it is.
        factory: Makes instances.
        limit: How many instances that nobody uses are kept.
    """

    def __init__(self, agent: Agent, factory: Factory, limit: int) -> None:
        self._agent = agent
        self._factory = factory
        self._limit = limit
        self._all: OrderedDict[str, Conversation] = OrderedDict()

    @property
    def live(self) -> int:
        """How many instances there are."""
        return sum(1 for each in self._all.values() if each.hosted or each.at_work)

    def find(self, conversation: str) -> Conversation | None:
        """The conversation, if it is in memory."""
        return self._all.get(conversation)

    @asynccontextmanager
    async def turn(self, conversation: str) -> AsyncIterator[Conversation]:
        """Wait for one's turn in a conversation."""
        found = self._all.setdefault(conversation, Conversation())
        found.users += 1
        try:
            async with found.turn:
                self._all.move_to_end(conversation)
                yield found
        finally:
            found.users -= 1
            await self._trim()

    async def instance(self, conversation: Conversation, turn: Turn) -> Hosted:
        """The instance that has taken the previous turn, or one like it. It is the turn's until it is put back.

        Raises:
            TaskFailed: What the previous turn left is not kept any more.
        """
        hosted, conversation.hosted = conversation.hosted, None
        if hosted is not None and conversation.last == turn.previous:
            return hosted
        if hosted is not None:
            await _close(hosted)
        saved = None if turn.previous is None else await self._saved(turn.previous)
        hosted = await make(self._factory, turn.conversation, turn.roster)
        conversation.last, conversation.seen = turn.previous, []
        if saved is not None:
            await hosted.load_state(saved["state"])
            conversation.seen = list(saved["seen"])
        return hosted

    def put_back(self, conversation: Conversation, hosted: Hosted, task_id: str, seen: list[str]) -> None:
        """The instance has taken a turn."""
        conversation.hosted, conversation.last, conversation.seen = hosted, task_id, seen

    async def close(self) -> None:
        """Let go of all instances."""
        everything, self._all = list(self._all.values()), OrderedDict()
        await _close_all(each.hosted for each in everything)

    async def _saved(self, task_id: str) -> dict[str, Any]:
        owner = f"{normalize_namespace(self._agent.namespace)}/{self._agent.agent_id}"
        record = await self._agent.store.get(TaskKey(owner, "received", task_id))
        if record is None or not isinstance(record.saved, dict) or "state" not in record.saved:
            raise TaskFailed(
                f"the conversation as it was after turn {task_id} is not kept any more: reset it",
                code="CONVERSATION_LOST",
            )
        return record.saved

    async def _trim(self) -> None:
        idle = [name for name, each in self._all.items() if not each.users]
        gone = [self._all.pop(name) for name in idle[: max(0, len(idle) - self._limit)]]
        await _close_all(each.hosted for each in gone)


async def _close_all(instances: Iterable[Hosted | None]) -> None:
    for each in instances:
        if each is not None:
            await _close(each)


async def _close(hosted: Hosted) -> None:
    try:
        await hosted.close()
    except Exception:  # it is gone either way
        logger.warning("%s could not be closed", hosted.name, exc_info=True)
