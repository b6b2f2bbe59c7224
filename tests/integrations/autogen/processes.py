"""Hosts and callers in their own processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brokers import die_with_parent
from forking import forked_program
from typing_extensions import Self

ROOT = Path(__file__).parents[3]
IMPORTED = ["autogen_agentchat.teams", "autogen_ext.models.replay", "autogen_mqtt_agent", "autogen_mqtt_agent.__main__"]
PROGRAMS = "tests.integrations.autogen.programs"


class Program:
    """A Python program that a test starts, kills and starts again.

    Args:
        arguments: The arguments of the Python command.
        prefix: The beginning of the command line, to run the program on another host.
        env: Environment variables.
    """

    def __init__(self, *arguments: str, prefix: Sequence[str] = (), **env: str) -> None:
        self._prefix = list(prefix)
        self._command = [sys.executable, *arguments]
        self._environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **env}
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> Self:
        where: Any = {"cwd": ROOT, "env": self._environment, "stdin": subprocess.DEVNULL}
        if self._prefix:
            command = [*self._prefix, *self._command]
            self._process = subprocess.Popen(command, preexec_fn=die_with_parent, **where)
        else:
            self._process = forked_program(IMPORTED, self._command, **where)
        return self

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the end of the process. Returns its status."""
        assert self._process is not None
        return self._process.wait(20)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(20)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


class HostProcess(Program):
    """``python -m autogen_mqtt_agent serve``, with its own store."""

    def __init__(self, factory: str, agent_id: str, broker: str, namespace: str, folder: Path, **more: Any) -> None:
        options = {"agent-id": agent_id, "broker": broker, "namespace": namespace, "store": f"{folder}/{agent_id}.db"}
        chosen = (f"--{name}={value}" for name, value in options.items())
        super().__init__("-m", "autogen_mqtt_agent", "serve", f"{PROGRAMS}:{factory}", *chosen, **more)
