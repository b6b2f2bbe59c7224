"""DBOS: durable workflows on SQLite. A workflow is started directly, or enqueued for another process.

python -m peers.dbos_tasks serve|call|idle|direct http://host:port/

The port of the URL names the SQLite file that both processes use, because DBOS needs no other connection.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions

from peers import load

STORES = Path(__file__).parent.parent / ".stores"  # on a disk: the folder for temporary files may be in memory
QUEUE = "bench"
AT_ONCE = 64


@DBOS.step()
async def echo(text: str) -> str:
    return text


@DBOS.workflow()
async def work(text: str) -> str:
    return await echo(text)


def database(url: str, kind: str) -> str:
    STORES.mkdir(exist_ok=True)
    return f"sqlite:///{STORES / f'dbos-{kind}-{urlsplit(url).port}.db'}"


def remove(database_url: str) -> None:
    path = Path(database_url.removeprefix("sqlite:///"))
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink(missing_ok=True)


def launch(database_url: str) -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": database_url,
        "run_admin_server": False,
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.launch()


def serve(url: str) -> None:
    launch(database(url, "queue"))
    DBOS.register_queue(QUEUE, worker_concurrency=AT_ONCE)
    load.ready()
    load.wait_for_the_end()
    DBOS.destroy()
    remove(database(url, "queue"))


@contextlib.asynccontextmanager
async def enqueueing(url: str) -> AsyncIterator[load.AsyncCall]:
    client = DBOSClient(system_database_url=database(url, "queue"))
    options: EnqueueOptions = {"queue_name": QUEUE, "workflow_name": work.__qualname__}

    async def call(text: str) -> str:
        handle = await client.enqueue_async(options, text)
        return await handle.get_result()

    yield call
    client.destroy()


@contextlib.asynccontextmanager
async def direct(url: str) -> AsyncIterator[load.AsyncCall]:
    launch(database(url, "direct"))

    async def call(text: str) -> str:
        handle = await DBOS.start_workflow_async(work, text)
        return await handle.get_result()

    yield call
    DBOS.destroy()
    remove(database(url, "direct"))


def idle() -> None:
    """The server of ``direct``, which does everything in the client."""
    load.ready()
    load.wait_for_the_end()


if __name__ == "__main__":
    role, url = sys.argv[1:3]
    if role == "serve":
        serve(url)
    elif role == "idle":
        idle()
    else:
        load.run_async({"call": enqueueing, "direct": direct}[role](url))
