"""Handlers that block: how many run at once, and what becomes of a thread whose call is over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from brokers import Broker
from mqtt_agent.errors import CallTimeout, ToolUnavailable
from skips import inapplicable
from support import soon, until

from ..conftest import MakeClient, MakeServer


@pytest.mark.parametrize("how", ["def", "to_thread"])
async def test_handlers_that_block_run_as_many_at_once_as_max_concurrency_allows(
    make_server: MakeServer, make_client: MakeClient, how: str
) -> None:
    barrier = threading.Barrier(40)

    def meet(n: int) -> int:
        barrier.wait(20)
        return n

    async def meet_in_thread(n: int) -> int:
        return await asyncio.to_thread(meet, n)

    server = make_server(max_concurrency=40)
    server.add_tool("meet", meet if how == "def" else meet_in_thread)
    await soon(server.start())
    client = await make_client()
    assert await soon(asyncio.gather(*(client.call("meet", {"n": n}) for n in range(40))), 30) == list(range(40))


async def test_two_servers_on_one_loop_have_threads_for_both(make_server: MakeServer, make_client: MakeClient) -> None:
    barrier = threading.Barrier(80)

    async def meet() -> int:
        return await asyncio.to_thread(barrier.wait, 20)

    for name in ("one", "two"):
        server = make_server(name, max_concurrency=40)
        server.add_tool(f"meet_{name}", meet)
        await soon(server.start())
    client = await make_client()
    calls = [client.call(f"meet_{name}") for name in ("one", "two") for _ in range(40)]
    assert sorted(await soon(asyncio.gather(*calls), 30)) == list(range(80))


async def test_an_executor_that_the_program_has_set_stays(make_server: MakeServer, make_client: MakeClient) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="own"))
    server = make_server()
    server.add_tool("name", lambda: asyncio.to_thread(lambda: threading.current_thread().name))
    await soon(server.start())
    assert await soon((await make_client()).call("name")) == "own_0"


class Blocking:
    """A plain handler that blocks until the test lets all its threads go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.begun: list[int] = []
        self.most = 0
        self._running = 0
        self._guard = threading.Lock()

    def block(self, n: int) -> int:
        with self._guard:
            self.begun.append(n)
            self._running += 1
            self.most = max(self.most, self._running)
        self.go_on.wait(30)
        with self._guard:
            self._running -= 1
        return n


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    made = Blocking()
    yield made
    made.go_on.set()


@pytest.mark.rule("RESP-13")
async def test_a_call_is_told_of_its_timeout_only_when_it_has_run(
    make_server: MakeServer, make_client: MakeClient, blocking: Blocking
) -> None:
    server, other = make_server(max_concurrency=2), make_server("other")
    server.add_tool("block", blocking.block, timeout=0.2)
    other.add_tool("hang", asyncio.Event().wait, timeout=0.2)
    await soon(server.start())
    await soon(other.start())
    client = await make_client()
    for n in (1, 2):
        with pytest.raises(CallTimeout, match="ran longer than 0.2 s"):
            await soon(client.call("block", {"n": n}))
    waiting = [asyncio.ensure_future(client.call("block", {"n": n})) for n in (3, 4, 5)]
    await until(lambda: server.active_calls == 3)
    with pytest.raises(CallTimeout, match="ran longer than 0.2 s"):  # at least 0.2 s have passed now
        await soon(client.call("hang"))
    assert not any(call.done() for call in waiting)
    assert blocking.begun == [1, 2]
    blocking.go_on.set()
    assert await soon(asyncio.gather(*waiting)) == [3, 4, 5]
    assert blocking.most == 2


async def test_a_canceled_call_keeps_its_place_until_its_thread_ends(
    make_server: MakeServer, make_client: MakeClient, blocking: Blocking
) -> None:
    server = make_server(max_concurrency=1)
    server.add_tool("block", blocking.block)
    await soon(server.start())
    client = await make_client()
    first = await soon(client.submit("block", {"n": 1}))
    await until(lambda: blocking.begun)
    second = await soon(client.submit("block", {"n": 2}))
    await until(lambda: server.active_calls == 2)
    await first.cancel()
    await until(lambda: server.active_calls == 1)
    assert blocking.begun == [1]
    blocking.go_on.set()
    assert await soon(second.result()) == 2
    assert blocking.most == 1


async def test_a_server_stops_although_a_thread_still_runs_and_tells_what_never_ran(
    make_server: MakeServer, make_client: MakeClient, blocking: Blocking, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(max_concurrency=1, drain_timeout=0)
    server.add_tool("block", blocking.block, timeout=0.1)
    await soon(server.start())
    client = await make_client()
    with pytest.raises(CallTimeout, match="ran longer"):
        await soon(client.call("block", {"n": 1}))
    waiting = asyncio.ensure_future(client.call("block", {"n": 2}))
    await until(lambda: server.active_calls == 1)
    await soon(server.stop())
    with pytest.raises(ToolUnavailable) as never_ran:
        await soon(waiting)
    assert never_ran.value.maybe_executed is False
    assert blocking.begun == [1]
    assert "1 handlers" in caplog.text


@pytest.mark.rule("CALL-6")
async def test_a_call_that_expires_while_no_place_is_free_is_dropped_at_once(
    broker: Broker, make_server: MakeServer, make_client: MakeClient, blocking: Blocking
) -> None:
    if not broker.keeps_shared_messages:
        inapplicable("calls have no Message Expiry Interval on this broker")
    server = make_server(max_concurrency=1)
    server.add_tool("block", blocking.block)
    await soon(server.start())
    client = await make_client()
    first = await soon(client.submit("block", {"n": 1}))
    await until(lambda: blocking.begun)
    with pytest.raises(CallTimeout):
        await soon(client.call("block", {"n": 2}, timeout=0.5))
    await until(lambda: server.active_calls == 1)
    blocking.go_on.set()
    assert await soon(first.result()) == 1
    assert blocking.begun == [1]
