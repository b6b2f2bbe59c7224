"""NATS JetStream: tasks in a work queue, and results in a second stream, both in files and both acknowledged.

python -m peers.nats_tasks serve|call nats://host:port

JetStream has no results of its own. So the worker publishes them to a stream, whose consumer is the requester. Each
message has a ``Nats-Msg-Id``, by which JetStream drops repeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from peers import load

TASKS, RESULTS = "bench.tasks", "bench.results"


async def make_streams(stream: JetStreamContext) -> None:
    for name, subject in (("BENCH_TASKS", TASKS), ("BENCH_RESULTS", RESULTS)):
        config = StreamConfig(
            name, subjects=[subject], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE, max_age=600
        )
        await stream.add_stream(config)


async def serve(url: str) -> None:
    connection = await nats.connect(url)
    stream = connection.jetstream()
    await make_streams(stream)
    working: set[asyncio.Task[None]] = set()

    async def work(message: Msg) -> None:
        task = json.loads(message.data)
        result = json.dumps({"id": task["id"], "text": task["text"]}).encode()
        await stream.publish(RESULTS, result, headers={"Nats-Msg-Id": f"result-{task['id']}"})
        await message.ack()

    async def take(message: Msg) -> None:
        task = asyncio.create_task(work(message))
        working.add(task)
        task.add_done_callback(working.discard)

    await stream.subscribe(TASKS, queue="workers", durable="workers", cb=take, manual_ack=True)
    load.ready()
    await asyncio.to_thread(load.wait_for_the_end)
    await connection.close()


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[load.AsyncCall]:
    connection = await nats.connect(url)
    stream = connection.jetstream()
    await make_streams(stream)
    waiting: dict[str, asyncio.Future[str]] = {}

    async def on_result(message: Msg) -> None:
        result = json.loads(message.data)
        future = waiting.pop(result["id"], None)
        await message.ack()
        if future is not None:
            future.set_result(result["text"])

    await stream.subscribe(RESULTS, durable="requester", cb=on_result, manual_ack=True)

    async def call(text: str) -> str:
        task_id = uuid.uuid4().hex
        future = waiting[task_id] = asyncio.get_running_loop().create_future()
        task = json.dumps({"id": task_id, "text": text}).encode()
        await stream.publish(TASKS, task, headers={"Nats-Msg-Id": task_id})
        return await asyncio.wait_for(future, load.LONGEST_CALL)

    yield call
    await connection.close()


if __name__ == "__main__":
    role, url = sys.argv[1:3]
    if role == "serve":
        asyncio.run(serve(url))
    else:
        load.run_async(client(url))
