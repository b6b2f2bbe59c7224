"""500 calls run during a fault: each call ends with its own correct result, or with the promised error."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from brokers import ALL_BROKERS, Broker, Mosquitto
from brokers.rough import breaks
from mqtt_agent import ToolClient
from mqtt_agent.errors import ToolUnavailable
from proxy import Proxy
from support import becomes, kill, soon, until

RUN_ON = ALL_BROKERS
pytestmark = pytest.mark.timeout(240)  # a network that breaks again and again takes time
PROGRAM = Path(__file__).parents[1] / "programs" / "counting_server.py"
CALLS = 500
AT_ONCE = 60
Process = subprocess.Popen[bytes]


class Replicas:
    """Server processes, and the log of the calls that they ran."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self._namespace = namespace
        self._log = folder / "runs"
        self._log.touch()
        self.running: dict[str, Process] = {}

    def start(self, name: str, url: str, will_delay: int = 1) -> Process:
        command = [sys.executable, str(PROGRAM), url, self._namespace, name, str(will_delay), str(self._log)]
        process = self.running[name] = subprocess.Popen(command, stdin=subprocess.PIPE)
        return process

    async def stop(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        assert await soon(asyncio.to_thread(process.wait, 20), 20) == 0
        kill(process)

    def kill(self, name: str) -> None:
        kill(self.running.pop(name))

    @property
    def runs(self) -> Counter[int]:
        return Counter(map(int, self._log.read_text().split()))


@pytest.fixture
def replicas(namespace: str, tmp_path: Path) -> Iterator[Replicas]:
    started = Replicas(namespace, tmp_path)
    yield started
    for name in list(started.running):
        started.kill(name)


class Load:
    """Calls of both tools, half of the calls for each tool; some calls are always in progress."""

    def __init__(self, client: ToolClient) -> None:
        self._client = client
        self._numbers = iter(range(CALLS))
        self._some_done = asyncio.Event()
        self.results: dict[int, int] = {}
        self.errors: dict[int, Exception] = {}

    async def run(self, trouble: Callable[[], Awaitable[None]]) -> None:
        """Make the calls, and cause the fault when a fifth of the calls has ended."""
        workers = asyncio.gather(*(self._work() for _ in range(AT_ONCE)))
        await soon(self._some_done.wait(), 30)
        await trouble()
        await soon(workers, 110)

    async def _work(self) -> None:
        for number in self._numbers:
            tool = "repeatable" if number % 2 else "once"
            try:
                self.results[number] = await self._client.call(tool, {"n": number}, timeout=100, wait_online=True)
            except Exception as error:
                self.errors[number] = error
            if len(self.results) > CALLS / 5:
                self._some_done.set()

    def check(self, runs: Counter[int], *, lost: bool) -> None:
        """Check that each call has its own result, or is not repeatable and ended with "it may have run"."""
        assert all(result == number * number for number, result in self.results.items())
        assert len(self.results) + len(self.errors) == CALLS
        unexpected = [repr(error) for number, error in self.errors.items() if not lost or number % 2]
        assert unexpected == []
        for error in self.errors.values():
            assert isinstance(error, ToolUnavailable), repr(error)
            assert error.maybe_executed
        assert {number: count for number, count in runs.items() if number % 2 == 0 and count > 1} == {}
        assert set(self.results) <= set(runs)


async def online(client: ToolClient, *names: str) -> None:
    async def all_there() -> bool:
        return {card.replica for card in await client.list_servers()} == set(names)

    await becomes(all_there, 60)  # processes start slowly on a busy machine


@contextlib.asynccontextmanager
async def connected(url: str, namespace: str) -> AsyncIterator[ToolClient]:
    client = ToolClient("caller", broker=url, namespace=namespace)
    await soon(client.start())
    try:
        yield client
    finally:
        await soon(client.stop())


@pytest.mark.rule("LOST-2", "LOST-3", "LOST-4")
async def test_a_replica_is_killed(broker: Broker, namespace: str, replicas: Replicas) -> None:
    for name in ("a", "b", "c"):
        replicas.start(name, broker.url)

    async def trouble() -> None:
        replicas.kill("b")

    async with connected(broker.url, namespace) as client:
        await online(client, "a", "b", "c")
        load = Load(client)
        await load.run(trouble)
    load.check(replicas.runs, lost=True)


@pytest.mark.rule("PRES-10")
async def test_three_replicas_are_restarted_one_after_the_other(
    broker: Broker, namespace: str, replicas: Replicas
) -> None:
    for name in ("a", "b", "c"):
        replicas.start(name, broker.url, will_delay=20)

    async with connected(broker.url, namespace) as client:

        async def trouble() -> None:
            for name in ("a", "b", "c"):
                await replicas.stop(name)
                await online(client, *replicas.running)
                replicas.start(name, broker.url, will_delay=20)
                await online(client, *replicas.running)

        await online(client, "a", "b", "c")
        load = Load(client)
        await load.run(trouble)
    # When the caller's network breaks while a server stops, a call that is not repeatable may be lost.
    load.check(replicas.runs, lost=breaks())


@pytest.mark.rule("LOST-1", "LOST-2", "SESSION-4")
@pytest.mark.parametrize("drops", [1, 5])
async def test_the_callers_network_breaks(broker: Broker, namespace: str, replicas: Replicas, drops: int) -> None:
    for name in ("a", "b"):
        replicas.start(name, broker.url, will_delay=20)
    async with Proxy(broker.url) as proxy, connected(proxy.url, namespace) as client:

        async def trouble() -> None:
            for _ in range(drops):
                epoch = client.connection.epoch
                proxy.drop()
                await until(lambda: client.connection.epoch > epoch and client.connection.connected, 30)  # noqa: B023

        await online(client, "a", "b")
        load = Load(client)
        await load.run(trouble)
    load.check(replicas.runs, lost=False)


@pytest.mark.rule("LOST-1", "LOST-4", "LATE-2")
@pytest.mark.parametrize("longer_than_the_will_delay", [False, True])
async def test_the_network_of_a_replica_is_cut(
    broker: Broker, namespace: str, replicas: Replicas, longer_than_the_will_delay: bool
) -> None:
    async with Proxy(broker.url) as proxy, connected(broker.url, namespace) as client:
        replicas.start("near", broker.url, will_delay=20)
        replicas.start("far", proxy.url, will_delay=1 if longer_than_the_will_delay else 20)

        async def trouble() -> None:
            await proxy.cut()
            if longer_than_the_will_delay:
                await online(client, "near")
            else:
                await asyncio.sleep(3)  # seconds for which the network is down
            await proxy.mend()

        await online(client, "near", "far")
        load = Load(client)
        await load.run(trouble)
        await online(client, "near", "far")
    # A replica that comes back late may still run calls that waited for it; their callers already got an error.
    load.check(replicas.runs, lost=longer_than_the_will_delay or not broker.keeps_shared_messages)


async def broker_restarts(broker: Broker, namespace: str, replicas: Replicas, *, keep_state: bool) -> None:
    for name in ("a", "b"):
        replicas.start(name, broker.url, will_delay=20)
    async with connected(broker.url, namespace) as client:

        async def trouble() -> None:
            await asyncio.to_thread(broker.restart, keep_state=keep_state, kill=not keep_state)

        await online(client, "a", "b")
        load = Load(client)
        await load.run(trouble)
    load.check(replicas.runs, lost=False)


@pytest.mark.rule("LOST-1", "LOST-6", "LATE-5")
async def test_the_broker_is_killed_and_forgets_everything(
    own_broker: Broker, namespace: str, replicas: Replicas
) -> None:
    await broker_restarts(own_broker, namespace, replicas, keep_state=False)


@pytest.mark.rule("LOST-1")
async def test_the_broker_is_restarted_and_keeps_its_state(
    make_mosquitto: Callable[..., Mosquitto], namespace: str, replicas: Replicas
) -> None:
    await broker_restarts(make_mosquitto(["persistence true"]), namespace, replicas, keep_state=True)
