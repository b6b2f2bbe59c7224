"""Bounds the memory of the handlers that wait for answers: they hold no slot, so any number of them could wait."""

from __future__ import annotations

from mqtt_agent.endpoints.room import Room
from mqtt_agent.errors import TaskRejected
from mqtt_agent.wire import Task, encode
from mqtt_agent.wire.messages import footprint

__all__ = ["Seat", "Seats"]

_MOST = 1024 * 1024 * 1024
"""Bytes of memory for the handlers that wait for answers to tasks of proven requesters, and as many for all others."""
_BESIDES = 16 * 1024
"""Bytes that a handler takes besides its task, about."""


class Seat:
    """The place of one handler among the handlers that wait for an answer.

    Args:
        room: The room for all these handlers.
        agent_id: The agent of the handlers.
        task: The task of the handler.
        proven: Whether something proves the requester of the task.
    """

    def __init__(self, room: Room, agent_id: str, task: Task, proven: bool) -> None:
        self._room = room
        self._agent_id = agent_id
        self._task = task
        self._proven = proven
        self._size = 0

    def take(self) -> None:
        """Take the place before the handler waits.

        Raises:
            TaskRejected: Too many tasks of the requester wait for an answer.
        """
        requester, size = self._task.sender or "", footprint(encode(self._task)) + _BESIDES
        if not self._room.take(requester, size, proven=self._proven):
            what = f"too many tasks of {requester or 'requesters without a name'} wait for an answer"
            raise TaskRejected(f"{what} at agent {self._agent_id}: answer or cancel some of them", code="overloaded")
        self._size = size

    def leave(self) -> None:
        """Give the place back."""
        self._room.leave(self._task.sender or "", self._size, proven=self._proven)
        self._size = 0


class Seats:
    """The places of all handlers that wait for an answer. They are shared among the requesters, see :class:`Room`.

    Args:
        agent_id: The agent of the handlers.
    """

    def __init__(self, agent_id: str) -> None:
        self._agent_id = agent_id
        self._room = Room(_MOST)

    def seat(self, task: Task, *, proven: bool) -> Seat:
        """The place of the handler of a task, which it takes while it waits."""
        return Seat(self._room, self._agent_id, task, proven)
