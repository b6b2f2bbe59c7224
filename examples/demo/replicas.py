"""The demo's tool servers: each replica is ``server.py`` in its own process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import server

STOPS_WITHIN = 3.0


@dataclass(frozen=True)
class Replica:
    """One running replica."""

    name: str
    process: asyncio.subprocess.Process

    @property
    def server_id(self) -> str:
        """The id of the replica in its cards and its answers."""
        return f"{server.NAME}:{self.name}"

    @property
    def pid(self) -> int:
        """The process id of the replica."""
        return self.process.pid

    def kill(self) -> None:
        """Send SIGKILL: the process has no time to send anything."""
        self.process.kill()

    def stop(self) -> None:
        """Send SIGTERM: the replica finishes its calls, publishes that it is offline, and ends."""
        self.process.terminate()

    async def died(self) -> str:
        """Wait for the end of the process, and return the last line of its standard error, which tells the reason."""
        assert self.process.stderr is not None
        *_, last = [b"no error output", *(await self.process.stderr.read()).splitlines()]
        return f"{self.server_id} ended with exit code {await self.process.wait()}: {last.decode(errors='replace')}"


@contextlib.asynccontextmanager
async def running(name: str, folder: Path, broker: str) -> AsyncIterator[Replica]:
    """Start a replica, without waiting until it is online. The replica is always ended when the context is left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, server.__file__, "--dir", str(folder), "--replica", name, "--end-with-parent"),
        stdin=asyncio.subprocess.PIPE,  # never written to: the replica ends when this pipe closes, also after a kill
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches only the demo, and the demo then stops its replicas in an orderly way
        env={**os.environ, "MQTT_AGENT_BROKER": broker},  # not an argument: the URL may contain a password
    )
    try:
        yield Replica(name, process)
    finally:
        try:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), STOPS_WITHIN)
        except asyncio.TimeoutError:
            pass  # the process is killed below
        finally:
            if process.returncode is None:
                process.kill()
