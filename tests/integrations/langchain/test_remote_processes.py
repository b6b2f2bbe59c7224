"""A graph and the agent that it delegates to, in processes that are killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Embedded
from forking import forked_program, prepare
from support import kill, soon, until

LONG_ON = [Embedded]

PROGRAMS = Path(__file__).parents[2] / "programs"
IMPORTED = ["langchain.agents", "langchain_mqtt_agent.__main__", "langgraph.checkpoint.sqlite", "langgraph.graph"]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(broker: Broker, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Starts programs that die with the test."""
    prepare(IMPORTED)
    started: list[subprocess.Popen[str]] = []

    def begin(program: str, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAMS / program), broker.url, namespace, str(tmp_path), *args]
        process = forked_program(IMPORTED, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        kill(process)


def lines(folder: Path) -> list[list[str]]:
    log = folder / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


async def output_of(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    output = await soon(asyncio.to_thread(process.stdout.read), 40)
    assert process.wait(10) == 0
    return json.loads(output)


async def both_are_killed(start: Start, folder: Path, durability: str) -> None:
    """The graph and its worker, in the middle of the task, after its first checkpoint."""
    processes = start("graph_host.py", "start", durability), start("task_worker.py", "2")
    await until(lambda: ["saved"] in lines(folder), 40)
    for process in processes:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("durability", [pytest.param("sync", marks=pytest.mark.long), "async"])
async def test_a_killed_graph_resumes_to_the_one_result_of_a_killed_executor(
    start: Start, tmp_path: Path, durability: str
) -> None:
    await both_are_killed(start, tmp_path, durability)
    start("task_worker.py", "2")
    messages = await output_of(start("graph_host.py", "resume", durability))
    result = "result of attempt 2 after page 2"
    assert messages == ["a long task", result, f"seen: {result}"]
    begun = [line for line in lines(tmp_path) if line[0] == "begun"]
    assert [line[2] for line in begun] == ["1", "2"]
    assert begun[1][3:] == ["{'page':", "1}"]
    assert len([line for line in lines(tmp_path) if line[0] == "done"]) == 1
    assert len({line[1] for line in begun}) == 1


async def test_a_result_that_came_while_the_graph_was_dead_is_in_its_state(start: Start, tmp_path: Path) -> None:
    await both_are_killed(start, tmp_path, "sync")
    start("task_worker.py", "2")
    await until(lambda: any(line[0] == "done" for line in lines(tmp_path)), 40)
    messages = await output_of(start("graph_host.py", "resume"))
    assert messages[1] == "result of attempt 2 after page 2"
    assert await output_of(start("graph_host.py", "resume")) == messages
    assert len([line for line in lines(tmp_path) if line[0] == "done"]) == 1


@pytest.mark.parametrize("durability", [pytest.param("exit", marks=pytest.mark.long), "none"])
async def test_a_killed_graph_that_wrote_no_checkpoint_cannot_be_resumed_and_begins_anew(
    start: Start, tmp_path: Path, durability: str
) -> None:
    await both_are_killed(start, tmp_path, durability)
    start("task_worker.py", "1")
    await until(lambda: any(line[0] == "done" for line in lines(tmp_path)), 40)
    resumed = start("graph_host.py", "resume", durability)
    assert await soon(asyncio.to_thread(resumed.wait, 40), 41) != 0
    messages = await output_of(start("graph_host.py", "start", durability))
    assert messages[1] == "result of attempt 1 after page 1"
    begun = [line for line in lines(tmp_path) if line[0] == "begun"]
    assert [line[2] for line in begun] == ["1", "2", "1"]
    assert begun[0][1] == begun[1][1] != begun[2][1]
