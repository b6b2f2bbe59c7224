"""A pool of MQTT.Agent, and a requester of it. Both keep their tasks in one PostgreSQL database.

python -m peers.pool member|requester AGENT_ID SECONDS CONCURRENCY mqtt://host:port postgresql://...

The handler waits for SECONDS, and returns its prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from mqtt_agent import Agent, PostgresStore, TaskContext

from peers import load


async def member(name: str, seconds: float, concurrency: int, url: str, database: str) -> None:
    agent = Agent(name, broker=url, store=PostgresStore(database), pool=True, max_concurrency=concurrency)

    @agent.on_task
    async def echo(task: TaskContext) -> str | None:
        if seconds:
            await asyncio.sleep(seconds)
        return task.prompt

    async with agent:
        load.ready()
        await asyncio.to_thread(load.wait_for_the_end)


@contextlib.asynccontextmanager
async def requester(name: str, url: str, database: str) -> AsyncIterator[load.AsyncCall]:
    async with Agent(f"{name}-gives", broker=url, store=PostgresStore(database)) as agent:

        async def call(text: str) -> str:
            handle = await agent.delegate(name, text, wait_online=True)
            return await handle.result(load.LONGEST_CALL)

        yield call


if __name__ == "__main__":
    role, agent_id, waits, slots, where, tasks = sys.argv[1:]
    if role == "member":
        asyncio.run(member(agent_id, float(waits), int(slots), where, tasks))
    else:
        load.run_async(requester(agent_id, where, tasks))
