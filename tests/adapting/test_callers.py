"""Code that blocks and code that awaits run the same coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent.adapting.callers import AwaitingCaller, BlockingCaller, Caller, block, iterate, last
from mqtt_agent.sync import ToolClient
from support import soon


@pytest.fixture
def client(broker: Broker, namespace: str) -> Iterator[ToolClient]:
    client = ToolClient("agent-a", broker=broker.url, namespace=namespace)
    yield client
    client.stop()


async def thread_of(client: Any) -> str:
    return f"{client.agent_id} in {threading.current_thread().name}"


async def work(caller: Caller, seen: list[str]) -> str:
    seen.append(threading.current_thread().name)
    return await caller.on_loop(thread_of)


async def test_the_same_work_runs_in_the_callers_thread_and_its_steps_on_the_connections_loop(
    client: ToolClient,
) -> None:
    awaited: list[str] = []
    where = await soon(work(AwaitingCaller(client), awaited))
    assert where.startswith("agent-a in ")
    assert awaited == [threading.current_thread().name]
    blocked: list[str] = []
    assert await soon(asyncio.to_thread(lambda: block(work(BlockingCaller(client), blocked)))) == where
    assert blocked != awaited
    assert not where.endswith((*awaited, *blocked))


async def pieces(caller: Caller, closed: list[str]) -> AsyncGenerator[int, None]:
    try:
        for number in range(3):
            await caller.on_loop(thread_of)
            yield number
    except GeneratorExit:
        closed.append(await caller.undo(thread_of))
        raise


def test_code_that_blocks_iterates_over_pieces_and_closes_them_when_it_stops(client: ToolClient) -> None:
    closed: list[str] = []
    assert list(iterate(pieces(BlockingCaller(client), closed))) == [0, 1, 2]
    assert closed == []
    for piece in iterate(pieces(BlockingCaller(client), closed)):
        assert piece == 0
        break
    assert len(closed) == 1
    assert block(last(pieces(BlockingCaller(client), closed))) == 2


async def test_what_must_be_undone_is_done_even_if_the_caller_is_canceled_once_more(client: ToolClient) -> None:
    begun, undone, go_on = asyncio.Event(), threading.Event(), threading.Event()
    here = asyncio.get_running_loop()

    async def undo(client: Any) -> None:
        here.call_soon_threadsafe(begun.set)
        await asyncio.to_thread(go_on.wait, 10)
        undone.set()

    undoing = asyncio.ensure_future(AwaitingCaller(client).undo(undo))
    await soon(begun.wait())
    undoing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(undoing)
    go_on.set()
    assert await soon(asyncio.to_thread(undone.wait, 10))


@pytest.mark.parametrize("kind", [AwaitingCaller, BlockingCaller])
async def test_a_value_is_taken_as_it_is(client: ToolClient, kind: Callable[[ToolClient], Caller]) -> None:
    assert await kind(client).settle(7) == 7


async def test_an_awaitable_is_awaited_or_refused(client: ToolClient) -> None:
    async def answer() -> int:
        return 7

    assert await AwaitingCaller(client).settle(answer()) == 7
    with pytest.raises(TypeError, match="cannot call an async function: use ainvoke"):
        block(BlockingCaller(client).settle(answer()))


def test_work_that_awaits_something_else_is_refused_instead_of_hanging(client: ToolClient) -> None:
    async def sleeps() -> None:
        await asyncio.sleep(0)
        raise AssertionError("it went on")

    with pytest.raises(RuntimeError, match="awaited something other than its BlockingCaller"):
        block(sleeps())
