"""Celery with Redis as its broker and as its result backend.

python -m peers.celery_tasks serve|call redis://host:port
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from celery import Celery
from celery.signals import worker_ready

from peers import load

URL = sys.argv[2]
app = Celery("bench", broker=f"{URL}/0", backend=f"{URL}/1")
app.conf.update(broker_connection_retry_on_startup=True, worker_redirect_stdouts=False)


@app.task(name="bench.echo")
def echo(text: str) -> dict[str, str]:
    return {"text": text}


@worker_ready.connect
def on_ready(**_: object) -> None:
    load.ready()


def stop_at_the_end() -> None:
    load.wait_for_the_end()
    os.kill(os.getpid(), signal.SIGTERM)


def serve() -> None:
    threading.Thread(target=stop_at_the_end, daemon=True).start()
    app.worker_main(["--quiet", "worker", "--pool=threads", "--concurrency=64", "--loglevel=ERROR"])


@contextlib.contextmanager
def client() -> Iterator[load.SyncCall]:
    def call(text: str) -> str:
        result = echo.delay(text)
        try:
            return result.get(timeout=load.LONGEST_CALL)["text"]
        finally:
            result.forget()

    yield call


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        load.run_threads(client())
