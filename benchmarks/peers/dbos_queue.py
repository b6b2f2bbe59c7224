"""DBOS: a queue in PostgreSQL whose workflow returns its argument.

python -m peers.dbos_queue serve|call CONCURRENCY postgresql://...

Both sides look for work every 20 ms, and not every second as by default: otherwise a turn would measure this setting.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from dbos import DBOS, DBOSClient, DBOSConfig

from peers import load

EVERY = 0.02


@DBOS.workflow()
async def echo(text: str) -> str:
    return text


async def serve(concurrency: int, database: str) -> None:
    config: DBOSConfig = {"name": "bench", "system_database_url": database, "log_level": "ERROR"}
    DBOS(config=config)
    DBOS.launch()
    await DBOS.register_queue_async("bench", worker_concurrency=concurrency, polling_interval_sec=EVERY)
    load.ready()
    await asyncio.to_thread(load.wait_for_the_end)
    DBOS.destroy()


@contextlib.asynccontextmanager
async def call(database: str) -> AsyncIterator[load.AsyncCall]:
    client = DBOSClient(system_database_url=database)

    async def one(text: str) -> str:
        handle = await client.enqueue_async({"queue_name": "bench", "workflow_name": echo.__qualname__}, text)
        return await handle.get_result(polling_interval_sec=EVERY)

    yield one
    client.destroy()


if __name__ == "__main__":
    role, slots, where = sys.argv[1:]
    if role == "serve":
        asyncio.run(serve(int(slots), where))
    else:
        load.run_async(call(where))
