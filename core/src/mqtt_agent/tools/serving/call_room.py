"""Bounds the memory of the calls that wait at a server: some brokers deliver any number of calls without an answer."""

from __future__ import annotations

from mqtt_agent.endpoints.room import Room
from mqtt_agent.tools.serving.execution import Execution
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire.messages import footprint

__all__ = ["CallRoom"]

_MOST = 128 * 1024 * 1024
"""Bytes of memory for the calls of proven callers, and as many for all others."""
_BESIDES = 3072
"""Bytes that a call takes besides its message, about."""


class CallRoom:
    """The room for the calls that wait for a free handler, and for the repeats of all calls.

    The room is shared among the callers, see :class:`Room`.
    """

    def __init__(self) -> None:
        self._room = Room(_MOST)

    def hold(self, execution: Execution) -> bool:
        """Use some of the room for a call that must wait. Returns whether its caller may use it."""
        size = footprint(execution.messages[0].payload) + _BESIDES
        taken = self._room.take(execution.call.client, size, proven=execution.proven)
        execution.held = size if taken else 0
        return taken

    def release(self, execution: Execution) -> None:
        """Note that a call does not wait any more."""
        self._room.leave(execution.call.client, execution.held, proven=execution.proven)
        execution.held = 0

    def join(self, execution: Execution, message: InboundMessage) -> None:
        """Keep a repeat of a call as long as the call. Without room, the repeat is acknowledged at once instead."""
        size, client = len(message.payload) + _BESIDES, execution.call.client
        if not self._room.take(client, size, proven=execution.proven):
            message.acknowledge()
            return
        execution.repeats += size
        dropped = execution.join(message)
        if dropped is not None:
            dropped.acknowledge()
            self._leave_repeats(execution, len(dropped.payload) + _BESIDES)

    def leave(self, execution: Execution) -> None:
        """Note that a call is over."""
        self.release(execution)
        self._leave_repeats(execution, execution.repeats)

    def _leave_repeats(self, execution: Execution, size: int) -> None:
        execution.repeats -= size
        self._room.leave(execution.call.client, size, proven=execution.proven)
