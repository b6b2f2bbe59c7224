"""DBOS: a durable workflow that returns its argument, started directly, or enqueued for another process.

python -m peers.dbos_tasks serve|call|idle|direct default|SECONDS http://host:port/|postgresql://...

SECONDS is how often both sides look for work and for results: by default DBOS looks once in a second, and then a turn
would measure this setting. The port of an ``http`` URL names the SQLite file that both processes use, because DBOS
needs no other connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions

from peers import load

STORES = Path(__file__).parent.parent / ".stores"  # on a disk: the folder for temporary files may be in memory
QUEUE = "bench"
AT_ONCE = 64


@DBOS.workflow()
async def echo(text: str) -> str:
    return text


def database(url: str, kind: str) -> str:
    if url.startswith("postgresql://"):
        return url
    STORES.mkdir(exist_ok=True)
    return f"sqlite:///{STORES / f'dbos-{kind}-{urlsplit(url).port}.db'}"


def remove(database_url: str) -> None:
    if database_url.startswith("sqlite:///"):
        path = Path(database_url.removeprefix("sqlite:///"))
        for each in path.parent.glob(f"{path.name}*"):
            each.unlink(missing_ok=True)


def launch(database_url: str) -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": database_url,
        "run_admin_server": False,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()


async def serve(url: str, looks: dict[str, Any]) -> None:
    launch(database(url, "queue"))
    await DBOS.register_queue_async(QUEUE, worker_concurrency=AT_ONCE, **looks)
    load.ready()
    await asyncio.to_thread(load.wait_for_the_end)
    DBOS.destroy()
    remove(database(url, "queue"))


@contextlib.asynccontextmanager
async def enqueueing(url: str, looks: dict[str, Any]) -> AsyncIterator[load.AsyncCall]:
    client = DBOSClient(system_database_url=database(url, "queue"))
    options: EnqueueOptions = {"queue_name": QUEUE, "workflow_name": echo.__qualname__}

    async def call(text: str) -> str:
        handle = await client.enqueue_async(options, text)
        return await handle.get_result(**looks)

    yield call
    client.destroy()


@contextlib.asynccontextmanager
async def direct(url: str, looks: dict[str, Any]) -> AsyncIterator[load.AsyncCall]:
    launch(database(url, "direct"))

    async def call(text: str) -> str:
        handle = await DBOS.start_workflow_async(echo, text)
        return await handle.get_result(**looks)

    yield call
    DBOS.destroy()
    remove(database(url, "direct"))


def idle() -> None:
    """The server of ``direct``, which does everything in the client."""
    load.ready()
    load.wait_for_the_end()


if __name__ == "__main__":
    role, every, where = sys.argv[1:]
    looks = {} if every == "default" else {"polling_interval_sec": float(every)}
    if role == "serve":
        asyncio.run(serve(where, looks))
    elif role == "idle":
        idle()
    else:
        load.run_async({"call": enqueueing, "direct": direct}[role](where, looks))
