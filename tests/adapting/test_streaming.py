"""Work on another event loop, followed from the framework's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from mqtt_agent.adapting.streaming import Emit, stream
from support import soon


async def test_what_the_work_emits_comes_before_its_result() -> None:
    async def work(emit: Emit) -> str:
        threads = [threading.Thread(target=emit, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
            await asyncio.to_thread(thread.join)
        return "done"

    *told, outcome = [each async for each in stream(work)]
    assert told == [0, 1, 2]
    assert outcome.result() == "done"


async def test_an_error_of_the_work_is_in_the_future_and_never_raised() -> None:
    async def work(emit: Emit) -> None:
        raise ValueError("no paper")

    [outcome] = [each async for each in stream(work)]
    with pytest.raises(ValueError, match="no paper"):
        outcome.result()


class Hanging:
    """Work that never ends by itself."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.canceled = asyncio.Event()

    async def __call__(self, emit: Emit) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.canceled.set()
            raise


async def followed(work: Hanging, on_cancel: Callable[[Callable[[], None]], object] | None = None) -> Any:
    async with aclosing(stream(work, on_cancel)) as events:
        return [each async for each in events]


async def test_a_token_that_is_canceled_in_another_thread_cancels_the_work() -> None:
    work, cancels = Hanging(), list[Callable[[], None]]()
    following = asyncio.ensure_future(followed(work, cancels.append))
    await soon(work.begun.wait())
    await asyncio.to_thread(cancels[0])
    [outcome] = await soon(following)
    assert outcome.cancelled()
    assert work.canceled.is_set()


async def test_a_caller_that_is_canceled_gets_a_canceled_future_at_once_and_the_work_is_canceled() -> None:
    work = Hanging()
    following = asyncio.ensure_future(followed(work))
    await soon(work.begun.wait())
    following.cancel()
    [outcome] = await soon(following)
    assert outcome.cancelled()
    await soon(work.canceled.wait())


async def test_closing_the_stream_cancels_the_work() -> None:
    work = Hanging()

    async def emits_first(emit: Emit) -> None:
        emit("begun")
        await work(emit)

    async with aclosing(stream(emits_first)) as events:
        assert await soon(anext(events)) == "begun"
    await soon(work.canceled.wait())
