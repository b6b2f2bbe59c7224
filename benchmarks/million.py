"""A million durable tasks through one pair of agents: does anything grow but the store, and does retention bound it?

    python benchmarks/million.py [--tasks 1000000] [--at-once 256] [--speed 60] [--retention 2] [--seconds 1200]
    python benchmarks/million.py --folder FOLDER    goes on where an earlier run with this folder has ended

A requester and an executor run in their own processes, on a Mosquitto, each with an SQLite file. Each line shows the
number of finished tasks, the memory of both processes, and the size and the rows of both files. The wall clock of both
processes runs ``--speed`` times as fast as the real one, so a run of 25 minutes takes 25 simulated hours, and tasks
that ended ``--retention`` simulated hours ago are removed. A wrong result, a task that fails, an error in the log, or
memory that grows by more than ``--most-growth`` MB after the first tenth of the run, ends the program with an error.

With ``--folder``, the stores, the lines and the simulated time are kept. A run that was stopped or killed goes on with
the next task that it has not counted, and with the stores as they are. The two agents are new processes then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).parent
STORES = HERE / ".stores"  # on a disk: the folder for temporary files may be in memory
LINES = 20
EXECUTOR, REQUESTER = "million-does", "million-gives"


def hasten(speed: float, began: float, simulated: float) -> None:
    """Let the wall clock of this process run faster. Call this before ``mqtt_agent`` is imported.

    Args:
        speed: Simulated seconds in a second.
        began: The moment at which the run began, in Unix seconds.
        simulated: The simulated time of this moment.
    """
    real = time.time
    time.time = lambda: simulated + (real() - began) * speed

    from mqtt_agent.agents import retention

    retention._SWEEP_EVERY /= speed  # pyright: ignore[reportPrivateUsage]


class Errors(logging.StreamHandler[TextIO]):
    """Shows the errors in the log, and remembers that there were some."""

    found = False

    def emit(self, record: logging.LogRecord) -> None:
        self.found = True
        super().emit(record)


async def execute(options: argparse.Namespace) -> None:
    from mqtt_agent import Agent, TaskContext

    agent = Agent(
        EXECUTOR,
        broker=options.broker,
        store=options.store,
        max_concurrency=options.at_once,
        retention=options.retention * 3600,
    )

    @agent.on_task
    async def square(task: TaskContext) -> dict[str, int]:
        return {"square": task.data["number"] ** 2}

    async with agent:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)  # until the watching process closes it


async def give(options: argparse.Namespace) -> None:
    """Give all tasks, ``--at-once`` at a time, and print how many have their right result."""
    from mqtt_agent import Agent

    numbers = iter(range(options.first, options.tasks))
    every = options.every or max(1, options.tasks // LINES)
    done = options.first
    agent = Agent(REQUESTER, broker=options.broker, store=options.store, retention=options.retention * 3600)

    async def worker() -> None:
        nonlocal done
        for number in numbers:
            handle = await agent.delegate(EXECUTOR, data={"number": number})
            assert await handle.result() == {"square": number**2}
            done += 1
            if done % every == 0 or done == options.tasks:
                print(done, flush=True)

    async with agent:
        await asyncio.gather(*(worker() for _ in range(options.at_once)))


@dataclass(frozen=True)
class Line:
    """What is measured at one moment: the requester's value, and the executor's.

    Attributes:
        done: How many tasks have their result.
        seconds: Seconds since the beginning, without the time between two runs.
        hours: The same in simulated hours.
        memory: MB in memory.
        sizes: MB in the files of the stores.
        rows: The rows in the stores.
    """

    done: int
    seconds: float
    hours: float
    memory: list[float]
    sizes: list[float]
    rows: list[int]

    @classmethod
    def measure(cls, done: int, seconds: float, speed: float, processes: list[int], stores: list[Path]) -> Line:
        import psutil

        return cls(
            done,
            seconds,
            seconds * speed / 3600,
            [psutil.Process(process).memory_info().rss / 1e6 for process in processes],
            [sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*")) / 1e6 for path in stores],
            [rows_of(path) for path in stores],
        )

    def __str__(self) -> str:
        memory = " ".join(f"{each:9.1f}" for each in self.memory)
        stores = " ".join(f"{size:9.1f} {rows:9,}" for size, rows in zip(self.sizes, self.rows, strict=True))
        return f"{self.done:10,} {self.seconds:8.0f} {self.hours:7.1f} {memory} {stores}"


HEADER = (
    f"{'tasks':>10} {'seconds':>8} {'hours':>7} {'requester':>9} {'executor':>9}"
    f" {'store MB':>9} {'rows':>9} {'store MB':>9} {'rows':>9}"
)


def rows_of(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT count(*) FROM tasks").fetchone()[0]


class Past:
    """The lines of earlier runs with a folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "lines.jsonl"
        texts = self._file.read_text().splitlines() if self._file.exists() else []
        found: list[dict[str, Any]] = [json.loads(text) for text in texts]
        self.simulated: float = found[-1]["simulated"] if found else 0.0
        """The simulated time of the last line."""
        self.lines = [Line(**each["line"]) for each in found]

    def add(self, line: Line, simulated: float) -> None:
        with self._file.open("a") as file:
            print(json.dumps({"line": asdict(line), "simulated": simulated}), file=file)


def watch(options: argparse.Namespace, broker: str, folder: Path) -> list[Line]:
    stores, past = [folder / "requester.db", folder / "executor.db"], Past(folder)
    began = time.time()
    simulated = max(began, past.simulated)
    before, first = (past.lines[-1].seconds, past.lines[-1].done) if past.lines else (0.0, 0)
    given = {name: value for name, value in vars(options).items() if name in WORKER_OPTIONS}
    given |= {"broker": broker, "began": began, "simulated": simulated, "first": first}

    def start(role: str, store: Path) -> subprocess.Popen[str]:
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        program = [sys.executable, __file__, f"--role={role}", f"--store={store}", *arguments]
        return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    executor = start("execute", stores[1])
    assert executor.stdout is not None
    assert executor.stdin is not None
    requester: subprocess.Popen[str] | None = None
    lines: list[Line] = []
    try:
        assert executor.stdout.readline() == "ready\n"
        requester = start("give", stores[0])
        assert requester.stdout is not None
        print(HEADER, *past.lines, sep="\n", flush=True)
        for told in requester.stdout:
            now = time.time()
            seconds = before + now - began
            lines.append(Line.measure(int(told), seconds, options.speed, [requester.pid, executor.pid], stores))
            past.add(lines[-1], simulated + (now - began) * options.speed)
            print(lines[-1], flush=True)
            if options.seconds and now - began > options.seconds:
                requester.terminate()
                break
        else:
            if requester.wait() != 0:
                sys.exit("a task failed, or the requester has logged an error")
        executor.stdin.close()
        if executor.wait(30) != 0:
            sys.exit("the executor has logged an error")
    finally:
        for process in (requester, executor):
            if process is not None:
                process.terminate()
                process.wait(30)
    return lines


def check(lines: list[Line], most: float) -> None:
    """End the program with an error when the memory of a process has grown after the first tenth of the run."""
    if len(lines) < 4:
        return
    first, last = lines[len(lines) // 10 + 1], lines[-1]
    for name, before, after in zip(("requester", "executor"), first.memory, last.memory, strict=True):
        print(f"the {name}'s memory: {before:.1f} MB after {first.done:,} tasks, {after:.1f} MB after {last.done:,}")
        if after - before > most:
            sys.exit(f"the memory of the {name} grew by {after - before:.1f} MB")
    rate = last.done / last.seconds
    print(f"{rate:.0f} tasks/s: 1,000,000 tasks take {1_000_000 / rate / 60:.0f} minutes")


WORKER_OPTIONS = ("tasks", "at_once", "speed", "retention", "every")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--at-once", type=int, default=256)
    parser.add_argument("--speed", type=float, default=60.0, help="simulated seconds in a second")
    parser.add_argument("--retention", type=float, default=2.0, help="simulated hours")
    parser.add_argument("--every", type=int, default=0, help="tasks between two lines (default: a twentieth of all)")
    parser.add_argument("--seconds", type=float, help="stop at the first line after this number of seconds")
    parser.add_argument("--most-growth", type=float, default=10.0, help="MB")
    parser.add_argument("--folder", type=Path, help="keep the stores here, and go on where an earlier run has ended")
    parser.add_argument("--role", choices=("watch", "execute", "give"), default="watch", help=argparse.SUPPRESS)
    parser.add_argument("--broker", help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--simulated", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role != "watch":
        hasten(options.speed, options.began, options.simulated)
        errors = Errors()
        errors.setLevel(logging.ERROR)
        logging.getLogger().addHandler(errors)
        asyncio.run({"execute": execute, "give": give}[options.role](options))
        sys.exit(errors.found)
    sys.path.insert(0, str(HERE.parent / "tests"))
    from brokers import Mosquitto

    STORES.mkdir(exist_ok=True)
    with Mosquitto() as broker, contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(dir=STORES)))
        folder.mkdir(parents=True, exist_ok=True)
        lines = watch(options, broker.url, folder)
    check(lines, options.most_growth)


if __name__ == "__main__":
    main()
