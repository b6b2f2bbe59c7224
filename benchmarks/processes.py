"""The processes of a benchmark: start them, send them commands, and measure their CPU time and memory."""

from __future__ import annotations

import json
import os
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))

from brokers import Mosquitto, die_with_parent  # noqa: E402

__all__ = ["CouldNotRun", "Load", "Measured", "Mosquitto", "Worker", "free_url", "percentile"]

READY_WITHIN = 120.0
ANSWERS_WITHIN = 120.0


class CouldNotRun(Exception):
    """A process did not execute its command; the message says why."""


@dataclass
class Load:
    """The report of one client process about one turn of calls."""

    milliseconds: list[float]
    seconds: float

    @property
    def calls(self) -> int:
        return len(self.milliseconds)

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds

    @property
    def p50(self) -> float:
        return percentile(self.milliseconds, 50)

    @property
    def p99(self) -> float:
        return percentile(self.milliseconds, 99)


def percentile(values: Sequence[float], percent: int) -> float:
    """The nearest value above the 99th percentile; of few values, the largest one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Measured:
    """The CPU time and memory of a process, by its id."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    @property
    def cpu(self) -> float:
        """Seconds of CPU time since the start of the process."""
        times = self._process.cpu_times()
        return times.user + times.system

    @property
    def peak(self) -> float:
        """The peak memory in megabytes; the current memory if the system does not report the peak."""
        status = Path(f"/proc/{self._process.pid}/status")
        if status.exists():
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1000
        return self._process.memory_info().rss / 1e6


class Worker:
    """A process that reports when it is ready, and executes commands in JSON lines."""

    def __init__(self, command: Sequence[str]) -> None:
        self.name = " ".join(command[1:])
        self._log = (HERE / ".logs").joinpath("".join(c if c.isalnum() else "-" for c in self.name)[-100:] + ".log")
        self._log.parent.mkdir(exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=HERE,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                preexec_fn=die_with_parent,
            )
        self._said = b""
        self.pid = self._process.pid
        self.measured = Measured(self.pid)

    @classmethod
    def python(cls, *arguments: str) -> Worker:
        """Start one of the benchmark's Python modules, as with ``python -m``."""
        return cls([sys.executable, "-m", *arguments])

    def read(self, within: float = READY_WITHIN) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + within
        line: bytes | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._said:
                if not selector.select(max(0, deadline - time.monotonic())):
                    break
                said = os.read(self._process.stdout.fileno(), 1 << 20)
                if not said:
                    line = b""
                    break
                self._said += said
            else:
                line, _, self._said = self._said.partition(b"\n")
        if line is None:
            raise CouldNotRun(f"{self.name} did not answer within {within:g} s")
        if not line:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise CouldNotRun(f"{self.name} ended: {''.join(last) or 'no error output'}")
        return json.loads(line)

    def wait_ready(self) -> None:
        assert self.read(READY_WITHIN) == {"ready": True}

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        return self.read(command.get("seconds", 0) + ANSWERS_WITHIN)

    def load(self, at_once: int, seconds: float, text: str) -> Load:
        """Let the client make calls for this number of seconds."""
        return Load(**self.ask(at_once=at_once, seconds=seconds, text=text))

    def close(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def free_url() -> str:
    """A free URL for a server that needs no broker."""
    from brokers import free_port

    return f"http://127.0.0.1:{free_port()}/mcp"


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest value."""
    return statistics.median(values), min(values), max(values)
