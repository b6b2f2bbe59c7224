"""Interactive use in a Jupyter kernel."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Embedded
from mqtt_agent import TaskContext
from mqtt_agent.sync import Agent

from tests.notebooks.kernels import Kernel

AGENT = "from mqtt_agent import Agent; planner = Agent('planner', broker={url!r}, store={store!r})"
SYNC_AGENT = AGENT.replace("mqtt_agent import", "mqtt_agent.sync import")


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel


@pytest.fixture
def agent(kernel: Kernel, embedded: Embedded, tmp_path: Path) -> Iterator[Kernel]:
    """The kernel with a started agent ``planner``, on the async API."""
    kernel.run(AGENT.format(url=embedded.url, store=str(tmp_path / "planner.db")))
    kernel.run("await planner.start()")
    yield kernel
    kernel.run("await planner.stop()")


@pytest.fixture
def writer(embedded: Embedded, tmp_path: Path) -> Iterator[Agent]:
    """An agent in this process, controlled by the test."""
    with Agent("writer", broker=embedded.url, store=tmp_path / "writer.db", drain_timeout=0.1) as writer:
        yield writer


def plain(traceback: list[str]) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(traceback))


def shown(outputs: list[dict[str, Any]]) -> list[str]:
    kinds = ("display_data", "update_display_data", "execute_result")
    return [each["data"].get("text/html", "") for each in outputs if each["type"] in kinds]


def test_progress_is_drawn_live_in_one_place_by_either_face(
    writer: Agent, agent: Kernel, embedded: Embedded, tmp_path: Path
) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str:
        await task.progress(1, total=4, message="page 1")
        return await task.ask("Go on?")

    agent.run("handle = await planner.delegate('writer', 'write', wait_online=True)")
    drawn = [each for each in agent.run("await handle.show()") if "data" in each]
    assert [each["type"] for each in drawn] == ["display_data"] + ["update_display_data"] * (len(drawn) - 1)
    assert len({each["transient"]["display_id"] for each in drawn}) == 1
    assert "Go on?" in shown(drawn)[-1]
    agent.run("await handle.send('yes')")
    assert "completed" in shown(agent.run("await handle.show()"))[-1]
    assert "writer" in shown(agent.run("await planner.peers()"))[-1]
    agent.run(SYNC_AGENT.replace("planner", "script").format(url=embedded.url, store=str(tmp_path / "script.db")))
    agent.run("script.start(); blocking = script.delegate('writer', 'write', wait_online=True)")
    assert "Go on?" in shown(agent.run("blocking.show()"))[-1]
    agent.run("script.stop()")


def test_interrupting_the_kernel_ends_a_blocking_show(
    writer: Agent, kernel: Kernel, embedded: Embedded, tmp_path: Path
) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> None:
        await task.progress(1, total=4, message="page 1")
        await asyncio.Event().wait()

    kernel.run(SYNC_AGENT.format(url=embedded.url, store=str(tmp_path / "script.db")))
    kernel.run("planner.start()\nhandle = planner.delegate('writer', 'write', wait_online=True)")
    cell = kernel.send("handle.show()")
    kernel.outputs(cell, until="page 1")
    kernel.manager.interrupt_kernel()
    [error] = [each for each in kernel.outputs(cell) if each["type"] == "error"]
    assert error["ename"] == "KeyboardInterrupt"
    assert kernel.text("print(handle.state)").strip() == "working", "and the task goes on"
    kernel.run("planner.stop()")


def test_a_traceback_is_short_and_names_the_next_step(agent: Kernel) -> None:
    cell = "name = 'nobody'\nawait planner.delegate(name, 'x')"
    [error] = [each for each in agent.outputs(agent.send(cell)) if each["type"] == "error"]
    assert (error["ename"], "no agent 'nobody'" in error["evalue"]) == ("PeerUnavailable", True)
    assert plain(error["traceback"]).splitlines() == [
        "line 2: await planner.delegate(name, 'x')",
        "",
        "PeerUnavailable: no agent 'nobody' has been seen in namespace 'a2a/v1'; the task was not sent: "
        "check the id with peers(), or pass wait_online=True; this namespace has no other agent at all: "
        "do all programs use the same broker and the same namespace?",
        "Next: await agent.peers() lists the agents that are online; wait_online=True sends the task anyway.",
        "(Run %xmode Verbose before the cell to see the whole traceback.)",
    ]
    agent.run("%xmode Verbose")
    [error] = [each for each in agent.outputs(agent.send(cell)) if each["type"] == "error"]
    assert "requester.py" in plain(error["traceback"])
    agent.run("%xmode Context")


def test_a_restarted_kernel_resumes_its_delegations_by_id(
    writer: Agent, kernel: Kernel, embedded: Embedded, tmp_path: Path
) -> None:
    started: list[str] = []

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        started.append(task.id)
        return f"{await task.ask('Which year?')} in {task.attempt} attempt"

    store = str(tmp_path / "planner.db")
    kernel.run(AGENT.format(url=embedded.url, store=store))
    task_id = kernel.text(
        "await planner.start()\n"
        "handle = await planner.delegate('writer', 'write', wait_online=True)\n"
        "await handle.show()\n"
        "print(handle.task_id, end='')"
    ).split()[-1]
    kernel.kill_and_restart()
    kernel.run(AGENT.format(url=embedded.url, store=store))
    assert task_id in shown(kernel.run("await planner.start()\nawait planner.delegations()"))[-1]
    kernel.run(f"handle = await planner.resume({task_id!r})")
    assert "Which year?" in shown(kernel.run("await handle.show()"))[-1]
    assert kernel.text("await handle.send(2024)\nprint(await handle.result())").strip() == "2024 in 1 attempt"
    assert started == [task_id]
    kernel.run("await planner.stop()")
