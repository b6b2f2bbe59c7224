"""Named places at which a test can kill the process, so that each gap between two writes can be tested.

Set ``MQTT_AGENT_CRASH_POINT`` to the name of a place. The process sends itself SIGKILL when it reaches the place for
the first time, or with ``name:3`` for the third time. Only this module reads the variable.
"""

from __future__ import annotations

import asyncio
import os
import signal

__all__ = ["POINTS", "reached", "reached_when_sent"]

POINTS: frozenset[str] = frozenset(
    (
        "received.before-commit",
        "received.after-commit",
        "received.after-puback",
        "finished.before-commit",
        "finished.after-commit",
        "result.published",
        "result.confirmed",
        "delegated.before-commit",
        "delegated.after-commit",
        "delegated.published",
        "outcome.before-commit",
        "outcome.after-commit",
    )
)
"""The names. At an executor: ``received`` when a task arrives, ``finished`` when a handler ends, ``result`` when the
result is sent. At a requester: ``delegated`` when a task is delegated, ``outcome`` when its result arrives."""

_setting = os.environ.get("MQTT_AGENT_CRASH_POINT", "").split(":")
_name = _setting[0]
_left = int(_setting[1]) if len(_setting) > 1 else 1


def reached(point: str) -> None:
    """Kill the process, if this is the chosen point."""
    if _name and point == _name:
        global _left
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def reached_when_sent(point: str) -> None:
    """Kill the process, if this is the chosen point, when all earlier packets have been written to the socket.

    The event loop writes packets on its next turn, so this function waits for some turns first. When another point is
    chosen, the function returns at once.
    """
    if _name and point == _name:
        for _ in range(3):
            await asyncio.sleep(0)
        reached(point)
