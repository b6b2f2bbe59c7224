"""Starts programs faster: a process that has imported their large packages already forks for each of them.

LangChain, AutoGen and CrewAI take 1 to 7 s of CPU time to import, and most tests of killed processes start three to
five programs. A forked program is a process of its own: it can be killed, stopped and awaited as any other one. What a
program does from the first line of Python's start has its own tests: those of the command lines and of the examples.
"""

from __future__ import annotations

import functools
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brokers import die_with_parent

_PROGRAM = Path(__file__).with_name("forking_program.py")
_one_at_a_time = threading.Lock()
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


class _Forking:
    """A process that has imported modules, and that forks; it ends with this process."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, str(_PROGRAM), str(theirs.fileno()), *modules]
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL
            )
        self._answers = self._socket.makefile("r", encoding="utf-8")

    def ask(self, question: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
        """Ask the process to fork, or for the status of a process that has ended."""
        with _one_at_a_time:
            words = json.dumps(question).encode()
            self._socket.sendall((len(words) << 1 | bool(descriptors)).to_bytes(4, "big"))
            if descriptors:
                socket.send_fds(self._socket, [b"."], list(descriptors))
            self._socket.sendall(words)
            return int(self._answers.readline())

    def close(self) -> None:
        """End the process, and wait for its end."""
        self._answers.close()
        self._socket.close()
        self.process.wait(20)


_started: list[_Forking] = []


@functools.cache
def _forking(modules: tuple[str, ...]) -> _Forking:
    _started.append(_Forking(modules))
    return _started[-1]


def end_forking() -> None:
    """End the processes that fork. The programs that they have forked end too."""
    while _started:
        _started.pop().close()
    _forking.cache_clear()


class _ForkedProgram(subprocess.Popen[Any]):
    """A ``subprocess.Popen`` whose process is forked from one that has imported ``modules`` already."""

    def __init__(self, modules: Sequence[str], command: Sequence[str], **options: Any) -> None:
        self._parent = _forking(tuple(modules))
        self._descriptor = -1
        super().__init__(list(command), **options)

    def _execute_child(self, *given: Any) -> None:
        # The arguments are those of CPython's method: the command line, and at their end the pipes.
        names = subprocess.Popen._execute_child.__code__.co_varnames[1:]  # pyright: ignore
        options = dict(zip(names, given, strict=False))
        question = {
            "fork": [os.fspath(each) for each in options["args"][1:]],
            "cwd": os.fspath(options["cwd"] or os.getcwd()),
            "env": dict(os.environ if options["env"] is None else options["env"]),
        }
        theirs = [options["p2cread"], options["c2pwrite"], options["errwrite"]]
        self.pid = self._parent.ask(question, [number if each < 0 else each for number, each in enumerate(theirs)])
        self._descriptor = os.pidfd_open(self.pid)
        self._child_created = True
        self._close_pipe_fds(*(options[name] for name in PIPES))  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        timeout = 0 if wait_flags & os.WNOHANG else None
        if not select.select([self._descriptor], [], [], timeout)[0]:
            return 0, 0
        os.close(self._descriptor)
        return self.pid, self._parent.ask({"reap": self.pid})

    def _internal_poll(self, *given: Any, **options: Any) -> int | None:
        if self.returncode is None and self._child_created:
            pid, status = self._try_wait(os.WNOHANG)
            if pid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def prepare(modules: Sequence[str]) -> None:
    """Import the packages of later programs. Otherwise the first program waits for this, and with it the event loop."""
    if sys.platform == "linux":
        _forking(tuple(modules)).ask({"prepare": True})


def forked_program(modules: Sequence[str], command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a Python program that ends with this process. On Linux it is forked, elsewhere it is started as usual.

    Args:
        modules: The large packages that the program imports.
        command: ``[sys.executable, program, ...]`` or ``[sys.executable, "-m", module, ...]``.
        options: ``cwd``, ``env``, ``stdin``, ``stdout``, ``stderr`` and ``text`` of ``subprocess.Popen``.
    """
    if sys.platform == "linux":
        return _ForkedProgram(modules, command, **options)
    return subprocess.Popen(command, preexec_fn=die_with_parent, **options)
