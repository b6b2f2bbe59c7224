"""How many messages agents and tool clients get when endpoints start and restart, up to 10,000 of them.

    make simulate                       all sizes, and a real run with 300 on Mosquitto; about ten minutes
    make simulate ARGS="--sizes 100"    only this size, and the real run

The real endpoints run in one process, on a broker without a network (``tests/simulated.py``). Then the same is done
with real connections and Mosquitto at one size. When a count or a number of bytes there differs by more than the
tolerance, the program ends with status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from brokers import Mosquitto
from crowd import PEERS, REPLICAS, TOOLS, Connect, Crowd, Phase
from mqtt_agent import Connection
from simulated import SimulatedBroker

SIZES = (100, 300, 1_000, 3_000, 10_000)
KINDS = ("agents", "clients")
REAL = 300
TOLERANCE = 0.02
"""By which part the real run may differ from the simulation."""


@dataclass(frozen=True)
class Run:
    """The phases of one run, each with the kind of its endpoints."""

    count: int
    phases: list[tuple[str, Phase]]
    seconds: float


def servers_for(count: int) -> int:
    """How many tool servers there are for this number of clients."""
    return min(100, max(PEERS + 1, count // 3))


async def run(connect: Connect, count: int, kinds: Sequence[str]) -> Run:
    """Let a crowd of this size start and restart."""
    began, phases = time.monotonic(), list[tuple[str, Phase]]()
    for kind in kinds:
        crowd = Crowd(connect)
        working = crowd.agents(count) if kind == "agents" else crowd.clients(count, servers_for(count))
        phases += [(kind, each) for each in await working]
        await crowd.stop()
    return Run(count, phases, time.monotonic() - began)


def simulate(count: int, kinds: Sequence[str] = KINDS) -> Run:
    """A run on the simulated broker."""
    return asyncio.run(run(SimulatedBroker().connection, count, kinds))


def measure(count: int, kinds: Sequence[str] = KINDS) -> Run:
    """A run on Mosquitto, with real connections."""
    with Mosquitto() as broker:
        return asyncio.run(run(lambda client_id: Connection(broker.url, client_id=client_id), count, kinds))


def differences(simulated: Run, real: Run, tolerance: float = TOLERANCE) -> list[str]:
    """What differs by more than the tolerance."""
    found: list[str] = []
    for (kind, ours), (_, theirs) in zip(simulated.phases, real.phases, strict=True):
        for what in ("messages", "most", "bytes", "others"):
            expected, counted = getattr(ours, what), getattr(theirs, what)
            if abs(expected - counted) > tolerance * max(expected, 1):
                found.append(f"{kind}, {ours.name}, {what}: {expected:,} simulated, {counted:,} on Mosquitto")
    return found


def table(runs: Sequence[tuple[str, Run]]) -> str:
    """The phases of several runs as a table."""
    lines = ["| | endpoints | what happens | who gets messages | messages each | at most | bytes each | all others |"]
    lines.append("|---" * 8 + "|")
    for label, each in runs:
        for kind, phase in each.phases:
            messages, size = phase.messages / phase.receivers, phase.bytes / phase.receivers
            lines.append(
                f"| {label} | {each.count:,} {kind} | {phase.name} | {phase.receivers:,} | {messages:,.1f} | "
                f"{phase.most:,} | {size:,.0f} | {phase.others:,} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES, help="numbers of endpoints to simulate")
    parser.add_argument("--real", type=int, default=REAL, help="number of endpoints of the real run; 0 for no real run")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="the kinds of endpoints")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR)
    print(f"{PEERS} peers of each agent; {TOOLS} tools and {len(REPLICAS)} replicas of each tool server", flush=True)
    for count in options.sizes:
        simulated = simulate(count, options.only)
        print(table([("simulated", simulated)]))
        print(f"{simulated.seconds:.0f} s\n", flush=True)
    if options.real:
        both = simulate(options.real, options.only), measure(options.real, options.only)
        print(table([("simulated", both[0]), ("Mosquitto", both[1])]))
        wrong = differences(*both)
        if wrong:
            sys.exit("the simulation is wrong:\n" + "\n".join(wrong))
        print(f"\nThe simulation of {options.real} agrees with Mosquitto to {TOLERANCE:.0%}.")


if __name__ == "__main__":
    main(sys.argv[1:])
