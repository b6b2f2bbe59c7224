"""Agents in their own processes. Tests send them commands, read their output and kill them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brokers import die_with_parent

PROGRAM = Path(__file__).parent / "programs" / "task_agent.py"
PATIENCE = 30.0


class AgentProcess:
    """One run of programs/task_agent.py.

    ``events`` contains all lines that the process has written so far.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.events: list[dict[str, Any]] = []
        self._process = process
        self._log = log
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()
        await self._process.wait()
        async with self._news:
            self._news.notify_all()

    def told(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The lines of this kind that the process has written."""
        wanted = {"event": event, **fields}
        return [each for each in self.events if wanted.items() <= each.items()]

    async def tells(self, event: str, *, within: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """Wait until the process writes such a line."""

        async def wait() -> None:
            async with self._news:
                while not self.told(event, **fields):
                    assert self._process.returncode is None, f"{self.name} ended: {self._said()}"
                    await self._news.wait()

        try:
            await asyncio.wait_for(wait(), within)
        except asyncio.TimeoutError:
            raise AssertionError(f"{self.name} did not tell {event} {fields}: {self._said()}") from None
        return self.told(event, **fields)[0]

    def _said(self) -> str:
        return f"{self.events[-20:]}\n{self._log.read_text(errors='replace')[-3000:]}"

    def say(self, do: str, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **command}).encode() + b"\n")

    async def delegate(self, peer: str, task_id: str, *, listen: bool = False, **data: Any) -> None:
        """Let the process delegate a task, and wait until it has done so."""
        self.say("delegate", peer=peer, task_id=task_id, data=data, listen=listen)
        await self.tells("delegated", task_id=task_id)

    async def result(self, task_id: str, within: float = PATIENCE) -> Any:
        """Wait for the result of a task that the process has delegated or resumed."""
        return (await self.tells("result", within=within, task_id=task_id))["value"]

    async def died(self) -> None:
        """Wait until the process ends at its crash point."""
        code = await asyncio.wait_for(self._process.wait(), PATIENCE)
        assert code == -9, self._said()
        await self._reading

    async def terminate(self) -> None:
        """Let the process stop in order, and wait for its end."""
        self._process.terminate()
        code = await asyncio.wait_for(self._process.wait(), PATIENCE)
        assert code == 0, self._said()
        await self._reading

    async def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._reading


class AgentProcesses:
    """Starts agent processes in one namespace, with a ledger file into which all handlers write.

    Args:
        folder: The folder for stores, logs and the ledger; the store of an agent id is kept when its process ends.
        namespace: The namespace of the topics.
        store: The URL of the database that keeps the tasks of all agents; None for an SQLite file for each agent id.
    """

    def __init__(self, folder: Path, namespace: str, store: str | None = None) -> None:
        self.folder = folder
        self.namespace = namespace
        self._store = store
        self._started: list[AgentProcess] = []
        self._ledger = folder / "ledger"
        self._ledger.touch()

    async def start(
        self,
        name: str,
        url: str,
        *,
        executes: bool = False,
        crash_point: str | None = None,
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> AgentProcess:
        """Start an agent, and wait until it is online; an agent with a crash point may end before that."""
        command = [*prefix, sys.executable, str(PROGRAM), url, self.namespace, name, self.store_of(name)]
        command += [str(self._ledger), *(["--executes"] if executes else []), *options]
        environment = {key: value for key, value in os.environ.items() if key != "MQTT_AGENT_CRASH_POINT"}
        if crash_point is not None:
            environment["MQTT_AGENT_CRASH_POINT"] = crash_point
        log = self.folder / f"{name}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environment,
                preexec_fn=die_with_parent,
            )
        agent = AgentProcess(name, process, log)
        self._started.append(agent)
        if crash_point is None:
            await agent.tells("started")
        return agent

    def store_of(self, name: str) -> str:
        """The place of an agent's store: a path, or the URL of a database."""
        return self._store or f"{self.folder}/{name}.db"

    @property
    def executions(self) -> Counter[str]:
        """For each task, the number of times that the handler has reached its end."""
        return Counter(line.split()[0] for line in self._ledger.read_text().splitlines())

    async def close(self) -> None:
        for agent in self._started:
            await agent.kill()
