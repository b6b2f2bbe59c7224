"""Measures pools: how they grow with their members, what their store costs, and what other queues do.

    make bench ARGS=--pools                              all parts, about four minutes
    make bench ARGS="--pools --quick"                    shorter turns
    make bench ARGS="--pools --only members queues"      only these parts

- **members**: tasks that wait for 1 s, in pools of 1, 2 and 4 members with 8 slots each. There are always twice as many
  tasks as slots.
- **stores**: tasks per second of ``PostgresStore`` and of ``SqliteStore``: each task is added, claimed and completed,
  64 at once. Both wait for the disk at each commit.
- **queues**: a pool with one member, a queue of DBOS in a PostgreSQL of its own, and Celery with Redis and late
  acknowledgement. The work is a task that returns its argument, 64 at once. A pool's task is stored at its requester
  too. Redis writes its log to the disk once in a second (its default), so a power cut may lose tasks of Celery.
  A further subject is Celery with a Redis that writes its log before each answer: this Redis is as durable as
  PostgreSQL.

The subjects of a part take turns in several rounds, so that a slow moment of the machine affects all of them. A ratio
compares two turns of the same round. The tables show the median over the rounds, with the smallest and largest value.
"CPU ms" is the CPU time of all processes of a subject for one task, with its broker and its database, which no other
subject uses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
from processes import HERE, CouldNotRun, Mosquitto, Worker, spread

if TYPE_CHECKING:
    from databases import Postgres

AT_ONCE = 64
SLOTS = 8
MEMBERS = (1, 2, 4)
TEXT = "123456789"
STARTED_WITHIN = 10.0
Subjects = dict[str, "Callable[[float], Turn]"]
"""By title, the subjects of a part. A subject measures for so many seconds."""


class Turn(NamedTuple):
    """What one turn has measured.

    Attributes:
        rate: Tasks per second.
        cpu: Milliseconds of CPU time for each task; 0 when this is not measured.
    """

    rate: float
    cpu: float = 0.0


Turns = dict[str, list[Turn]]
"""The turns of each round, by the title of the subject."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def take_turns(subjects: Subjects, rounds: int, seconds: float) -> Turns:
    """Measure each subject once in each round."""
    for measure in subjects.values():
        measure(0.5)  # to warm up
    turns: Turns = {title: [] for title in subjects}
    for number in range(rounds):
        for title, measure in subjects.items():
            turns[title].append(measure(seconds))
        say(f"round {number + 1} of {rounds} is done")
    return turns


class Requester:
    """The client process of a subject, the processes that do the tasks, and the broker and the database of both."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        at_once: int,
        servers: list[list[str]],
        client: list[str],
        services: Sequence[subprocess.Popen[bytes] | None] = (),
    ) -> None:
        self._at_once = at_once
        workers = [Worker([sys.executable, "-m", *each]) for each in (*servers, client)]
        for each in workers:
            stack.callback(each.close)
        for each in workers:
            each.wait_ready()
        self._client = workers[-1]
        self._pids = [each.pid for each in workers] + [each.pid for each in services if each is not None]

    def __call__(self, seconds: float) -> Turn:
        before = self._cpu()
        load = self._client.load(self._at_once, seconds, TEXT)
        return Turn(load.rate, (self._cpu() - before) / max(1, load.calls) * 1000)

    def _cpu(self) -> float:
        """Seconds of CPU time of all processes, with their children."""
        return sum(_cpu_of(each) for pid in self._pids for each in _with_children(pid))


def _with_children(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_of(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def pool(stack: contextlib.ExitStack, members: int, slots: int, waits: float) -> Requester:
    broker, postgres = stack.enter_context(Mosquitto()), _postgres(stack)
    end = ["pool", str(waits), str(slots), broker.url, postgres.new_database()]
    in_flight = 2 * slots * members if waits else AT_ONCE
    servers, client = [["peers.pool", "member", *end]] * members, ["peers.pool", "requester", *end]
    return Requester(stack, in_flight, servers, client, [broker.process, postgres.process])


def _postgres(stack: contextlib.ExitStack) -> Postgres:
    """A database that waits for the disk."""
    from databases import Postgres

    return stack.enter_context(Postgres(durable=True))


def measure_members(rounds: int, seconds: float) -> Turns:
    with contextlib.ExitStack() as stack:
        subjects: Subjects = {
            f"{members} member{'s' if members > 1 else ''}": pool(stack, members, SLOTS, 1.0) for members in MEMBERS
        }
        return take_turns(subjects, rounds, max(6.0, 3 * seconds))


def measure_stores(rounds: int, seconds: float) -> Turns:
    from databases import Postgres
    from mqtt_agent.agents.store import PostgresStore, SqliteStore, TaskStore
    from store import measure

    def of(make: Callable[[], TaskStore]) -> Callable[[float], Turn]:
        async def run(for_seconds: float) -> Turn:
            async with make() as store:
                return Turn(await measure(store, AT_ONCE, for_seconds, numbers))

        return lambda for_seconds: asyncio.run(run(for_seconds))

    numbers = itertools.count()
    (HERE / ".stores").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HERE / ".stores") as folder, Postgres(durable=True) as postgres:
        url = postgres.new_database()
        subjects: Subjects = {
            "`SqliteStore`": of(lambda: SqliteStore(Path(folder) / "tasks.db")),
            "`PostgresStore`": of(lambda: PostgresStore(url)),
        }
        return take_turns(subjects, rounds, seconds)


def measure_queues(rounds: int, seconds: float) -> Turns:
    with contextlib.ExitStack() as stack:
        subjects: Subjects = {"pool with 1 member": pool(stack, 1, AT_ONCE, 0)}
        others = {
            "DBOS queue": _dbos,
            "Celery with Redis": _celery,
            "Celery with Redis, which waits for the disk": partial(_celery, appendfsync="always"),
        }
        for title, start in others.items():
            try:
                subjects[title] = start(stack)
            except (CouldNotRun, OSError) as error:
                say(f"{title}: left out: {error}")
        return take_turns(subjects, rounds, seconds)


def _dbos(stack: contextlib.ExitStack) -> Requester:
    postgres = _postgres(stack)
    end = ["0.02", postgres.new_database()]
    servers, client = [["peers.dbos_tasks", "serve", *end]], ["peers.dbos_tasks", "call", *end]
    return Requester(stack, AT_ONCE, servers, client, [postgres.process])


def _celery(stack: contextlib.ExitStack, *, appendfsync: str = "everysec") -> Requester:
    url, server = stack.enter_context(redis(appendfsync))
    end = [str(os.cpu_count()), url]
    servers, client = [["peers.celery_tasks", "serve", *end]], ["peers.celery_tasks", "call", *end]
    return Requester(stack, AT_ONCE, servers, client, [server])


@contextlib.contextmanager
def redis(appendfsync: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Redis that keeps its data on the disk. Gives its URL and its process.

    Args:
        appendfsync: When it waits for the disk: ``everysec``, its default, or ``always``.
    """
    from brokers import die_with_parent, free_port
    from redis import Redis, RedisError

    program = shutil.which("redis-server")
    if program is None:
        raise CouldNotRun("redis-server is not installed")
    (HERE / ".stores").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HERE / ".stores") as folder:
        port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes"]
        options += ["--appendfsync", appendfsync]
        server = subprocess.Popen(
            [program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
        )
        try:
            deadline = time.monotonic() + STARTED_WITHIN
            while True:
                with contextlib.suppress(RedisError):
                    Redis(port=port).ping()
                    break
                if time.monotonic() > deadline or server.poll() is not None:
                    raise CouldNotRun("redis-server does not answer")
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}", server
        finally:
            server.terminate()
            server.wait(STARTED_WITHIN)


PARTS: dict[str, Callable[[int, float], Turns]] = {
    "members": measure_members,
    "stores": measure_stores,
    "queues": measure_queues,
}


def table(turns: Turns) -> str:
    """A table in Markdown. The ratios are to the first subject."""
    first = next(iter(turns.values()))
    lines = ["| subject | tasks/s | ratio to the first | CPU ms for a task |", "|---|---|---|---|"]
    for title, each in turns.items():
        ratios = [one.rate / other.rate for one, other in zip(each, first, strict=True)]
        cpu = statistics.median(one.cpu for one in each)
        cells = [
            f"{statistics.median(one.rate for one in each):,.1f}",
            "{:.2f} ({:.2f}–{:.2f})".format(*spread(ratios)),
            f"{cpu:.2f}" if cpu else "–",
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one turn; three times longer for members")
    parser.add_argument("--quick", action="store_true", help="two rounds with turns of 1 s")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", default=list(PARTS))
    parser.add_argument("--results", type=Path, help="the folder for pools.json and pools.md")
    options = parser.parse_args()
    rounds, seconds = (2, 1.0) if options.quick else (options.rounds, options.seconds)
    results = {part: PARTS[part](rounds, seconds) for part in options.only}
    text = "\n\n".join(f"**{part}**\n\n{table(turns)}" for part, turns in results.items()) + "\n"
    print(text)
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "pools.json").write_text(json.dumps(results, indent=1) + "\n")
        (options.results / "pools.md").write_text(text)


if __name__ == "__main__":
    main()
