"""A tool server that logs each run of a tool: counting_server.py URL NAMESPACE REPLICA WILL_DELAY LOG."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading

from mqtt_agent import ToolServer

url, namespace, replica, will_delay, log = sys.argv[1:6]
server = ToolServer(
    "counting",
    broker=url,
    namespace=namespace,
    replica=replica or None,
    will_delay=int(will_delay),
    max_concurrency=256,
)
runs = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


async def run(n: int) -> int:
    os.write(runs, b"%d\n" % n)
    await asyncio.sleep(random.uniform(0.05, 0.4))  # long enough that some calls run during the fault
    return n * n


server.add_tool("once", run)
server.add_tool("repeatable", run, idempotent=True)


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


threading.Thread(target=die_with_parent, daemon=True).start()
server.run()
