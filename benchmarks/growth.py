"""Measures calls/s and p99 with larger payloads, and with more replicas, tools, clients or stored tasks.

    make growth                                 all series, about four minutes
    make growth ARGS="--only tools --quick"     only this series, with shorter turns

Each step of a series is measured in several rounds, and each round goes through all steps of the series. The program
writes the numbers to ``results/growth.json``, and one chart for each series to the same folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from compare import RESULTS, say
from processes import Mosquitto, Worker

TEXT = "123456789"
Step = tuple[Worker, int, str]
"""A client that is ready, the number of concurrent calls, and the text of each call."""


class Stage:
    """Brokers, servers and clients, which run until the context manager is left."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def broker(self) -> str:
        return self._stack.enter_context(Mosquitto()).url

    def worker(self, role: str, *arguments: str, program: str = "growing") -> Worker:
        worker = Worker.python(f"peers.{program}", role, *arguments)
        self._stack.callback(worker.close)
        return worker

    def ready(self, role: str, *arguments: str, program: str = "growing") -> Worker:
        worker = self.worker(role, *arguments, program=program)
        worker.wait_ready()
        return worker


def payload(stage: Stage) -> Iterator[tuple[int, Step]]:
    """Arguments from 20 bytes to 1 MiB."""
    url = stage.broker()
    stage.ready("serve", url)
    client = stage.ready("call", url)
    for size in (20, 200, 2_000, 20_000, 200_000, 1_048_576):
        yield size, (client, 16, "x" * (size - len('{"text":""}')))


def replicas(stage: Stage) -> Iterator[tuple[int, Step]]:
    """One to four replicas of a tool that takes 20 ms; each replica runs four calls at once."""
    for count in (1, 2, 3, 4):
        url = stage.broker()
        for _ in range(count):
            stage.ready("work", url)
        yield count, (stage.ready("call", url), 64, TEXT)


def tools(stage: Stage) -> Iterator[tuple[int, Step]]:
    """Ten to ten thousand tools in the namespace; all calls go to one tool."""
    for count in (10, 100, 1_000, 10_000):
        url = stage.broker()
        stage.ready("serve", url)
        stage.ready("cards", str(count), url)
        client = stage.worker("tools", str(count), url)
        listed = client.read()
        client.wait_ready()
        LISTED[count] = listed
        yield count, (client, 64, TEXT)


def clients(stage: Stage) -> Iterator[tuple[int, Step]]:
    """One to five hundred clients, each with its own connection; 64 calls at once, or one call for each client."""
    for count in (1, 10, 50, 100, 250, 500):
        url = stage.broker()
        stage.ready("serve", url)
        yield count, (stage.ready("clients", str(count), url), max(64, count), TEXT)


def tasks(stage: Stage) -> Iterator[tuple[int, Step]]:
    """Up to a hundred thousand finished tasks in the store of both agents."""
    for count in (10, 1_000, 10_000, 100_000):
        url = stage.broker()
        stage.ready("serve", str(count), url, program="agents")
        yield count, (stage.ready("delegate", str(count), url, program="agents"), 64, TEXT)


LISTED: dict[int, dict[str, float]] = {}
SERIES: dict[str, tuple[Callable[[Stage], Iterator[tuple[int, Step]]], str]] = {
    "payload": (payload, "bytes of the arguments, 16 calls at once"),
    "replicas": (replicas, "replicas of a tool that takes 20 ms, 4 at once in each; 64 calls at once"),
    "tools": (tools, "tools in the namespace, 64 calls at once"),
    "clients": (clients, "clients on one broker, 64 calls at once or one for each client"),
    "tasks": (tasks, "finished tasks in the store of each of two agents, 64 durable tasks at once"),
}


def measure(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    series, title = SERIES[name]
    with contextlib.ExitStack() as stack:
        steps = list(series(Stage(stack)))
        for _, (client, at_once, text) in steps:
            client.load(at_once, 0.3, text)
        loads: dict[int, list[Any]] = {number: [] for number, _ in steps}
        for turn in range(rounds):
            for number, (client, at_once, text) in steps:
                loads[number].append(client.load(at_once, seconds, text))
            say(f"{name}: round {turn + 1} of {rounds} is done")
    result: dict[str, Any] = {"title": title, "rounds": rounds, "steps": {}}
    for number, measured in loads.items():
        result["steps"][str(number)] = {
            "calls_per_second": [round(load.rate, 1) for load in measured],
            "p50_ms": [round(load.p50, 3) for load in measured],
            "p99_ms": [round(load.p99, 3) for load in measured],
        }
        if name == "tools":
            listed = LISTED[number]
            result["steps"][str(number)]["first_listing_ms"] = round(listed["first"] * 1000, 2)
            result["steps"][str(number)]["second_listing_ms"] = round(listed["second"] * 1000, 2)
    return result


def table(name: str, result: dict[str, Any]) -> str:
    lists = name == "tools"
    more = " listed first, ms | again, ms |" * lists
    lines = [f"{result['title']}:", "", f"| {name} | calls/s | p50 ms | p99 ms |{more}", "|---" * (4 + 2 * lists) + "|"]
    for number, step in result["steps"].items():
        rate, p50, p99 = (statistics.median(step[key]) for key in ("calls_per_second", "p50_ms", "p99_ms"))
        line = f"| {int(number):,} | {rate:,.0f} | {p50:,.2f} | {p99:,.2f} |"
        if lists:
            line += f" {step['first_listing_ms']:,.1f} | {step['second_listing_ms']:,.2f} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def chart(name: str, result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    numbers = [int(number) for number in result["steps"]]
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    right = left.twinx()
    for axes, key, label, colour in (
        (left, "calls_per_second", "calls/s", "tab:blue"),
        (right, "p99_ms", "p99, ms", "tab:orange"),
    ):
        values = [step[key] for step in result["steps"].values()]
        middle = [statistics.median(value) for value in values]
        axes.plot(numbers, middle, "o-", color=colour, label=label)
        axes.fill_between(numbers, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15)
        axes.set_ylabel(label, color=colour)
        axes.set_ylim(bottom=0)
    if name != "replicas":
        left.set_xscale("log")
    left.set_xticks(numbers, [f"{number:,}" for number in numbers])
    left.minorticks_off()
    left.set_xlabel(result["title"])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one turn")
    parser.add_argument("--quick", action="store_true", help="three rounds with turns of 0.7 s")
    parser.add_argument("--only", nargs="+", choices=list(SERIES), default=list(SERIES), metavar="SERIES")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 3, 0.7
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "growth.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in options.only:
        results[name] = measure(name, options.rounds, options.seconds)
        print(table(name, results[name]), flush=True)
        try:
            chart(name, results[name], options.results / f"growth-{name}.png")
        except ImportError:
            say("no charts: matplotlib is not installed")
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
