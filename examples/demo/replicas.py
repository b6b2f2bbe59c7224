"""The demo's tool servers: each a replica of ``server.py`` in a process of its own."""

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
        """How its cards and its answers call it."""
        return f"{server.NAME}:{self.name}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def kill(self) -> None:
        """End it with SIGKILL: it has no time to say anything."""
        self.process.kill()

    def stop(self) -> None:
        """Ask it with SIGTERM to finish what it does, say goodbye, and end."""
        self.process.terminate()

    async def died(self) -> str:
        """Wait for its end; the last line that it wrote to its standard error says why."""
        assert self.process.stderr is not None
        *_, last = [b"no word of why", *(await self.process.stderr.read()).splitlines()]
        return f"{self.server_id} ended with exit code {await self.process.wait()}: {last.decode(errors='replace')}"


@contextlib.asynccontextmanager
async def running(name: str, folder: Path, broker: str) -> AsyncIterator[Replica]:
    """Start a replica, which is not online yet then. Whatever happens, it is not left running at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, server.__file__, "--dir", str(folder), "--replica", name, "--end-with-parent"),
        stdin=asyncio.subprocess.PIPE,  # never written to: the replica ends when this closes, should we be killed
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the demo alone, which then stops its replicas in good order
        env={**os.environ, "MQTT_AGENT_BROKER": broker},  # not an argument: the URL may hold a password
    )
    try:
        yield Replica(name, process)
    finally:
        try:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), STOPS_WITHIN)
        except asyncio.TimeoutError:
            pass  # then it has to be
        finally:
            if process.returncode is None:
                process.kill()
