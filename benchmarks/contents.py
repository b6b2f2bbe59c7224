"""A large content from a tool, against the same bytes as plain messages: how fast, and with how much memory?

    python benchmarks/contents.py [--megabytes 100] [--rounds 5]

A tool shares a file of random bytes, and its caller reads the file. The broker is a Mosquitto whose Maximum Packet Size
is 256 KiB. The rival is paho-mqtt: one process publishes the same bytes in messages of the same size at QoS 1, and
another one receives them. Neither of these two computes a SHA-256, asks for anything, or could resume. Each of the four
runs is a process of its own, and the two subjects take turns in several rounds. The table shows the median over the
rounds, with the smallest and the largest value, the CPU time of each process for 100 MB, and the growth of its peak
memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from mqtt_agent import ToolClient, ToolContext, ToolResult, ToolServer
from paho.mqtt.enums import CallbackAPIVersion
from processes import Mosquitto, Worker

PACKET = 256 * 1024
RAW = PACKET - 4096
"""The size of a plain message: about what a chunk of a content has."""


def tell(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


async def commands() -> AsyncIterator[Any]:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        yield json.loads(line)


async def serve(url: str, path: str) -> None:
    server = ToolServer("files", broker=url)

    @server.tool
    async def get(ctx: ToolContext) -> ToolResult:
        return await ctx.share(path)

    async with server:
        tell(ready=True)
        async for _ in commands():
            tell()


async def read(url: str) -> None:
    async with ToolClient("reader", broker=url) as client:
        await client.call("get", wait_online=True)
        tell(ready=True)
        async for _ in commands():
            content = await client.open_content(await client.call("get"))
            began, count = time.perf_counter(), 0
            async for piece in content:
                count += len(piece)
            tell(seconds=time.perf_counter() - began, bytes=count)


def raw(url: str, path: str | None) -> None:
    """Publish the file in plain messages, or receive it."""
    host, port = url.removeprefix("mqtt://").split(":")
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    ready, got, all_here = threading.Event(), [0, 0], threading.Event()

    def on_message(_client: Any, _data: Any, message: Any) -> None:
        got[0] += len(message.payload)
        if got[0] >= got[1]:
            all_here.set()

    def on_connect(*_: Any) -> None:
        if path is None:
            client.subscribe("raw", 1)
        else:
            ready.set()

    client.on_message, client.on_connect, client.on_subscribe = on_message, on_connect, lambda *_: ready.set()
    client.connect(host, int(port))
    client.loop_start()
    ready.wait()
    tell(ready=True)
    for line in sys.stdin:
        command = json.loads(line)
        if path is not None:
            sent = None
            with open(path, "rb") as file:
                while piece := file.read(RAW):
                    sent = client.publish("raw", piece, 1)
            assert sent is not None
            sent.wait_for_publish()
            tell()
        elif command["expect"]:
            got[:] = [0, command["expect"]]
            all_here.clear()
            tell()
        else:
            all_here.wait()
            tell(bytes=got[0])
    os._exit(0)


def of_content(server: Worker, client: Worker, size: int) -> float:
    answer = client.ask()
    assert answer["bytes"] == size
    return answer["seconds"]


def of_raw(sender: Worker, receiver: Worker, size: int) -> float:
    receiver.ask(expect=size)
    began = time.perf_counter()
    sender.ask()
    assert receiver.ask(expect=0)["bytes"] == size
    return time.perf_counter() - began


def compare(megabytes: int, rounds: int) -> None:
    size = megabytes * 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "content.bin"
        path.write_bytes(os.urandom(1_000_000) * megabytes)
        broker = Mosquitto()
        broker.lines.append(f"max_packet_size {PACKET}")
        with broker:
            roles = {"content": (("serve", str(path)), ("read",)), "raw": (("send", str(path)), ("receive",))}
            pairs = {
                name: [Worker.python("contents", role, broker.url, *more) for role, *more in both]
                for name, both in roles.items()
            }
            run = {"content": of_content, "raw": of_raw}
            for workers in pairs.values():
                for worker in workers:
                    worker.wait_ready()
            before = {name: [(w.measured.cpu, w.measured.peak) for w in workers] for name, workers in pairs.items()}
            seconds: dict[str, list[float]] = {name: [] for name in pairs}
            for _ in range(rounds):
                for name, workers in pairs.items():
                    seconds[name].append(run[name](*workers, size))
            report(megabytes, rounds, seconds, pairs, before)
            for workers in pairs.values():
                for worker in workers:
                    worker.close()


def report(
    megabytes: int,
    rounds: int,
    seconds: dict[str, list[float]],
    pairs: dict[str, list[Worker]],
    before: dict[str, list[tuple[float, float]]],
) -> None:
    print(f"{megabytes} MB, {rounds} rounds, Maximum Packet Size {PACKET:,} bytes")
    for name, took in seconds.items():
        rates = [megabytes / each for each in took]
        now = [(w.measured.cpu, w.measured.peak) for w in pairs[name]]
        cpu = [(n - b) / rounds / megabytes * 100 for (n, _), (b, _) in zip(now, before[name], strict=True)]
        grown = [n - b for (_, n), (_, b) in zip(now, before[name], strict=True)]
        print(
            f"  {name:8} {statistics.median(rates):6.0f} MB/s ({min(rates):.0f} to {max(rates):.0f}),"
            f" CPU of the sender {cpu[0]:.2f} s and of the reader {cpu[1]:.2f} s for 100 MB,"
            f" memory + {grown[0]:.0f} MB and + {grown[1]:.0f} MB"
        )
    ratios = [raw / content for raw, content in zip(seconds["raw"], seconds["content"], strict=True)]
    print(f"  content / raw: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:]))
    elif sys.argv[1:2] == ["read"]:
        asyncio.run(read(*sys.argv[2:]))
    elif sys.argv[1:2] in (["send"], ["receive"]):
        raw(sys.argv[2], sys.argv[3] if sys.argv[1] == "send" else None)
    else:
        parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
        parser.add_argument("--megabytes", type=int, default=100)
        parser.add_argument("--rounds", type=int, default=5)
        options = parser.parse_args()
        compare(options.megabytes, options.rounds)
