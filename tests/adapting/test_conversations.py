"""A host's conversations: one turn at a time in each, and what nobody uses leaves the memory."""

from __future__ import annotations

import asyncio

import pytest
from mqtt_agent import Agent, TaskContext
from mqtt_agent.adapting.conversations import Conversations, saved_by_task
from support import soon, until

from tests.agents.conftest import MakeAgent


async def test_turns_of_one_conversation_run_one_at_a_time_in_the_order_of_arrival() -> None:
    conversations, order = Conversations[str](limit=10), list[str]()
    gates = {name: asyncio.Event() for name in "abc"}

    async def take(name: str) -> None:
        async with conversations.turn("one"):
            order.append(f"{name} begins")
            await gates[name].wait()
            order.append(f"{name} ends")

    turns = []
    for name in "abc":
        turns.append(asyncio.ensure_future(take(name)))
        await asyncio.sleep(0)
    for name in "cba":
        gates[name].set()
    await soon(asyncio.gather(*turns))
    assert order == ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]


async def test_turns_of_two_conversations_run_at_once() -> None:
    conversations = Conversations[str](limit=10)
    async with conversations.turn("one"), conversations.turn("two"):
        assert [each.users for each in conversations.all()] == [1, 1]


async def test_the_one_that_was_used_longest_ago_leaves_first_and_is_closed() -> None:
    closed: list[str] = []

    async def close(kept: str) -> None:
        closed.append(kept)

    conversations = Conversations[str](limit=2, close=close)
    for name in ("a", "b", "a", "c"):
        async with conversations.turn(name) as conversation:
            conversation.kept = name
    assert closed == ["b"]
    assert [each.name for each in conversations.all()] == ["a", "c"]
    async with conversations.turn("b") as conversation:
        assert conversation.kept is None
    await conversations.close()
    assert closed == ["b", "a", "c"]
    assert conversations.all() == []


async def test_a_conversation_with_a_turn_stays_however_many_there_are() -> None:
    closed: list[str] = []

    async def close(kept: str) -> None:
        closed.append(kept)

    conversations = Conversations[str](limit=0, close=close)
    async with conversations.turn("a") as first:
        first.kept = "a"
        async with conversations.turn("b") as second:
            second.kept = "b"
        assert closed == ["b"]
        assert conversations.find("a") is first
    assert closed == ["b", "a"]
    assert conversations.find("a") is None


async def test_one_that_cannot_be_closed_is_told_and_does_not_keep_the_others_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed: list[str] = []

    async def close(kept: str) -> None:
        closed.append(kept)
        if kept == "a":
            raise RuntimeError("no paper")

    conversations = Conversations[str](limit=10, close=close)
    for name in ("a", "b"):
        async with conversations.turn(name) as conversation:
            conversation.kept = name
    await conversations.close()
    assert closed == ["a", "b"]
    assert "conversation a could not be closed" in caplog.text


async def test_a_turn_that_is_canceled_while_it_waits_lets_the_next_one_run() -> None:
    conversations, ran = Conversations[str](limit=10), asyncio.Event()

    async def take(wait: asyncio.Event | None) -> None:
        async with conversations.turn("one"):
            if wait is None:
                ran.set()
            else:
                await wait.wait()

    gate = asyncio.Event()
    first = asyncio.ensure_future(take(gate))
    await until(lambda: conversations.find("one"))
    waiting = asyncio.ensure_future(take(gate))
    last = asyncio.ensure_future(take(None))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.set()
    await soon(ran.wait())
    await soon(asyncio.gather(first, last))
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_an_earlier_task_saved_is_found_by_its_id(
    make_agent: MakeAgent, writer: Agent, planner: Agent
) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> None:
        if task.prompt:
            await task.save({"said": task.prompt})

    await soon(planner.request("writer", "hello", task_id="t1"))
    await soon(planner.request("writer", task_id="t2"))
    assert [await saved_by_task(writer, name, "planner") for name in ("t1", "t2", "t3")] == [
        {"said": "hello"},
        None,
        None,
    ]
