"""Waits that end after some time."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import pytest
from mqtt_agent.aio import waiting
from mqtt_agent.aio.waiting import within
from support import soon


async def test_a_cancellation_in_the_same_turn_as_the_result_ends_the_wait() -> None:
    event, entered = asyncio.Event(), asyncio.Event()

    async def wait_for_ever() -> None:
        while True:
            entered.set()
            await within(event.wait(), 60)
            event.clear()

    for turns in range(3):
        task = asyncio.create_task(wait_for_ever())
        await soon(entered.wait())
        await asyncio.sleep(0)
        event.set()
        for _ in range(turns):  # the wait wakes up in one of these turns
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        event.clear()
        entered.clear()


async def test_the_wait_ends_with_the_result_or_when_the_time_is_over() -> None:
    ready = asyncio.get_running_loop().create_future()
    ready.set_result(7)
    assert await within(ready, None) == 7
    never = asyncio.get_running_loop().create_future()
    with pytest.raises(asyncio.TimeoutError):
        await within(never, 0.01)
    assert never.cancelled()


async def test_the_time_of_several_waits_together_is_over_on_every_python(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (sys.version_info, (3, 10)):
        monkeypatch.setattr(waiting, "sys", SimpleNamespace(version_info=version))
        with pytest.raises(asyncio.TimeoutError):
            await waiting.within(asyncio.gather(asyncio.Event().wait(), asyncio.Event().wait()), 0.01)
