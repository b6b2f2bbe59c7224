"""A second process that uses a store: store_user.py WHAT PLACE. The process waits for a line before it begins."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.agents.store.choosing import store_at
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState

AGENT = "a2a/v1/writer"
FILE_LIMIT = 1_000_000

what, place = sys.argv[1:3]
store = store_at(place)


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def new_record(task_id: str, **fields: Any) -> TaskRecord:
    return TaskRecord(TaskKey(AGENT, "received", task_id), "planner", {"task_id": task_id}, "0", **fields)


async def claim() -> None:
    """Claim all tasks, and print the claimed ones."""

    async def one_by_one() -> None:
        while record := await store.claim(AGENT):
            say(record.task_id)

    async with store:
        await asyncio.gather(*(one_by_one() for _ in range(4)))


async def add() -> None:
    """Add the same tasks as another process, and print the tasks that did not exist before."""
    async with store:
        answers = await asyncio.gather(*(store.add(new_record(str(number))) for number in range(200)))
        for record, added in answers:
            if added:
                say(record.task_id)


async def live() -> None:
    """Take one task after the other through all its states, and print each step after it was stored."""

    async def lives(worker: int) -> None:
        number = 0
        while True:
            number += 1
            task_id = f"{os.getpid()}-{worker}-{number}"
            await store.add(new_record(task_id))
            say("added", task_id)
            record = await store.claim(AGENT)
            assert record is not None
            say("claimed", record.task_id)
            task_id = record.task_id
            await store.change(record.key, [TaskState.WORKING], saved=task_id)
            say("saved", task_id)
            await store.change(record.key, [TaskState.WORKING], state=TaskState.COMPLETED, result={"result": task_id})
            say("completed", task_id)

    async with store:
        await asyncio.gather(*(lives(worker) for worker in range(8)))


async def fill() -> None:
    """Add tasks until the file size limit is reached, and continue when the limit is removed."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, most))
        number = 0
        try:
            while True:
                await store.add(new_record(str(number), saved="x" * 10_000))
                say("added", number)
                number += 1
        except StoreError as error:
            say("error", error)
        first = await store.get(TaskKey(AGENT, "received", "0"))
        assert first is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        await store.add(new_record(str(number), saved="x" * 10_000))
        say("added", number)


async def look() -> None:
    """Open the store as a user with few rights, and print the outcome."""
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        async with store:
            say("opened")
    except StoreError as error:
        say("error", error)


say("ready")
sys.stdin.readline()
asyncio.run({"claim": claim, "add": add, "live": live, "fill": fill, "look": look}[what]())
