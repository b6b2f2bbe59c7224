"""MQTT.Agent's tasks: one agent has a handler ``echo``, the other agent gives it tasks. Each has an SQLite store.

python -m peers.agents serve|serve-signed|request|delegate|delegate-signed [number] mqtt://host:port

The number says how many finished tasks the agent's store contains at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from mqtt_agent import Agent, SqliteStore, TaskContext
from mqtt_agent.agents.store import TaskKey, TaskRecord, TaskRole
from mqtt_agent.identity import Identity
from mqtt_agent.wire import Task, TaskResult, TaskState, Topics, to_json, utc_now

from peers import load
from peers.keys import identity_of

STORES = Path(__file__).parent.parent / ".stores"  # on a disk: the folder for temporary files may be in memory
DOES, GIVES = "bench-does", "bench-gives"
AT_ONCE = 64


def finished(number: int, role: TaskRole) -> TaskRecord:
    """A task that both agents finished long ago."""
    task = Task(task_id=f"{number:032x}", sender=GIVES, to=DOES, prompt="An old one. " * 10, created_at=utc_now())
    result = TaskResult(task_id=task.task_id, sender=DOES, to=GIVES, status="completed", result="Done. " * 10)
    return TaskRecord(
        key=TaskKey(f"{Topics().namespace}/{DOES if role == 'received' else GIVES}", role, task.task_id),
        peer=GIVES if role == "received" else DOES,
        task=to_json(task.model_dump(by_alias=True, exclude_none=True)),
        digest=task.digest,
        state=TaskState.COMPLETED,
        attempt=1,
        result=to_json(result.model_dump(by_alias=True, exclude_none=True)),
        settled=True,
    )


@contextlib.asynccontextmanager
async def store_with(count: int, role: TaskRole) -> AsyncIterator[SqliteStore]:
    """Make a new store with this number of finished tasks."""
    STORES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STORES) as folder:
        async with SqliteStore(Path(folder) / "tasks.db") as store:
            for first in range(0, count, 1000):
                numbers = range(first, min(first + 1000, count))
                await asyncio.gather(*(store.add(finished(number, role)) for number in numbers))
            yield store


async def serve(url: str, count: int, identity: Identity | None = None) -> None:
    async with store_with(count, "received") as store:
        agent = Agent(DOES, broker=url, store=store, max_concurrency=AT_ONCE, identity=identity)

        @agent.on_task
        async def echo(task: TaskContext) -> dict[str, str]:
            return {"text": task.prompt or ""}

        async with agent:
            load.ready()
            await asyncio.to_thread(load.wait_for_the_end)


@contextlib.asynccontextmanager
async def request(url: str, count: int) -> AsyncIterator[load.AsyncCall]:
    async with store_with(count, "delegated") as store, Agent(GIVES, broker=url, store=store) as agent:

        async def call(text: str) -> str:
            return (await agent.request(DOES, text, timeout=load.LONGEST_CALL))["text"]

        yield call


@contextlib.asynccontextmanager
async def delegate(url: str, count: int, identity: Identity | None = None) -> AsyncIterator[load.AsyncCall]:
    async with (
        store_with(count, "delegated") as store,
        Agent(GIVES, broker=url, store=store, identity=identity) as agent,
    ):

        async def call(text: str) -> str:
            handle = await agent.delegate(DOES, text)
            return (await handle.result(load.LONGEST_CALL))["text"]

        yield call


if __name__ == "__main__":
    role, *numbers, url = sys.argv[1:]
    count = int(numbers[0]) if numbers else 0
    if role == "serve":
        asyncio.run(serve(url, count))
    elif role == "serve-signed":
        asyncio.run(serve(url, count, identity_of(DOES, trusts=GIVES)))
    elif role == "delegate-signed":
        load.run_async(delegate(url, count, identity_of(GIVES, trusts=DOES)))
    else:
        load.run_async({"request": request, "delegate": delegate}[role](url, count))
