"""Endpoints at the nodes of a cluster, or at brokers with a bridge between them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from brokers import Mosquitto
from brokers.nodes import EjabberdNode, bridged_mosquittos, ejabberd_cluster
from mqtt_agent import Agent, MemoryStore, PostgresStore, TaskContext, ToolClient, ToolServer
from mqtt_agent.transport import Bound
from support import require, soon

Where = str | list[str]


class Endpoints:
    """Makes and starts endpoints in the test's namespace, and counts what they run: ``runs`` by number or task id."""

    def __init__(self, namespace: str, stack: AsyncExitStack) -> None:
        self.runs: Counter[Any] = Counter()
        self.finish = asyncio.Event()
        self._namespace = namespace
        self._stack = stack

    async def client(self, url: Where) -> ToolClient:
        return await self._start(ToolClient(broker=url, namespace=self._namespace))

    async def replica(
        self, url: Where, name: str, will_delay: int = 1, server: str = "server", bound: Bound = "prefer"
    ) -> ToolServer:
        """A replica with the tools ``square`` and ``wait``, which waits for ``finish``. Calls are not repeatable."""
        replica = ToolServer(
            server,
            replica=name,
            broker=url,
            namespace=self._namespace,
            will_delay=will_delay,
            drain_timeout=1,
            bound=bound,
        )

        @replica.tool
        async def square(n: int) -> int:
            self.runs[n] += 1
            return n * n

        @replica.tool
        async def wait(n: int) -> int:
            self.runs[n] += 1
            await self.finish.wait()
            return n

        return await self._start(replica)

    async def agent(self, url: Where, name: str) -> Agent:
        """An agent whose handler waits for ``finish`` when its task says so."""
        return await self._agent(url, name, store=MemoryStore())

    async def member(self, url: Where, name: str, database: str) -> Agent:
        """A member of a pool, with the handler of :meth:`agent`."""
        return await self._agent(url, name, store=PostgresStore(database), pool=True, max_concurrency=20)

    async def _agent(self, url: Where, name: str, **options: Any) -> Agent:
        agent = Agent(name, broker=url, namespace=self._namespace, will_delay=1, drain_timeout=0.5, **options)

        @agent.on_task
        async def handle(task: TaskContext) -> Any:
            self.runs[task.id] += 1
            if task.data == "wait":
                await self.finish.wait()
            return task.id

        return await self._start(agent)

    async def _start(self, endpoint: Any) -> Any:
        await soon(endpoint.start(), 20)
        self._stack.push_async_callback(lambda: soon(endpoint.stop(), 20))
        return endpoint


@pytest.fixture
async def endpoints(namespace: str) -> AsyncIterator[Endpoints]:
    async with AsyncExitStack() as stack:
        yield Endpoints(namespace, stack)


@pytest.fixture(scope="session")
def cluster() -> Iterator[list[EjabberdNode]]:
    """Three nodes that the tests share."""
    require(EjabberdNode)
    with ejabberd_cluster() as nodes:
        yield nodes


@pytest.fixture
def own_cluster() -> Iterator[list[EjabberdNode]]:
    """Three nodes of which the test may kill one."""
    require(EjabberdNode)
    with ejabberd_cluster() as nodes:
        yield nodes


@pytest.fixture
def bridged() -> Iterator[list[Mosquitto]]:
    """Two brokers of which the test may kill one; the second has the bridge."""
    require(Mosquitto)
    with bridged_mosquittos() as both:
        yield both
