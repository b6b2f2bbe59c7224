"""Minutes of calls at full load: does the memory of client and server stay constant, and is no call lost?

    python benchmarks/soak.py [--seconds 120] [--at-once 64] [--broker mqtt://...]
    python benchmarks/soak.py --seconds 600 --restart-every 60

A server and a client run in their own processes. Each line shows the number of finished calls and the resident memory
of both processes. With ``--restart-every``, the broker is a Mosquitto, which is killed and started again with its saved
data at this interval of seconds. A wrong answer, or a call that fails, ends the program with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from mqtt_agent import EmbeddedBroker, ToolClient, ToolContext, ToolServer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from brokers import Mosquitto


def serve(broker: str) -> None:
    server = ToolServer("soak", broker=broker, max_concurrency=128)

    @server.tool(read_only=True)
    async def echo(text: str) -> str:
        return text

    @server.tool(read_only=True)
    async def count(to: int, ctx: ToolContext) -> int:
        for number in range(to):
            await ctx.progress(number, total=to)
        return to

    server.run()


async def call(broker: str, seconds: float, at_once: int) -> None:
    """Call without a pause, one call in twenty with partials, and print the number of calls with a correct answer."""
    ends = time.monotonic() + seconds
    done = 0

    async with ToolClient("soak-client", broker=broker) as client:

        async def worker(number: int) -> None:
            nonlocal done
            turn = 0
            while time.monotonic() < ends:
                turn += 1
                if turn % 20 == 0:
                    counting = client.call("count", {"to": 5}, on_partial=lambda partial: None, wait_online=True)
                    assert await counting == 5
                else:
                    text = f"{number}-{turn}" * 20
                    assert await client.call("echo", {"text": text}, wait_online=True) == text
                done += 1

        async def report() -> None:
            while True:
                await asyncio.sleep(1)
                print(done, flush=True)

        reporting = asyncio.create_task(report())
        await asyncio.gather(*(worker(number) for number in range(at_once)))
        reporting.cancel()
    print(done, flush=True)


def watch(broker: str, seconds: float, at_once: int) -> None:
    program = [sys.executable, __file__, "--broker", broker, "--seconds", str(seconds), "--at-once", str(at_once)]
    server = subprocess.Popen([*program, "--role", "serve"])
    client = subprocess.Popen([*program, "--role", "call"], stdout=subprocess.PIPE, text=True)
    began = time.monotonic()
    try:
        print(f"{'seconds':>8} {'calls':>10} {'client MB':>10} {'server MB':>10}")
        assert client.stdout is not None
        next_line = 0.0
        for line in client.stdout:
            passed = time.monotonic() - began
            if passed >= next_line:
                sizes = [psutil.Process(process.pid).memory_info().rss / 1e6 for process in (client, server)]
                print(f"{passed:8.0f} {int(line):10,} {sizes[0]:10.1f} {sizes[1]:10.1f}", flush=True)
                next_line += max(1.0, seconds / 24)
        if client.wait() != 0:
            sys.exit("a call failed")
    finally:
        for process in (client, server):
            process.terminate()
            process.wait(20)


def restart(broker: Mosquitto, seconds: float, over: threading.Event) -> None:
    while not over.wait(seconds):
        broker.restart(keep_state=True, kill=True)
        print("the broker was killed and started again", flush=True)


@contextlib.contextmanager
def restarting(seconds: float) -> Iterator[str]:
    """A Mosquitto that is killed and started again at this interval."""
    over = threading.Event()
    with Mosquitto() as broker:
        thread = threading.Thread(target=restart, args=(broker, seconds, over))
        thread.start()
        try:
            yield broker.url
        finally:
            over.set()
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--broker", default=os.environ.get("MQTT_AGENT_BROKER"))
    parser.add_argument("--restart-every", type=float, metavar="SECONDS", help="kill and start the broker again")
    parser.add_argument("--role", choices=("watch", "serve", "call"), default="watch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "serve":
        serve(options.broker)
    elif options.role == "call":
        asyncio.run(call(options.broker, options.seconds, options.at_once))
    else:
        with contextlib.ExitStack() as stack:
            if options.restart_every:
                broker = stack.enter_context(restarting(options.restart_every))
            else:
                broker = options.broker or stack.enter_context(EmbeddedBroker()).url
            watch(broker, options.seconds, options.at_once)


if __name__ == "__main__":
    main()
