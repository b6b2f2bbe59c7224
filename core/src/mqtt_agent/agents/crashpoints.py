"""Named places at which a test can have the process killed, so that each window between two writes can be tested.

Set ``MQTT_AGENT_CRASH_POINT`` to a name, and the process sends itself SIGKILL when it gets there the first time; with
``name:3``, the third time. Nothing else in the package looks at it.
"""

from __future__ import annotations

import asyncio
import os
import signal

__all__ = ["POINTS", "reached", "reached_when_sent"]

POINTS = frozenset(
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
"""Where it can be: when an agent takes a task in, when it finishes one, when its result is sent; and at the requester,
when a task is given away and when its outcome comes."""

_name, _nth = os.environ.get("MQTT_AGENT_CRASH_POINT", "").partition(":")[::2]
_left = int(_nth or 1)


def reached(point: str) -> None:
    """The work is at this point."""
    if _name and point == _name:
        global _left
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def reached_when_sent(point: str) -> None:
    """The same, for a point after a packet: what was handed over is written to the socket only on the loop's next turn.

    It does not wait unless this point is the one.
    """
    if _name and point == _name:
        for _ in range(3):
            await asyncio.sleep(0)
        reached(point)
