"""Measures the tasks per second of a store: each task is added, claimed and completed, as an agent does.

    python benchmarks/store.py [--seconds 3] [--folder /var/tmp] [--filled 100000] [--synchronous full] [--postgres URL]

The first number of a line counts tasks (three changes each), the second number counts single changes. ``fsync`` is the
speed of the disk, for comparison. The folder must be on the disk that you want to measure.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from mqtt_agent.agents.store import MemoryStore, PostgresStore, SqliteStore, TaskKey, TaskRecord, TaskStore
from mqtt_agent.wire import TaskState

AGENT = "a2a/v1/writer"
PROMPT = "Write a page about the history of message brokers. " * 10


def new_record(number: int, state: TaskState = TaskState.SUBMITTED) -> TaskRecord:
    task = {"task_id": f"{number:032x}", "from": "planner", "prompt": PROMPT}
    key = TaskKey(AGENT, "received", task["task_id"])
    return TaskRecord(key, f"planner-{number % 20}", task, "0" * 64, state=state, settled=state.terminal)


async def one_task(store: TaskStore, number: int) -> None:
    await store.add(new_record(number))
    record = await store.claim(AGENT)
    assert record is not None
    result: dict[str, Any] = {"task_id": record.task_id, "status": "completed", "result": "done"}
    changed = await store.change(
        record.key, [TaskState.WORKING], expected_attempt=record.attempt, state=TaskState.COMPLETED, result=result
    )
    assert changed is not None


async def measure(store: TaskStore, in_flight: int, seconds: float, numbers: itertools.count[int]) -> float:
    until = time.perf_counter() + seconds

    async def work() -> int:
        done = 0
        while time.perf_counter() < until:
            await one_task(store, next(numbers))
            done += 1
        return done

    started = time.perf_counter()
    done = sum(await asyncio.gather(*(work() for _ in range(in_flight))))
    return done / (time.perf_counter() - started)


async def timed(what: str, operation: Any) -> None:
    started = time.perf_counter()
    await operation
    print(f"  {what:32} {(time.perf_counter() - started) * 1e3:8.1f} ms")


async def show(name: str, store: TaskStore, filled: int, seconds: float) -> None:
    numbers = itertools.count()
    async with store:
        for full in (False, True):
            if full:
                records = (new_record(next(numbers), TaskState.COMPLETED) for _ in range(filled))
                while chunk := list(itertools.islice(records, 1000)):
                    await asyncio.gather(*map(store.add, chunk))
            for in_flight in (1, 64):
                rate = await measure(store, in_flight, seconds, numbers)
                kept = f"{filled:,} in store" if full else "empty"
                print(f"{name:8} {kept:>18} {in_flight:3} in flight {rate:9,.0f} tasks/s {rate * 3:9,.0f} changes/s")
        await timed("find the unsettled", store.find(AGENT, "received", unsettled=True, limit=100))
        await timed("find the open ones of a peer", store.find(AGENT, "received", states=_OPEN, peer="planner-3"))
        await timed("count the completed", store.count(AGENT, "received", [TaskState.COMPLETED]))
        await timed("sweep 1,000", store.sweep(AGENT, time.time()))
        await store.close()
        await timed("open again", store.open())


_OPEN = [state for state in TaskState if not state.terminal]


def fsyncs(folder: Path, seconds: float) -> float:
    with tempfile.TemporaryFile(dir=folder) as file:
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            done += 1
        return done / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--filled", type=int, default=100_000)
    parser.add_argument("--synchronous", choices=("full", "normal"), default="full")
    parser.add_argument("--postgres", metavar="URL", help="also measure an empty PostgreSQL database")
    options = parser.parse_args()
    print(f"fsync: {fsyncs(options.folder, 1.0):,.0f}/s")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "tasks.db"
        for name, store in (
            ("memory", MemoryStore()),
            ("sqlite", SqliteStore(path, synchronous=options.synchronous)),
        ):
            asyncio.run(show(name, store, options.filled, options.seconds))
        print(f"  {'size of the file':32} {path.stat().st_size / 1e6:8.1f} MB")
    if options.postgres:
        asyncio.run(show("postgres", PostgresStore(options.postgres), options.filled, options.seconds))


if __name__ == "__main__":
    main()
