"""Starts a command, and ends the command and all its descendants as soon as the bridge that wants it is gone.

The bridge runs this file as a process of its own: ``python guard.py FD COMMAND...``. FD is the reading end of a pipe
that only the bridge can write to. The pipe ends when the bridge ends, also when the bridge is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

__all__ = ["main"]

_SUBREAPER = 36  # prctl(PR_SET_CHILD_SUBREAPER)
_PATIENCE = 2.0
"""Seconds between SIGTERM and SIGKILL."""


def main() -> None:
    """Run the command, and exit with its exit code."""
    life, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":  # orphans of the command become children of this process, so that it finds them
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    os.set_inheritable(life, False)
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)  # noqa: T201
        os._exit(127)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this process is in the group that it ends
    nothing = os.open(os.devnull, os.O_RDWR)
    for pipe in (0, 1):  # these pipes are the command's alone: each end must see when the other one is gone
        os.dup2(nothing, pipe)
    threading.Thread(target=_end_with_the_bridge, args=(life,), daemon=True).start()
    status = 0
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child.pid:
            break
    _end_all()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _end_with_the_bridge(life: int) -> None:
    os.read(life, 1)
    _end_all()
    os._exit(0)


def _end_all() -> None:
    """End all descendants: first with SIGTERM, then with SIGKILL."""
    _signal_all(signal.SIGTERM)
    end = time.monotonic() + _PATIENCE
    while _descendants() and time.monotonic() < end:
        time.sleep(0.02)
    while _descendants():
        _signal_all(signal.SIGKILL)
        time.sleep(0.01)
    if sys.platform != "linux":
        os.killpg(0, signal.SIGKILL)


def _signal_all(number: signal.Signals) -> None:
    for pid in _descendants():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    if sys.platform != "linux":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(0, number if number == signal.SIGTERM else signal.SIGTERM)


def _descendants() -> list[int]:
    """The living processes that descend from this one. Only Linux tells them."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(stat.parent.name)] = int(parent)
    found, below = list[int](), {os.getpid()}
    while below:
        below = {pid for pid, parent in parents.items() if parent in below and pid not in found}
        found += below
    return found


if __name__ == "__main__":
    main()
