"""Delegates its share of a storm's tasks, and tries again until each task has its result.

storm_requester.py URL NAMESPACE AGENT STORE RESULTS FIRST COUNT SECONDS EXECUTORS

The process knows only its store when it starts. It resumes the tasks of the store, and delegates the other tasks,
distributed over SECONDS since the creation of the results file. Each result becomes a line in RESULTS, and the end
becomes a line "over".
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from mqtt_agent import Agent, SqliteStore, TaskHandle, errors

url, namespace, name, store, results, first, count, seconds, executors = sys.argv[1:10]
numbers = range(int(first), int(first) + int(count))
peers = executors.split(",")
begun = json.loads(Path(results).read_text().partition("\n")[0])["begun"]
out = os.open(results, os.O_WRONLY | os.O_APPEND)
agent = Agent(name, broker=url, namespace=namespace, store=SqliteStore(store, synchronous="normal"), will_delay=1)


def told() -> set[str]:
    with open(results) as lines:
        return {json.loads(line).get("task_id") for line in lines}


async def one(number: int, known: dict[str, TaskHandle]) -> None:
    task_id = f"storm-{number}"
    due = begun + (number - numbers.start) / len(numbers) * float(seconds)
    if task_id not in known:
        await asyncio.sleep(max(0, due - time.time()))  # distributed over the duration of the storm
    handle = known.get(task_id)
    if handle is None or number % 3 == 0:  # delegating again with the same id has the same effect
        handle = await agent.delegate(peers[number % len(peers)], data={"n": number}, task_id=task_id, wait_online=True)
    line: dict[str, Any] = {"task_id": task_id}
    try:
        line["value"] = await handle.result()
    except errors.TaskError as error:
        line["error"] = f"{type(error).__name__}: {error}"
    os.write(out, json.dumps(line).encode() + b"\n")


async def work() -> None:
    done = told()
    known = {handle.task_id: handle for handle in await agent.delegations()}
    todo = [number for number in numbers if f"storm-{number}" not in done]
    await asyncio.gather(*(one(number, known) for number in todo))
    os.write(out, b'{"over": true}\n')


async def main() -> None:
    while True:
        try:
            await agent.start()
            break
        except errors.TransportError as error:
            logging.info("not yet: %s", error)
            await asyncio.sleep(0.1)  # the broker is restarting
    await work()
    await agent.stop()


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {name} {os.getpid()} %(name)s %(message)s")
threading.Thread(target=die_with_parent, daemon=True).start()
asyncio.run(main())
