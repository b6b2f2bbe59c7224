"""Tasks between processes. Processes, broker and networks are killed and restarted at random: storm.py --help.

Three requesters give tasks to three executors; with --pool, two requesters give tasks to one pool of three members, and
the pool's database is killed too. At the end, each task must have one terminal result at its requester,
and the result must be correct for the input. As their last action, the executors' handlers write a line into a ledger
file. A task may have more than one line only if a kill happened between this line and the store's commit.

With ``--bound``, the broker allows each agent exactly the rights that its entry in a roster gives, and may deny
nothing. With ``--network``, each agent has a bad network of its own, which brokers/rough.py describes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from brokers import OTHERS, Mosquitto, ProcessBroker, die_with_parent  # noqa: E402
from brokers.guarded import DynamicSecurity  # noqa: E402
from brokers.rough import NETWORKS, around, behind, through  # noqa: E402
from databases import Postgres  # noqa: E402
from logins import denials, environment  # noqa: E402
from mqtt_agent.identity import Roster  # noqa: E402
from proxy import Proxy  # noqa: E402
from support import kill  # noqa: E402

PROGRAMS = TESTS / "programs"
EXECUTORS = ("executor-0", "executor-1", "executor-2")
REQUESTERS = ("requester-0", "requester-1", "requester-2")
logger = logging.getLogger("storm")


@dataclass
class Report:
    """The outcome of a storm.

    Attributes:
        seed: The seed; the same seed repeats the same kills.
        tasks: The number of tasks.
        kills: For each kind of process, the number of kills.
        wrong: Tasks with an unexpected result, or with several different results.
        missing: Tasks without a result, by requester.
        executions: The number of lines in the ledger.
        extra: The number of lines after the first line of each task.
        denied: Lines of the broker's log that tell a denial.
        odd: Tasks with a result and without a line in the ledger, or with two lines of the same attempt.
        seconds: The duration of the storm.
        logs: The folder with the logs of the processes.
        pool: Whether the executors are the members of one pool.
    """

    seed: int
    tasks: int
    folder: Path
    kills: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    missing: list[str] = field(default_factory=list[str])
    executions: int = 0
    extra: int = 0
    odd: list[str] = field(default_factory=list[str])
    denied: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    pool: bool = False

    @property
    def good(self) -> bool:
        fine = not (self.wrong or self.missing or self.odd or self.denied)
        return fine and self.extra <= (sum(self.kills.values()) if self.pool else self.kills["executor"])

    def __str__(self) -> str:
        kills = ", ".join(f"{count} of {kind}" for kind, count in sorted(self.kills.items()))
        lines = [
            f"storm with seed {self.seed}: {'good' if self.good else 'BAD'}, {self.seconds:.0f} s; kills: {kills}",
            f"  {self.tasks} tasks, {self.tasks - len(self.missing)} with a result, {len(self.wrong)} of them wrong",
            f"  {self.executions} executions: {self.extra} more than one for each task,"
            f" and {self.kills['executor']} kills of executors",
        ]
        for what in ("wrong", "missing", "odd", "denied"):
            found: list[str] = getattr(self, what)
            if found:
                lines.append(f"  {what}: {', '.join(found[:10])}{' …' if len(found) > 10 else ''}")
        if not self.good:
            lines.append(f"  stores and logs: {self.folder}")
        return "\n".join(lines)


class Storm:
    """One storm.

    Args:
        folder: The folder for stores, logs, results and the ledger.
        seed: The seed of all random choices.
        tasks: The number of tasks.
        seconds: Seconds during which tasks are given and processes are killed.
        grace: Seconds after that for the remaining tasks, without any kills.
        pause: Mean seconds between two kills.
        kind: The broker. Only Mosquitto saves its state, so the others forget everything at each restart.
        bound: Whether the broker, which must be Mosquitto, allows each agent only what a roster gives to it.
        pool: Whether the executors are the members of one pool.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        tasks: int,
        seconds: float,
        grace: float,
        pause: float,
        kind: type[ProcessBroker] = Mosquitto,
        *,
        bound: bool = False,
        pool: bool = False,
    ) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._seconds = seconds
        self._grace = grace
        self._pause = pause
        self._requesters = REQUESTERS[:2] if pool else REQUESTERS
        shares = len(self._requesters)
        self._shares = {
            name: range(i * tasks // shares, (i + 1) * tasks // shares) for i, name in enumerate(self._requesters)
        }
        self._database = Postgres(durable=True) if pool else None
        self._tasks_at = ""  # the URL of the pool's database
        self._namespace = f"storm/{uuid.uuid4().hex[:8]}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        persistence = ["persistence true", "autosave_interval 1"]
        self._broker: ProcessBroker
        if bound:
            self._broker = guarded = _guarded(self._namespace)
            guarded.lines += persistence
        else:
            self._broker = kind(persistence) if issubclass(kind, Mosquitto) else kind()
        self._environment = environment(self._broker) if bound else {}
        names, url = (*EXECUTORS, *self._requesters), around(self._broker.url)
        self._networks = {name: Proxy(through(url, name)) for name in names}
        self._cuts: set[asyncio.Task[None]] = set()
        self._ledger = folder / "ledger"
        self._report = Report(seed, tasks, folder, pool=pool)

    async def run(self) -> Report:
        began = time.monotonic()
        self._ledger.touch()
        for name in self._requesters:
            self._results(name).write_text(json.dumps({"begun": time.time()}) + "\n")
        try:
            with self._broker, self._database or contextlib.nullcontext():
                if self._database is not None:
                    self._tasks_at = self._database.new_database()
                for name, network in self._networks.items():
                    await network.mend()
                    self._start(name)
                await self._rage(began + self._seconds)
                await asyncio.gather(*self._cuts)
                await self._calm(time.monotonic() + self._grace)
                self._report.denied = denials(self._broker.log)
        finally:
            for process in self._processes.values():
                kill(process)
            for network in self._networks.values():
                await network.cut()
        self._check()
        self._report.seconds = time.monotonic() - began
        return self._report

    def _results(self, requester: str) -> Path:
        return self._folder / f"{requester}.results"

    def _start(self, name: str) -> None:
        own = [self._networks[name].url, self._namespace, name, str(self._folder / f"{name}.db")]
        if name in EXECUTORS:
            pool = [] if self._database is None else ["--pool", "--lease", "3"]
            if pool:
                own[2:] = ["pool", self._tasks_at]
            command = [PROGRAMS / "task_agent.py", *own, self._ledger, "--executes", "--short", "0.3", *pool]
        else:
            share = self._shares[name]
            peers = EXECUTORS if self._database is None else ["pool"]
            tail = [share.start, len(share), self._seconds * 0.9, ",".join(peers)]
            command = [PROGRAMS / "storm_requester.py", *own, self._results(name), *tail]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                preexec_fn=die_with_parent,
            )

    async def _rage(self, until: float) -> None:
        victims = [*EXECUTORS, *self._requesters, "broker", "broker", "network", "network"]
        victims += [] if self._database is None else ["database"]
        while True:
            left = max(0.0, until - time.monotonic())
            await asyncio.sleep(min(self._random.uniform(0.2, 2) * self._pause, left))  # until the next kill
            if time.monotonic() >= until or self._over():
                return
            victim = self._random.choice(victims)
            if victim == "broker":
                await self._restart_broker()
                continue
            if victim == "database":
                await self._restart_database()
                continue
            if victim == "network":
                cut = asyncio.create_task(self._cut(self._random.choice(list(self._networks))))
                self._cuts.add(cut)
                cut.add_done_callback(self._cuts.discard)
                continue
            process = self._processes[victim]
            if process.poll() is not None:
                continue  # a requester that is done
            await asyncio.to_thread(kill, process)
            self._report.kills[victim.partition("-")[0]] += 1
            logger.info("%s was killed", victim)
            await asyncio.sleep(self._random.choice((0, 0, 0.5, 1.5)))  # longer or shorter than a will delay
            self._start(victim)

    async def _cut(self, name: str) -> None:
        network, seconds = self._networks[name], self._random.choice((0, 0.5, 3))
        if not network.mended:
            return
        self._report.kills["network"] += 1
        logger.info("the network of %s was cut for %g s", name, seconds)
        if not seconds:
            network.drop()
            return
        await network.cut()
        await asyncio.sleep(seconds)  # seconds for which the network is down
        await network.mend()

    async def _restart_database(self) -> None:
        assert self._database is not None
        seconds = self._random.choice((0, 0.5, 5))
        await asyncio.to_thread(self._database.kill)
        await asyncio.sleep(seconds)  # seconds for which the database is down
        await asyncio.to_thread(self._database.start)
        self._report.kills["database"] += 1
        logger.info("the database was killed for %g s", seconds)

    async def _restart_broker(self) -> None:
        keeps, kill = self._random.random() < 0.6, self._random.random() < 0.7
        await asyncio.to_thread(self._broker.kill if kill else self._broker.stop)
        keeps = keeps and isinstance(self._broker, Mosquitto)
        if not keeps:
            self._broker.forget()
        await asyncio.sleep(self._random.choice((0, 0.3, 1.5)))  # seconds for which the broker is down
        await asyncio.to_thread(self._broker.start)
        kind = "broker (state kept)" if keeps else "broker (state lost)"
        self._report.kills[kind] += 1
        logger.info("%s was %s", kind, "killed" if kill else "stopped")

    def _over(self) -> bool:
        return all('"over"' in self._results(name).read_text() for name in self._requesters)

    async def _calm(self, deadline: float) -> None:
        while not self._over() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)  # the awaited lines are written to files by other processes
            for name in (*EXECUTORS, *self._requesters):
                code = self._processes[name].poll()
                if code not in (None, 0):
                    self._report.wrong.append(f"{name} ended by itself with {code}")
                    return

    def _check(self) -> None:
        report = self._report
        attempts = Counter(self._ledger.read_text().splitlines())
        report.odd += [f"{line} ({count} times)" for line, count in attempts.items() if count > 1]
        lines = Counter(line.split()[0] for line in attempts.elements())
        report.executions = sum(lines.values())
        report.extra = report.executions - len(lines)
        for name, share in self._shares.items():
            seen: dict[str, set[str]] = {}
            for line in map(json.loads, self._results(name).read_text().splitlines()):
                if "task_id" in line:
                    seen.setdefault(line["task_id"], set()).add(json.dumps(line))
            for number in share:
                task_id = f"storm-{number}"
                right = json.dumps({"task_id": task_id, "value": {"square": number**2}})
                results = seen.get(task_id, set())
                if not results:
                    report.missing.append(f"{task_id} of {name} at {EXECUTORS[number % len(EXECUTORS)]}")
                elif results != {right}:
                    report.wrong.append(" and ".join(sorted(results)))
                elif task_id not in lines:
                    report.odd.append(task_id)


def _guarded(namespace: str) -> DynamicSecurity:
    """A broker that allows exactly the rights of these agents. Only the requesters may give tasks."""
    programs = [f'[programs.{name}]\nkind = "agent"\n' for name in EXECUTORS]
    programs += [f'[programs.{name}]\nkind = "agent"\ndelegates_to = {json.dumps(EXECUTORS)}\n' for name in REQUESTERS]
    return DynamicSecurity(Roster.parse(f'namespace = "{namespace}"\n' + "".join(programs)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=None, help="of the kills; printed, and random by default")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--grace", type=float, default=90)
    parser.add_argument("--pause", type=float, default=0.8, help="mean seconds between two kills")
    parser.add_argument("--bound", action="store_true", help="on a broker that allows only the rights of a roster")
    kinds = {kind.name: kind for kind in (Mosquitto, *OTHERS) if not kind.missing()}
    parser.add_argument("--broker", choices=kinds, default=Mosquitto.name, help="see MQTT_AGENT_TEST_BROKERS")
    parser.add_argument("--pool", action="store_true", help="the executors are the members of one pool")
    parser.add_argument("--network", choices=NETWORKS, help="a bad network between each agent and the broker")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(3), "big")
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="mqtt-agent-storm-"))
    numbers = options.tasks, options.seconds, options.grace, options.pause
    with behind(options.network) if options.network else contextlib.nullcontext():
        storm = Storm(folder, seed, *numbers, kinds[options.broker], bound=options.bound, pool=options.pool)
        report = asyncio.run(storm.run())
    print(report)
    if report.good:
        with contextlib.suppress(OSError):
            subprocess.run(["rm", "-rf", str(folder)], check=False)
    sys.exit(not report.good)


if __name__ == "__main__":
    main()
