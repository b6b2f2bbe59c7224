"""A handler that waits for an answer only for a while, and then goes on without it."""

from __future__ import annotations

import asyncio
from typing import Any

from mqtt_agent import Agent, TaskContext
from support import soon


async def test_a_question_that_the_handler_gives_up_is_over_for_its_requester_too(
    writer: Agent, planner: Agent
) -> None:
    go_on = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        try:
            first = await asyncio.wait_for(task.ask("Which colour?"), 0.05)
        except asyncio.TimeoutError:
            first = "grey"
        await go_on.wait()
        return [first, await task.ask("Which size?")]

    handle_ = await soon(planner.delegate("writer", "paint"))
    told: list[tuple[str | None, Any]] = []

    async def follow() -> None:
        async for event in handle_.events():
            told.append((event.status, event.content))
            if len(told) == 3:
                assert (handle_.state, handle_.question) == ("working", None)
                go_on.set()
            if event.content == "Which size?":
                await handle_.send("large")

    await soon(follow())
    asked = [("input-required", "Which colour?"), ("working", None), ("input-required", "Which size?")]
    assert told == [("working", None), *asked, ("working", None), ("completed", None)]
    assert await soon(handle_.result()) == ["grey", "large"]


async def test_a_handler_that_is_canceled_again_and_again_still_takes_its_question_back(
    writer: Agent, planner: Agent
) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        asking = asyncio.ensure_future(task.ask("Which colour?"))
        await asyncio.sleep(0.05)
        while not asking.done():  # as the cancel scopes of anyio do
            asking.cancel()
            await asyncio.sleep(0)
        return await task.ask("Which size?")

    handle_ = await soon(planner.delegate("writer", "paint"))

    async def answer() -> None:
        async for event in handle_.events():
            if event.content == "Which size?":
                await handle_.send("large")

    await soon(answer())
    assert await soon(handle_.result()) == "large"
