"""An agent in its own process, controlled by JSON lines: task_agent.py URL NAMESPACE AGENT STORE LEDGER [options].

With ``--executes``, the agent executes tasks. A line on the standard input lets the agent give a task. Each line on the
standard output reports an event. As its last action, the handler writes into the ledger file. SIGTERM stops the agent
in order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from mqtt_agent import Agent, PostgresStore, SqliteStore, TaskContext, errors
from mqtt_agent.agents.store.choosing import is_postgres_url

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("namespace")
parser.add_argument("agent")
parser.add_argument("store")
parser.add_argument("ledger")
parser.add_argument("--executes", action="store_true", help="take tasks")
parser.add_argument("--will-delay", type=int, default=1)
parser.add_argument("--concurrency", type=int, default=8)
parser.add_argument("--short", type=float, default=0, help="each task takes a random time of up to so many seconds")
parser.add_argument("--bound", choices=("prefer", "require", "off"), default="prefer", help="sender-bound topics")
parser.add_argument("--pool", action="store_true", help="several processes have this agent id")
parser.add_argument("--drain", type=float, default=2.0, help="how long a stop waits for the handlers")
parser.add_argument("--lease", type=float, default=3.0, help="how long the lease of a member of a pool is")
parser.add_argument("--max-attempts", type=int, help="how often a handler may begin")
parser.add_argument("--clock", type=float, default=0.0, help="by how many seconds the clock of the machine is wrong")
options = parser.parse_args()
if options.clock:
    real_time = time.time
    time.time = lambda: real_time() + options.clock

ledger = os.open(options.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
agent = Agent(
    options.agent,
    broker=options.url,
    namespace=options.namespace,
    bound=options.bound,
    # The tests kill processes, and not machines.
    store=PostgresStore(options.store, lease=options.lease)
    if is_postgres_url(options.store)
    else SqliteStore(options.store, synchronous="normal"),
    pool=options.pool,
    will_delay=options.will_delay,
    max_concurrency=options.concurrency,
    max_attempts=options.max_attempts,
    drain_timeout=options.drain,
)


def tell(event: str, **fields: Any) -> None:
    os.write(1, json.dumps({"event": event, **fields}).encode() + b"\n")


async def work(task: TaskContext) -> Any:
    """Compute the square of ``n`` from ``data``, after some steps."""
    data: dict[str, Any] = task.data
    tell("began", task_id=task.id, attempt=task.attempt, saved=task.saved)
    try:
        if "save" in data and task.saved is None:
            await task.save(data["save"])
            tell("saved", task_id=task.id)
        if data.get("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        if task.attempt <= data.get("freezes", 0):
            ctypes.PyDLL(None).sleep(int(data["freeze"]))  # no other thread of the process runs meanwhile
        if task.attempt <= data.get("hangs", 0):
            await asyncio.Event().wait()
        while "waits_for" in data and not Path(data["waits_for"]).exists():
            await asyncio.sleep(0.01)  # another process creates the file
        count = data.get("parts", 0)
        count = count.get(options.agent, 0) if isinstance(count, dict) else count
        parts = [await part(task, number, data) for number in range(count)]
        await asyncio.sleep(data.get("seconds", random.uniform(0, options.short)))  # simulates work
        if "save_late" in data:
            await task.save(data["save_late"])
        result: Any = {"square": data["n"] ** 2}
        if parts:
            result["parts"] = parts
        if "save" in data:
            result["saved"] = task.saved
        if data.get("via"):
            result["from"] = await ask_next(task, data)
    except asyncio.CancelledError:
        tell("stopped", task_id=task.id, attempt=task.attempt)
        raise
    os.write(ledger, f"{task.id} {task.attempt}\n".encode())
    return result


async def part(task: TaskContext, number: int, data: dict[str, Any]) -> str:
    text = f"{options.agent} {number}"
    await task.stream(text)
    await asyncio.sleep(data.get("part_seconds", 0))  # simulates work
    return text


async def ask_next(task: TaskContext, data: dict[str, Any]) -> Any:
    """Delegate the rest of the work to the next agent, and pass on its streamed output."""
    following, *rest = data["via"]
    handle = await agent.delegate(
        following, data={**data, "via": rest}, task_id=f"{task.id}-{following}", context_id=task.context_id
    )
    async for event in handle.events():
        if event.type == "partial":
            await task.stream(event.content)
    return await handle.result()


async def give(command: dict[str, Any]) -> None:
    """Delegate a task, or resume a task that was delegated before, and report its events and its outcome."""
    task_id = command["task_id"]
    try:
        if command["do"] == "cancel":
            await (await agent.resume(task_id)).cancel()
            return
        if command["do"] == "request":
            value = await agent.request(command["peer"], data=command["data"], task_id=task_id, timeout=None)
            tell("result", task_id=task_id, value=value)
            return
        if command["do"] == "resume":
            handle = await agent.resume(task_id)
        else:
            handle = await agent.delegate(command["peer"], data=command["data"], task_id=task_id, wait_online=True)
        tell("delegated", task_id=task_id)
        if command.get("listen"):
            async for event in handle.events():
                if event.type == "partial":
                    tell("partial", task_id=task_id, content=event.content)
        tell("result", task_id=task_id, value=await handle.result())
    except errors.MQTTAgentError as error:
        tell("error", task_id=task_id, type=type(error).__name__, text=str(error))


def obey() -> None:
    """Read commands until the standard input ends, which means that the test process has ended."""
    loop, started = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def begin(command: dict[str, Any]) -> None:
        task = loop.create_task(give(command))
        started.add(task)
        task.add_done_callback(started.discard)

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(begin, json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    tell("started", pid=os.getpid())


async def main() -> None:
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    try:
        while True:
            try:
                await agent.serve_forever(obey)
            except (errors.BrokerUnreachable, errors.ConnectionLost, errors.StoreError) as error:
                if isinstance(error, errors.SessionTakenOver) or not (
                    options.pool or isinstance(error, errors.TransportError)
                ):
                    raise
                await asyncio.sleep(0.1)  # the broker is restarting
    except errors.MQTTAgentError as error:
        tell("ended", type=type(error).__name__, connected=agent.connection.connected, running=agent.running_tasks)
        await asyncio.Event().wait()


logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {options.agent} {os.getpid()} %(name)s %(message)s")
if options.executes:
    agent.on_task(work)
with contextlib.suppress(asyncio.CancelledError):
    asyncio.run(main())
