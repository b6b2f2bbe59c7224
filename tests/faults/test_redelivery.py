"""A process is killed while its store is busy: the broker delivers again what was not acknowledged, and nobody asks.

The peers of the killed process do not use our code. They send each message once, and repeat nothing. So these tests
fail when a message is acknowledged before it is stored.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from brokers import Mosquitto
from packets import Packet, PacketProxy
from processes import AgentProcess, AgentProcesses
from support import soon

from ..conformance.foreign import ForeignExecutor, ForeignRequester

WRITER, PLANNER = "writer", "planner"


@pytest.fixture
async def proxy(mosquitto: Mosquitto) -> AsyncIterator[PacketProxy]:
    """The network of the process that is killed."""
    async with PacketProxy(mosquitto.url) as proxy:
        yield proxy


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    """Keep a store's file locked: every write waits."""
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


async def killed_before_it_could_store(process: AgentProcess, proxy: PacketProxy, message: Packet) -> None:
    assert proxy.puback(message) is None, "acknowledged before it was stored"
    await process.kill()
    assert proxy.puback(message) is None


@pytest.mark.rule("TASK-3", "SESSION-1")
async def test_a_task_whose_executor_is_killed_before_it_is_stored_is_delivered_again_by_the_broker(
    mosquitto: Mosquitto, proxy: PacketProxy, agents: AgentProcesses, tmp_path: Path, namespace: str
) -> None:
    requester = ForeignRequester(mosquitto.url, namespace, "scout")
    await soon(requester.start())
    executor = await agents.start(WRITER, proxy.url, executes=True)
    with locked(tmp_path / "writer.db"):
        await requester.give("t-1", data={"n": 7})
        message = await proxy.publish(f"{namespace}/tasks/{WRITER}/inbox", up=False)
        # Refusing these tasks needs no store. So when both rejections have arrived, the first task waits for the store.
        for task_id in ("for-another-1", "for-another-2"):
            await requester.give(task_id, to="another")
            assert (await requester.result(task_id))["error"]["type"] == "invalid_task"
        await killed_before_it_could_store(executor, proxy, message)
    executor = await agents.start(WRITER, proxy.url, executes=True)
    assert (await requester.result("t-1"))["result"] == {"square": 49}
    assert executor.told("began", task_id="t-1", attempt=1)
    assert agents.executions == {"t-1": 1}
    await soon(requester.stop())


@pytest.mark.rule("RESULT-5", "SESSION-1")
async def test_a_result_whose_requester_is_killed_before_it_is_stored_is_delivered_again_by_the_broker(
    mosquitto: Mosquitto, proxy: PacketProxy, agents: AgentProcesses, tmp_path: Path, namespace: str
) -> None:
    executor = ForeignExecutor(mosquitto.url, namespace, "scout")
    await soon(executor.start())
    planner = await agents.start(PLANNER, proxy.url)
    await planner.delegate("scout", "t-1", listen=True, n=7)
    task = await executor.next_task()
    with locked(tmp_path / "planner.db"):
        await executor.answer(task, result=49)
        message = await proxy.publish(f"{namespace}/tasks/{PLANNER}/results", up=False)
        # Events need no store. So when the second event has been reported, the result waits for the store.
        for number in (1, 2):
            await executor.event(task, number, content=f"part {number}")
            await planner.tells("partial", content=f"part {number}")
        await killed_before_it_could_store(planner, proxy, message)
    planner = await agents.start(PLANNER, proxy.url)
    planner.say("resume", task_id="t-1")
    assert await planner.result("t-1") == 49
    assert len(proxy.published(f"{namespace}/tasks/{PLANNER}/results", up=False)) >= 2
    await soon(executor.stop())
