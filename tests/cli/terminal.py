"""Runs the command line in processes of its own, as a person at a terminal does."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest
from brokers import die_with_parent
from support import kill

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds for one command. A new Python process takes a while on a busy machine."""


def _as_at_a_terminal() -> None:
    """In a child process: end with the test process, and do not ignore Ctrl-C.

    A shell without job control starts a background job with SIGINT ignored, and children inherit that.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _beside_a_running_loop(run: Callable[[], T]) -> T:
    """Call a function that runs an event loop, also while Playwright runs one in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


@functools.cache
def _command_line() -> Any:
    """The command line with all verbs, which takes longer to make than to run."""
    import typer
    from mqtt_agent.cli.app import make_app

    return typer.main.get_command(make_app())


def _exit_code_of(words: Sequence[str]) -> int:
    """Run a command to its end in this process. Any exception except SystemExit is a fault."""
    with pytest.raises(SystemExit) as ended:
        _command_line().main(list(words), prog_name="mqtt-agent")
    sys.stdout.flush()
    sys.stderr.flush()
    return int(ended.value.code or 0)


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """The JSON values of the output."""
        return [json.loads(line) for line in self.out.splitlines()]


class Running:
    """A command that runs. ``says`` waits for a text in its output."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._all = b""

    def says(self, text: str, seconds: float = PATIENCE) -> str:
        """Wait until the command has written a text, and return everything that it has written."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for stream in self._streams():
                selector.register(stream, selectors.EVENT_READ)
            while text.encode() not in self._all:
                left = deadline - time.monotonic()
                assert left > 0, f"it did not say {text!r}: {self._all.decode()}"
                for key, _ in selector.select(left):
                    piece = os.read(key.fd, 65536)
                    if not piece:
                        selector.unregister(key.fileobj)
                    self._all += piece
                assert selector.get_map() or text.encode() in self._all, f"it ended: {self._all.decode()}"
        return self._all.decode()

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        return self.signal(signal.SIGINT)

    def signal(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        return self.ends()

    def ends(self) -> int:
        """Wait for the end, and return the exit code."""
        out, err = self._process.communicate(timeout=PATIENCE)
        self._all += out + err
        assert b"Traceback" not in self._all, self._all.decode()
        return self._process.returncode

    def kill(self) -> None:
        kill(self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self._all.decode()

    def _streams(self) -> Iterator[IO[bytes]]:
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            yield stream


class Terminal:
    """A user's terminal: a working folder, a home of its own, and a broker."""

    def __init__(self, home: Path, url: str, namespace: str) -> None:
        self.home = home
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MQTT_AGENT_")},
            "MQTT_AGENT_BROKER": url,
            "MQTT_AGENT_NAMESPACE": namespace,
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"),
            "HOME": str(home),
            "TERM": "dumb",
            "COLUMNS": "100",
        }
        self._running: list[Running] = []

    def run(self, *words: str, code: int = 0, stdin: str = "", **environment: str) -> Said:
        """Run a command to its end. It must end with this exit code, and never with a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "mqtt_agent.cli", *words],
            cwd=self.home,
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            preexec_fn=_as_at_a_terminal,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Said(done.returncode, done.stdout, done.stderr)

    def inside(self, *words: str, code: int = 0, stdin: str = "", **environment: str) -> Said:
        """Run a command to its end in this process, for what a process of its own would not show better.

        Not for tasks without ``--as``: the name of the command line is locked for the life of the process.
        """
        from typer.testing import CliRunner  # not installed where only the adapters' lowest versions are

        hidden: dict[str, str | None] = {key: None for key in os.environ if key.startswith("MQTT_AGENT_")}
        before, path = os.getcwd(), list(sys.path)
        loggers = [logging.getLogger(name) for name in ("mqtt_agent", "mqtt_agent.adapting.identity")]
        levels = [logger.level for logger in loggers]
        os.chdir(self.home)
        try:
            with CliRunner().isolation(stdin, {**hidden, **self.environment, **environment}) as (out, err, *_):
                ended = _beside_a_running_loop(lambda: _exit_code_of(words))
                said = Said(ended, out.getvalue().decode(), err.getvalue().decode())
        finally:
            os.chdir(before)
            sys.path[:] = path
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)  # a command may make its process say less
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", None)).startswith(str(self.home)):
                    del sys.modules[name]
        assert said.code == code, f"exit code {said.code}\n{said.out}\n{said.err}"
        return said

    def start(self, *words: str, stdin: int = subprocess.PIPE, **environment: str) -> Running:
        """Start a command that runs until it is told to end. ``stdin`` may be a pseudo-terminal."""
        return self._started(["-m", "mqtt_agent.cli", *words], stdin, environment)

    def program(self, file: str, *words: str, **environment: str) -> Running:
        """Start a Python program of the working folder."""
        return self._started([file, *words], subprocess.PIPE, environment)

    def _started(self, words: list[str], stdin: int, environment: dict[str, str]) -> Running:
        running = Running(
            subprocess.Popen(
                [sys.executable, *words],
                cwd=self.home,
                env={**self.environment, **environment},
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                preexec_fn=_as_at_a_terminal,
            )
        )
        self._running.append(running)
        return running

    def write(self, name: str, text: str) -> None:
        (self.home / name).write_text(text)

    def close(self) -> None:
        for running in self._running:
            running.kill()


def address(running: Running) -> str:
    """The address that a console has printed."""
    [found] = re.findall(r"http://127\.0\.0\.1:\d+/#token=[\w-]+", running.says("token="))
    return found
