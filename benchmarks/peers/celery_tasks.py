"""Celery with Redis as its broker and as its result backend: a task that returns its argument.

python -m peers.celery_tasks serve|call threads|PROCESSES redis://host:port

With ``serve`` this is a worker with 64 threads or with so many processes. A task is acknowledged when it is done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from peers import load

role, workers, url = sys.argv[1:]
app = Celery("bench", broker=f"{url}/0", backend=f"{url}/1")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.echo")
def echo(text: str) -> str:
    return text


def serve() -> None:
    def wait() -> None:
        load.wait_for_the_end()
        os.kill(os.getpid(), signal.SIGTERM)

    @worker_ready.connect(weak=False)
    def on_ready(**_: Any) -> None:
        load.ready()
        threading.Thread(target=wait, daemon=True).start()

    at_once = ["--pool=threads", "--concurrency=64"] if workers == "threads" else [f"--concurrency={workers}"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
    app.worker_main(["--quiet", "worker", *at_once, *quiet])


@contextlib.contextmanager
def client() -> Iterator[load.SyncCall]:
    yield lambda text: echo.delay(text).get(timeout=load.LONGEST_CALL)


if __name__ == "__main__":
    if role == "serve":
        serve()
    else:
        load.run_threads(client())
