"""Starts and stops that are canceled, or that run at the same time, harm nobody who shares the connection."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from functools import partial
from types import coroutine
from typing import Any

import pytest
from brokers import Broker, Mosquitto
from mqtt_agent import Agent, MemoryStore, TaskContext, ToolClient, ToolServer, sync
from mqtt_agent.errors import BrokerUnreachable, ConnectionLost, ToolUnavailable
from mqtt_agent.transport import Connection
from support import soon, until

RUN_ON = [Mosquitto]


@coroutine
def acting_at(point: int, act: Callable[[], object], work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, bool]:
    """Await work, and call ``act`` when the work waits for the ``point``-th time. Returns whether that happened."""
    error: BaseException | None = None
    for waits in itertools.count(1):
        try:
            future = work.send(None) if error is None else work.throw(error)
        except StopIteration:
            return waits > point
        if waits == point:
            act()
        error = None
        try:
            yield future
        except BaseException as raised:
            error = raised
    raise AssertionError


def cancel_here() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def cancel_here_twice() -> None:
    """Cancel now, and again as soon as the cleanup waits."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(task.cancel))


class Begun:
    """Begins something in the background when it is called."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], times: int = 1) -> None:
        self._work, self._times = work, times
        self._tasks: list[asyncio.Task[None]] = []

    def __call__(self) -> None:
        self._tasks += [asyncio.ensure_future(self._work()) for _ in range(self._times)]

    async def end(self) -> None:
        await soon(asyncio.gather(*self._tasks))


class Stop:
    """The stop of an endpoint, during which something else happens at one moment.

    An endpoint stops in a task of its own, so that a canceled stop still ends.
    """

    def __init__(self, endpoint: Any, point: int, act: Callable[[], object]) -> None:
        self._endpoint, self._point, self._act = endpoint, point, act
        self.called = False
        self.task: asyncio.Task[None] = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        if isinstance(self._endpoint, Connection):
            self.called = await acting_at(self._point, self._act, self._endpoint.stop())
            return
        end = self._endpoint._end

        async def acting(*arguments: Any) -> None:
            self.called = await acting_at(self._point, self._act, end(*arguments))

        self._endpoint._end = acting
        try:
            await self._endpoint.stop()
        finally:
            del self._endpoint._end


async def stopped(endpoint: Any, point: int, act: Callable[[], object]) -> bool:
    """Stop an endpoint, and call ``act`` when the stop waits for the ``point``-th time."""
    stop = Stop(endpoint, point, act)
    await soon(stop.task)
    return stop.called


async def stopped_although_canceled(endpoint: Any, point: int, *, twice: bool) -> bool:
    """Stop an endpoint, and cancel who waits when the stop waits for the ``point``-th time."""

    def cancel() -> None:
        stop.task.cancel()
        if twice:
            asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(stop.task.cancel))

    stop = Stop(endpoint, point, cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await soon(stop.task)
    return stop.called or stop.task.cancelled()


class Shared:
    """A connection that a server and a client use all the time, and the endpoint that the test starts and stops."""

    def __init__(self, broker: Broker, namespace: str) -> None:
        self.options: dict[str, Any] = {"namespace": namespace}
        self.connection = Connection(broker.url, will_delay=1)
        self.steady = ToolServer("steady", connection=self.connection, namespace=namespace, drain_timeout=1)
        self.client = ToolClient("client", connection=self.connection, namespace=namespace)
        self.watcher = ToolClient("watcher", broker=broker.url, namespace=namespace)
        self.steady.add_tool("echo", echo)

    async def __aenter__(self) -> Shared:
        for each in (self.steady, self.client, self.watcher):
            await soon(each.start())
        return self

    async def __aexit__(self, *error: object) -> None:
        for each in (self.client, self.watcher):
            await soon(each.stop())
        assert self.connection.connected  # the steady server still uses the connection
        await soon(self.steady.stop())
        assert not self.connection.started

    async def works(self) -> None:
        """The others are not disturbed."""
        assert self.connection.connected
        assert await soon(self.client.call("echo", {"text": "hello"})) == "hello"
        assert await soon(self.watcher.call("echo", {"text": "hello"})) == "hello"

    async def online(self, server: str) -> list[str]:
        """The tools of a server that are shown as online."""
        assert await self.watcher._catalog.barrier()
        listed = [card.name for card in await self.watcher.list_servers()]
        tools = [card.tool for card in await self.watcher.list_tools(server)]
        assert (server in listed) == bool(tools)
        return tools


async def echo(text: str) -> str:
    return text


class Guest:
    """An endpoint on the shared connection."""

    def __init__(self, kind: str, shared: Shared) -> None:
        self.kind, self.shared = kind, shared
        options: dict[str, Any] = {"connection": shared.connection, **shared.options}
        if kind == "client":
            self.endpoint: Any = ToolClient("guest", **options)
        elif kind == "connection":
            self.endpoint = shared.connection
        else:
            # A server of its own agent: a connection has one Last Will, which the steady server has set.
            self.endpoint = ToolServer("guest", broker=str(shared.connection.url), drain_timeout=1, **shared.options)
            self.endpoint.move_to(shared.connection, "nobody", "prefer")
            self.endpoint.add_tool("guest", echo)

    async def is_off(self) -> None:
        if self.kind == "server":
            assert await self.shared.online("guest") == []
        assert self.kind == "connection" or "stopped" in repr(self.endpoint)

    async def is_on(self) -> None:
        if self.kind == "client":
            assert await soon(self.endpoint.call("echo", {"text": "guest"})) == "guest"
        if self.kind == "server":
            assert await self.shared.online("guest") == ["guest"]
            assert await soon(self.shared.watcher.call("guest", {"text": "served"})) == "served"


@pytest.fixture(params=["client", "server", "connection"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("cancel", [cancel_here, cancel_here_twice], ids=["once", "twice"])
async def test_a_start_that_is_canceled_anywhere_leaves_nothing_behind(
    kind: str, cancel: Callable[[], None], broker: Broker, namespace: str
) -> None:
    shared = Shared(broker, namespace)
    guest = Guest(kind, shared)
    async with shared:
        for point in itertools.count(1):
            users = shared.connection._lifetime.users
            starting = asyncio.ensure_future(acting_at(point, cancel, guest.endpoint.start()))
            with contextlib.suppress(asyncio.CancelledError):
                canceled = await soon(starting)
                if not canceled:
                    break
                await soon(guest.endpoint.stop())  # the cancellation came too late to be noticed
            assert shared.connection._lifetime.users == users
            await guest.is_off()
            await shared.works()
        await guest.is_on()
        await soon(guest.endpoint.stop())
        await guest.is_off()
        await shared.works()


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_a_stop_that_is_canceled_anywhere_still_stops(
    kind: str, twice: bool, broker: Broker, namespace: str
) -> None:
    shared = Shared(broker, namespace)
    guest = Guest(kind, shared)
    async with shared:
        for point in itertools.count(1):
            users = shared.connection._lifetime.users
            await soon(guest.endpoint.start())
            canceled = await stopped_although_canceled(guest.endpoint, point, twice=twice)
            assert shared.connection._lifetime.users == users
            await guest.is_off()
            await shared.works()
            if not canceled:
                break


async def test_a_stop_at_any_moment_of_a_start_stops_once(kind: str, broker: Broker, namespace: str) -> None:
    shared = Shared(broker, namespace)
    guest = Guest(kind, shared)
    async with shared:
        for point in itertools.count(1):
            users = shared.connection._lifetime.users
            stops = Begun(guest.endpoint.stop, times=1 if kind == "connection" else 3)
            called = await soon(acting_at(point, stops, guest.endpoint.start()))
            await stops.end()
            if not called:
                break
            assert shared.connection._lifetime.users == users
            await guest.is_off()
            await shared.works()
        await guest.is_on()
        await soon(asyncio.gather(*(guest.endpoint.stop() for _ in range(1 if kind == "connection" else 3))))
        await guest.is_off()
        await shared.works()


async def test_a_start_at_any_moment_of_a_stop_starts_again(kind: str, broker: Broker, namespace: str) -> None:
    shared = Shared(broker, namespace)
    guest = Guest(kind, shared)
    async with shared:
        users = shared.connection._lifetime.users
        for point in itertools.count(1):
            await soon(guest.endpoint.start())
            starts = Begun(guest.endpoint.start)
            called = await stopped(guest.endpoint, point, starts)
            if not called:
                break
            await starts.end()
            assert shared.connection._lifetime.users == users + 1
            await guest.is_on()
            await soon(guest.endpoint.stop())
            assert shared.connection._lifetime.users == users
            await guest.is_off()
        await shared.works()


async def test_a_connection_is_stopped_and_started_at_any_moment_by_its_only_users(
    broker: Broker, namespace: str
) -> None:
    connection = Connection(broker.url)
    for point in itertools.count(1):
        await soon(connection.start())
        starts = Begun(connection.start)
        called = await stopped(connection, point, starts)
        await starts.end()
        if not called:
            break
        assert connection.connected
        assert await soon(connection.publish(f"{namespace}/a", b"")) in (0, 0x10)
        await soon(connection.stop())
        assert not connection.connected


@pytest.mark.parametrize("cancel", [cancel_here, cancel_here_twice], ids=["once", "twice"])
async def test_a_connection_whose_first_start_is_canceled_anywhere_can_start(
    cancel: Callable[[], None], broker: Broker, namespace: str
) -> None:
    connection = Connection(broker.url)
    for point in itertools.count(1):
        with contextlib.suppress(asyncio.CancelledError):
            if not await soon(asyncio.ensure_future(acting_at(point, cancel, connection.start()))):
                break
            await soon(connection.stop())
        assert not connection.started
        assert not connection.connected
    # The broker may read the CONNECT of a canceled start last, and close this connection. Then it reconnects.
    await until(lambda: connection.connected)
    assert await soon(connection.publish(f"{namespace}/a", b"")) in (0, 0x10)
    await soon(connection.stop())


# Tools that are added


async def test_a_tool_that_is_added_at_any_moment_of_a_start_is_served(broker: Broker, namespace: str) -> None:
    async with ToolClient("client", broker=broker.url, namespace=namespace) as client:
        for point in itertools.count(1):
            server = ToolServer("server", broker=broker.url, namespace=namespace)
            late = f"late-{point}"
            called = await soon(acting_at(point, partial(server.add_tool, late, echo), server.start()))
            if not called:
                await soon(server.stop())
                break
            assert await soon(client.call(late, {"text": "served"}, wait_online=True)) == "served"
            await soon(server.stop())
            assert await client.list_tools() == []


async def test_a_tool_that_is_added_at_any_moment_of_a_stop_is_not_online(broker: Broker, namespace: str) -> None:
    async with ToolClient("client", broker=broker.url, namespace=namespace) as client:
        for point in itertools.count(1):
            server = ToolServer("server", broker=broker.url, namespace=namespace)
            server.add_tool("first", echo)
            await soon(server.start())
            called = await stopped(server, point, partial(server.add_tool, "late", echo))
            assert await client._catalog.barrier()
            assert await client.list_tools() == []
            if not called:
                break


async def test_tools_that_are_added_just_before_a_stop_are_not_online(broker: Broker, namespace: str) -> None:
    async with ToolClient("client", broker=broker.url, namespace=namespace) as client:
        for turns in range(12):
            server = ToolServer("server", broker=broker.url, namespace=namespace)
            await soon(server.start())
            server.add_tool("late", echo)
            for _ in range(turns):
                await asyncio.sleep(0)
            await soon(server.stop())
            assert await client._catalog.barrier()
            assert await client.list_tools() == []


# Ctrl-C


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Press Ctrl-C until the block ends with a KeyboardInterrupt."""
    over = threading.Event()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a program that a person starts

    def press() -> None:
        while not over.wait(0.3):  # an interpreter that is about to wait may miss a signal
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            if over.wait(5):
                return

    thread = threading.Thread(target=press)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_a_blocking_start_leaves_an_endpoint_that_can_start(broker: Broker, namespace: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        connection = Connection(f"mqtt://127.0.0.1:{silent.getsockname()[1]}", connect_timeout=1.5)
        client = sync.ToolClient("client", connection=connection, namespace=namespace)
        with interrupting():
            client.start()
        assert not connection.started
        with pytest.raises(BrokerUnreachable):
            client.start()
        assert not connection.started


def test_ctrl_c_in_a_blocking_stop_cancels_what_runs_and_completes_the_stop(broker: Broker, namespace: str) -> None:
    options: dict[str, Any] = {"broker": broker.url, "namespace": namespace}
    server = sync.ToolServer("server", drain_timeout=30, **options)

    async def hang() -> None:
        await asyncio.Event().wait()

    server.add_tool("hang", hang)
    with sync.ToolClient("client", **options) as client:
        server.start()
        call = client.submit("hang", wait_online=True)
        while server.active_calls == 0:
            time.sleep(0.01)
        with interrupting():
            server.stop()
        with pytest.raises(ToolUnavailable, match="stopped"):
            call.result()
        assert not server.connection.started
        assert client.list_tools() == []
        server.start()
        assert [card.tool for card in client.list_tools()] == ["hang"]
        server.stop()


# Agents


@contextlib.asynccontextmanager
async def an_agent_with_tools(broker: Broker, namespace: str) -> AsyncIterator[tuple[Agent, Agent]]:
    options: dict[str, Any] = {"broker": broker.url, "namespace": namespace, "will_delay": 1}
    agent, peer = Agent("agent", store=MemoryStore(), **options), Agent("peer", store=MemoryStore(), **options)

    @agent.on_task
    async def work(task: TaskContext) -> str | None:
        return task.prompt

    server = ToolServer("server", **options)
    server.add_tool("echo", echo)
    agent.add_server(server)
    async with peer:
        yield agent, peer


async def offline(peer: Agent) -> bool:
    card = await peer.peer("agent")
    await peer._peers.look_again()
    tools = await peer.tool_client.list_tools()
    return (card is None or card.status == "offline") and not tools


async def works(agent: Agent, peer: Agent) -> None:
    assert await soon(peer.request("agent", "hello", wait_online=True)) == "hello"
    assert await soon(peer.tool_client.call("echo", {"text": "x"}, wait_online=True)) == "x"
    assert await soon(agent.tool_client.call("echo", {"text": "y"}, wait_online=True)) == "y"


@pytest.mark.parametrize("cancel", [cancel_here, cancel_here_twice], ids=["once", "twice"])
async def test_an_agents_start_that_is_canceled_anywhere_leaves_nothing_behind(
    cancel: Callable[[], None], broker: Broker, namespace: str
) -> None:
    async with an_agent_with_tools(broker, namespace) as (agent, peer):
        for point in itertools.count(1):
            with contextlib.suppress(asyncio.CancelledError):
                if not await soon(asyncio.ensure_future(acting_at(point, cancel, agent.start()))):
                    break
                await soon(agent.stop())
            assert not agent.connection.started
            assert await offline(peer), point
        await works(agent, peer)
        await soon(agent.stop())
        assert await offline(peer)


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_an_agents_stop_that_is_canceled_anywhere_still_stops(
    twice: bool, broker: Broker, namespace: str
) -> None:
    async with an_agent_with_tools(broker, namespace) as (agent, peer):
        for point in itertools.count(1):
            await soon(agent.start())
            await works(agent, peer)
            canceled = await stopped_although_canceled(agent, point, twice=twice)
            assert not agent.connection.started
            assert await offline(peer), point
            if not canceled:
                break


async def test_an_agents_stop_at_any_moment_of_its_start_stops_it(broker: Broker, namespace: str) -> None:
    async with an_agent_with_tools(broker, namespace) as (agent, peer):
        for point in itertools.count(1):
            stops = Begun(agent.stop)
            called = await soon(acting_at(point, stops, agent.start()))
            if not called:
                break
            await stops.end()
            assert not agent.connection.started
            assert await offline(peer), point
        await soon(asyncio.gather(agent.stop(), agent.stop(), agent.stop()))
        assert not agent.connection.started


async def test_a_server_that_an_agent_gets_at_any_moment_of_its_stop_is_not_online(
    broker: Broker, namespace: str
) -> None:
    for point in itertools.count(1):
        async with an_agent_with_tools(broker, namespace) as (agent, peer):
            await soon(agent.start())
            late = ToolServer("late", broker=broker.url, namespace=namespace)
            late.add_tool("late", echo)
            serving = Begun(partial(agent.serve_tools, late))
            called = await stopped(agent, point, serving)
            await serving.end()
            assert not agent.connection.started
            assert await offline(peer), point
        if not called:
            break


async def test_a_tool_client_that_an_agent_lends_works_in_each_life_of_the_agent(
    broker: Broker, namespace: str
) -> None:
    async with an_agent_with_tools(broker, namespace) as (agent, _):
        client = agent.tool_client
        for _ in range(3):
            async with agent:
                assert await soon(client.call("echo", {"text": "x"}, wait_online=True)) == "x"
            with pytest.raises(ConnectionLost):
                await client.call("echo", {"text": "x"})
