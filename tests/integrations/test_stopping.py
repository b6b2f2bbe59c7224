"""SIGTERM to a process whose plain functions block: the process ends soon, and no task is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import Mosquitto, die_with_parent
from mqtt_agent import Agent, MemoryStore, ToolClient
from mqtt_agent.errors import ToolUnavailable
from support import soon, until

TESTS = Path(__file__).parents[1]
ENDS_WITHIN = 8.0
"""Seconds: one of the drain timeout, two for canceled handlers, and the rest for a busy machine."""

Start = Callable[[str], "subprocess.Popen[bytes]"]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def start(mosquitto: Mosquitto, namespace: str, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(what: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(TESTS / "programs" / "stuck.py"), what, mosquitto.url, namespace, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        started.append(subprocess.Popen[bytes](command, env=environment, preexec_fn=die_with_parent))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def runs(folder: Path) -> list[str]:
    return (folder / "runs").read_text().split() if (folder / "runs").exists() else []


@pytest.mark.parametrize(
    "what", ["plain_task", "graph", pytest.param("blocking_graph", marks=pytest.mark.long), "autogen"]
)
async def test_a_stopped_host_whose_code_blocks_ends_and_its_task_is_done_after_the_restart(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path, start: Start, what: str
) -> None:
    async with Agent("planner", broker=mosquitto.url, namespace=namespace, store=MemoryStore()) as planner:
        host = start(what)
        handle = await soon(planner.delegate("host", "go", wait_online=True), 60)
        await until(lambda: runs(tmp_path) == ["run"], 60)
        host.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(host.wait, ENDS_WITHIN) == 0
        assert runs(tmp_path) == ["run", "stopped"]
        (tmp_path / "open").touch()
        start(what)
        assert "done" in str(await soon(handle.result(), 60))
        assert handle.attempt == 2


@pytest.mark.parametrize("what", ["plain_tool", "langchain_tool"])
async def test_a_stopped_server_whose_tool_blocks_ends_and_answers_the_call(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path, start: Start, what: str
) -> None:
    async with ToolClient("caller", broker=mosquitto.url, namespace=namespace) as client:
        server = start(what)
        running = asyncio.create_task(client.call("block", wait_online=True, timeout=60))
        await until(lambda: runs(tmp_path) == ["run"], 60)
        server.send_signal(signal.SIGTERM)
        with pytest.raises(ToolUnavailable) as told:
            await soon(running, ENDS_WITHIN)
        assert told.value.maybe_executed
        assert await asyncio.to_thread(server.wait, ENDS_WITHIN) == 0
        assert runs(tmp_path) == ["run", "stopped"]
