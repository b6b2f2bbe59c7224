"""The blocking API: the same methods, from any thread, with or without a running event loop."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import mqtt_agent
import mqtt_agent.sync
import mqtt_agent.tools
import pytest
from brokers import Broker, Mosquitto
from databases import shared_postgres
from mqtt_agent import MemoryStore, TaskEvent
from mqtt_agent.errors import BrokerUnreachable, CallCanceled, ConnectionLost, PeerUnavailable, ToolFailed
from mqtt_agent.sync import Agent, CallHandle, TaskContext, ToolClient, ToolContext, ToolServer
from mqtt_agent.sync.blocking import Wrapper
from mqtt_agent.sync.loop import Background
from typing_extensions import get_overloads

FACES = ["Agent", "CallHandle", "Content", "TaskContext", "TaskHandle", "ToolClient", "ToolContext", "ToolServer"]


@pytest.mark.parametrize("name", FACES)
def test_both_faces_have_the_same_methods_with_the_same_parameters(name: str) -> None:
    sync_class = getattr(mqtt_agent.sync, name)
    async_class = getattr(mqtt_agent.tools if name == "Content" else mqtt_agent, name)
    internal = {"open_stream", "settle", "fail", "failure", "take_partial", "when_over", "in_thread", "take_event"}
    internal |= {"leave_to_parent", "raise_failure", "follow_log", "follow_requests", "move_to", "views", "streaming"}
    internal |= {"give_up", "wake", "end_if_done"}
    internal |= {"serve_until_signal"}  # signals reach the main thread only, where run() is
    for method in {n for n in dir(async_class) if not n.startswith("_")} - internal:
        theirs, ours = getattr(async_class, method), getattr(sync_class, method)
        assert isinstance(theirs, property) == isinstance(ours, property), method
        if not isinstance(theirs, property):
            assert _parameters(ours) == _parameters(theirs), method
            assert [_parameters(each) for each in get_overloads(ours)] == [
                _parameters(each) for each in get_overloads(theirs)
            ], method
    if name in ("Agent", "ToolClient", "ToolServer"):
        ours, theirs = inspect.signature(sync_class.__init__), inspect.signature(async_class.__init__)
        assert ours == theirs


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not keep overloads for inspection")
@pytest.mark.parametrize("decorator", [Agent.on_task, ToolServer.tool])
def test_a_decorator_has_an_overload_with_and_one_without_arguments(decorator: Any) -> None:
    assert len(get_overloads(decorator)) == 2


def test_a_blocking_method_has_the_docstring_of_the_async_method() -> None:
    for sync_method, async_method in [
        (ToolClient.submit, mqtt_agent.ToolClient.submit),
        (ToolServer.add_tool, mqtt_agent.ToolServer.add_tool),
        (Agent.delegate, mqtt_agent.Agent.delegate),
        (mqtt_agent.sync.TaskHandle.result, mqtt_agent.TaskHandle.result),
    ]:
        assert sync_method.__doc__ == async_method.__doc__
        assert sync_method.__name__ == async_method.__name__


def _parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


def make_server(broker: Broker, namespace: str) -> ToolServer:
    server = ToolServer("server", broker=broker.url, namespace=namespace)

    @server.tool
    def crawl(pages: int, ctx: ToolContext) -> str:
        for page in range(pages):
            ctx.stream(page)
        return threading.current_thread().name

    @server.tool
    async def fail() -> None:
        raise ValueError("on purpose")

    return server


def test_a_script_without_asyncio_serves_and_calls(broker: Broker, namespace: str) -> None:
    seen: list[Any] = []
    callback_threads: set[str] = set()

    def on_partial(value: Any) -> None:
        seen.append(value)
        callback_threads.add(threading.current_thread().name)

    with make_server(broker, namespace), ToolClient(broker=broker.url, namespace=namespace) as client:
        assert [card.tool for card in client.list_tools()] == ["crawl", "fail"]
        assert client.call("crawl", {"pages": 3}, on_partial=on_partial).startswith("mqtt-agent-tool")
        assert seen == [0, 1, 2]
        assert callback_threads == {threading.current_thread().name}
        handle = client.submit("crawl", {"pages": 2})
        assert isinstance(handle, CallHandle)
        assert list(handle.partials()) == [0, 1]
        assert handle.result()
        assert handle.done
        with pytest.raises(ToolFailed, match="on purpose"):
            client.call("fail")
        changes = client.watch_tools()
        assert iter(changes) is changes


def test_a_script_without_asyncio_gives_and_takes_tasks(broker: Broker, namespace: str) -> None:
    writer = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore())

    @writer.on_task
    def handle(task: TaskContext) -> object:
        task.stream("part")
        return [task.prompt, task.ask("Well?")]

    with writer, Agent("planner", broker=broker.url, namespace=namespace, store=MemoryStore()) as planner:
        assert next(planner.watch_peers("writer")).name == "writer"
        assert [card.name for card in planner.peers()] == ["writer"]
        task = planner.delegate("writer", "write")
        told: list[str | None] = []
        for event in task.events():
            told.append(event.content or event.status)
            if event.status == "input-required":
                task.send("yes")
        assert told == ["working", "part", "Well?", "working", "completed"]
        assert task.result(timeout=10) == ["write", "yes"]
        assert planner.resume(task.task_id).result(timeout=10) == ["write", "yes"]
        assert [each.task_id for each in planner.delegations()] == [task.task_id]
        with pytest.raises(PeerUnavailable):
            planner.request("nobody")


def test_blocking_agents_are_the_members_of_a_pool(mosquitto: Mosquitto, namespace: str) -> None:
    url, both_work = shared_postgres().new_database(), threading.Barrier(2)

    def member(name: str) -> Agent:
        agent = Agent(
            "writer", broker=mosquitto.url, namespace=namespace, store=url, pool=True, max_concurrency=1, will_delay=1
        )

        @agent.on_task
        def handle(task: TaskContext) -> str:
            both_work.wait(20)
            return name

        return agent

    planner = Agent("planner", broker=mosquitto.url, namespace=namespace, store=MemoryStore())
    with member("a"), member("b") as second, planner:
        assert second.card.pool
        handles = [planner.delegate("writer", f"{number}") for number in range(2)]
        assert {handle.result(timeout=30) for handle in handles} == {"a", "b"}


def test_a_blocking_request_tells_its_events_in_the_calling_thread(broker: Broker, namespace: str) -> None:
    writer = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore())

    @writer.on_task
    def handle(task: TaskContext) -> str:
        task.stream("part")
        return "done"

    told: list[tuple[str | None, str]] = []

    def on_event(event: TaskEvent) -> None:
        told.append((event.content or event.status, threading.current_thread().name))

    with writer, Agent("planner", broker=broker.url, namespace=namespace, store=MemoryStore()) as planner:
        assert planner.request("writer", on_event=on_event) == "done"
    assert told == [(each, threading.current_thread().name) for each in ("working", "part", "completed")]


def test_many_threads_share_one_client(broker: Broker, namespace: str) -> None:
    results: list[str] = []

    def work() -> None:
        results.extend(client.call("crawl", {"pages": 0}) for _ in range(20))

    with make_server(broker, namespace), ToolClient(broker=broker.url, namespace=namespace) as client:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(results) == 160


async def test_it_works_inside_a_running_event_loop(broker: Broker, namespace: str) -> None:
    with make_server(broker, namespace), ToolClient(broker=broker.url, namespace=namespace) as client:
        assert client.call("crawl", {"pages": 0})
        assert await asyncio.to_thread(client.call, "crawl", {"pages": 0})


def test_a_blocking_method_on_the_background_loop_is_refused_since_it_would_wait_for_itself() -> None:
    with Background() as background:

        async def block() -> None:
            background.run(asyncio.sleep, 0)

        with pytest.raises(RuntimeError, match="use the async classes"):
            background.run(block)


def test_stopping_and_starting_again_is_fine(broker: Broker, namespace: str) -> None:
    server = make_server(broker, namespace)
    client = ToolClient(broker=broker.url, namespace=namespace)
    for _ in range(2):
        server.start()
        server.start()
        client.start()
        assert client.call("crawl", {"pages": 0})
        client.stop()
        client.stop()
        server.stop()
    with pytest.raises(ConnectionLost, match="not started"):
        client.call("crawl", {"pages": 0})


def test_errors_come_through_and_leave_nothing_behind(url_of_nobody: str) -> None:
    before = threading.active_count()
    client = ToolClient(broker=url_of_nobody)
    with pytest.raises(BrokerUnreachable):
        client.start()
    assert threading.active_count() <= before + 1, "only asyncio's own executor thread may stay"


def test_a_handle_outlives_its_client_with_a_clear_error(broker: Broker, namespace: str) -> None:
    with make_server(broker, namespace) as server:
        server.add_tool("wait", asyncio.Event().wait)
        with ToolClient(broker=broker.url, namespace=namespace) as client:
            handle = client.submit("wait", wait_online=True)
        assert handle.done
        assert isinstance(handle._async._outcome.exception(), CallCanceled)


def test_a_script_that_forgets_to_stop_still_ends(broker: Broker, namespace: str) -> None:
    script = f"""
from mqtt_agent.sync import ToolClient, ToolServer
server = ToolServer("server", broker={broker.url!r}, namespace={namespace!r})
server.add_tool("one", lambda: 1)
server.start()
client = ToolClient(broker={broker.url!r}, namespace={namespace!r})
client.start()
print(client.call("one", wait_online=True))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"")


def test_ctrl_c_in_an_iteration_is_told_as_such_however_slowly_the_iterator_ends() -> None:
    ended: list[bool] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            while True:  # an interpreter that is about to wait may miss a signal
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                await asyncio.sleep(0.5)
        finally:
            for _ in range(100):
                await asyncio.sleep(0)
            ended.append(True)

    class Numbers(Wrapper[None]):
        def __iter__(self) -> Iterator[int]:
            return self._iterate(numbers())

    with Background() as background:
        iterator = iter(Numbers(None, background))
        assert next(iterator) == 1
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
    assert ended


# The wrong kind of with, run() and blocking calls where an event loop runs


def test_an_async_class_in_a_plain_with_says_what_to_do() -> None:
    async_classes: list[Any] = [mqtt_agent.ToolClient("a"), mqtt_agent.ToolServer("b"), mqtt_agent.Agent("c")]
    for each in async_classes:
        with pytest.raises(TypeError, match=f"{type(each).__name__} is an async class: use 'async with'"), each:
            pass


async def test_a_blocking_class_in_an_async_with_says_what_to_do() -> None:
    blocking: list[Any] = [ToolClient("a"), ToolServer("b"), Agent("c")]
    for each in blocking:
        with pytest.raises(TypeError, match=f"{type(each).__name__} of mqtt_agent.sync blocks: use 'with'"):
            async with each:
                pass


async def test_run_in_a_running_event_loop_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"run\(\) of b:.* blocks, .*notebook.*: use 'await start\(\)'"):
        mqtt_agent.ToolServer("b").run()
    with pytest.raises(RuntimeError, match=r"run\(\) of c blocks, .*: use 'await start\(\)'"):
        mqtt_agent.Agent("c").run()
    for blocking in (ToolServer("b"), Agent("c")):
        with pytest.raises(RuntimeError, match=r"run\(\) blocks, .*: use start\(\)"):
            blocking.run()


async def test_a_blocking_call_that_stops_an_event_loop_is_told_once_with_its_place(
    broker: Broker, namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_agent.sync.loop._told", False)
    with ToolClient("client", broker=broker.url, namespace=namespace) as client:
        client.list_tools()
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"stops the event loop of this thread until the call returns (at {__file__}:" in told
    assert told.endswith("use the async classes of mqtt_agent in async code")


def test_a_tool_that_is_added_to_a_started_server_can_be_called_at_once(broker: Broker, namespace: str) -> None:
    where: Any = {"broker": broker.url, "namespace": namespace}
    with ToolServer("server", **where) as server, ToolClient("client", **where) as client:
        for number in range(10):

            @server.tool(name=f"decorated{number}")
            def decorated() -> int:
                return 1

            assert client.call(f"decorated{number}", timeout=10) == 1
            server.add_tool(f"added{number}", lambda: 2, description="Returns 2")
            assert client.call(f"added{number}", timeout=10) == 2
