"""Starts embedded brokers faster: a process that has imported ``iotcore`` already forks for each of them.

A new Python process that imports ``iotcore`` takes 0.2 s of CPU time, and more than a thousand tests have a broker of
their own. This works on Linux only. ``EmbeddedBroker`` as a user starts it has its own tests: those of the README, the
notebooks and the command line.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import iotcore

_one_at_a_time = threading.Lock()
_PROGRAM = Path(__file__).with_name("forking_program.py")


class _Process:
    """What ``iotcore.Broker`` needs of a ``subprocess.Popen``."""

    stdin = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._ended = False

    def poll(self) -> int | None:
        if not self._ended and select.select([self._descriptor], [], [], 0)[0]:
            self._close()
        return 0 if self._ended else None

    def _close(self) -> None:
        self._ended = True
        os.close(self._descriptor)

    def wait(self, timeout: float) -> int:
        if not self._ended:
            if not select.select([self._descriptor], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("the embedded broker", timeout)
            self._close()
        return 0

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:  # otherwise the descriptor may belong to another broker
            with contextlib.suppress(ProcessLookupError):  # it may end at this moment
                signal.pidfd_send_signal(self._descriptor, number)


@functools.cache
def _forking() -> subprocess.Popen[bytes]:
    """The process that forks; it ends with this process."""
    return subprocess.Popen([sys.executable, str(_PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def end_forking() -> None:
    """End the process that forks, if there is one. The brokers that it has forked end too."""
    if _forking.cache_info().currsize:
        with _forking():  # this closes its standard input, and waits for its end
            _forking.cache_clear()


class ForkedBroker(iotcore.Broker):
    """``iotcore.Broker`` with another way to start its process."""

    def start(self, timeout: float = 10.0) -> ForkedBroker:
        self._native.check_ports()
        forking = _forking()
        assert forking.stdin is not None
        assert forking.stdout is not None
        with _one_at_a_time:
            forking.stdin.write(json.dumps({"config_path": self.config_path, **self.options}).encode() + b"\n")
            forking.stdin.flush()
            process: Any = _Process(int(forking.stdout.readline()))
        self._process = process
        deadline = time.monotonic() + timeout
        while not all(self._listener_ready(each) for each in self.listeners):
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("the embedded broker did not start")
            time.sleep(0.005)
        return self
