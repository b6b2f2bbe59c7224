"""Replicas are restarted one after the other while callers keep them busy, and no call fails.

    python examples/replicas [--replicas 3] [--callers 8] [--broker URL]

``pricing.py`` is the tool server. This program starts the replicas, calls them, and reports what happens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mqtt_agent import EmbeddedBroker, ToolClient

PROGRAM = Path(__file__).with_name("pricing.py")
ONLINE_WITHIN = 20.0
UNDER_LOAD = 0.5  # seconds between two restarts


@contextlib.contextmanager
def replica(broker: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a replica, and send it SIGTERM when the context is left."""
    environment = {**os.environ, "MQTT_AGENT_BROKER": broker}  # not an argument: the URL may contain a password
    process = subprocess.Popen([sys.executable, str(PROGRAM)], env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


async def online(client: ToolClient, count: int) -> None:
    """Wait until the cards say that this number of replicas is online."""
    changes = client.watch_tools()
    while len(await client.list_servers()) != count:
        await asyncio.wait_for(anext(changes), ONLINE_WITHIN)


async def rolling_restart(broker: str, replicas: int, callers: int) -> bool:
    """Restart the replicas one after the other, report it, and return whether no call failed."""
    answers: Counter[int] = Counter()
    failures: list[Exception] = []
    finished = asyncio.Event()

    async def caller(client: ToolClient, number: int) -> None:
        while not finished.is_set():
            try:
                result = await client.call("quote", {"item": f"item {number}"}, timeout=20)
                answers[result["pid"]] += 1
            except Exception as error:
                failures.append(error)
                return

    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(replica(broker)) for _ in range(replicas)]
        async with ToolClient("shop", broker=broker) as client:
            await online(client, replicas)
            print(f"{replicas} replicas are online, and {callers} callers begin")
            calling = asyncio.gather(*(caller(client, number) for number in range(callers)))
            for old in running:
                await asyncio.sleep(UNDER_LOAD)
                old.terminate()
                await asyncio.to_thread(old.wait)
                stack.enter_context(replica(broker))
                await online(client, replicas - 1)
                await online(client, replicas)
                print(f"process {old.pid} has ended, after {answers[old.pid]} calls; another process took its place")
            await asyncio.sleep(UNDER_LOAD)
            finished.set()
            await calling
    print(f"{answers.total()} calls, answered by {len(answers)} processes; {len(failures)} failed")
    for error in failures[:5]:
        print(f"  {type(error).__name__}: {error}")
    return not failures


def main() -> None:
    parser = argparse.ArgumentParser(prog="replicas", description="A rolling restart under load.")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--broker", help="URL of a running MQTT 5 broker (default: an embedded broker)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        broker = options.broker or stack.enter_context(EmbeddedBroker()).url
        well = asyncio.run(rolling_restart(broker, options.replicas, options.callers))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
