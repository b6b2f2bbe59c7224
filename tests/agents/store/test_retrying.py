"""Work that a failing store did not accept is tried again, until it succeeds or its agent stops."""

from __future__ import annotations

import asyncio
import logging

import pytest
from mqtt_agent.agents.store import retrying
from mqtt_agent.agents.store.retrying import StoreRetry
from mqtt_agent.errors import StoreError
from support import soon, until


def new_retry() -> StoreRetry:
    return StoreRetry("worker")


class Work:
    """Work that the store does not accept for some times."""

    def __init__(self, fails: int) -> None:
        self.attempts = 0
        self._fails = fails

    async def __call__(self) -> str:
        self.attempts += 1
        if self.attempts <= self._fails:
            raise StoreError("no space is left")
        return "stored"


async def test_work_is_tried_until_it_succeeds_at_intervals_that_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "_RETRY_FIRST", 0.001)
    monkeypatch.setattr(retrying, "_RETRY_MAX", 0.002)
    work = Work(fails=20)  # without the limit, the last waits would take some minutes
    assert await soon(new_retry().until_stored(work, "the work")) == "stored"
    assert work.attempts == 21


async def test_the_intervals_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "_RETRY_FIRST", 0.001)
    monkeypatch.setattr(retrying, "_RETRY_MAX", 1000)
    work = Work(fails=1000)
    trying = asyncio.ensure_future(new_retry().until_stored(work, "the work"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await until(lambda: work.attempts == 9)
    assert loop.time() - began >= 0.255  # 1 + 2 + 4 + ... + 128 ms
    trying.cancel()
    await asyncio.wait([trying])


async def test_an_error_that_is_not_the_stores_is_raised_at_once() -> None:
    async def work() -> None:
        raise KeyError("page")

    with pytest.raises(KeyError):
        await soon(new_retry().until_stored(work, "the work"))


async def test_work_is_given_up_at_once_when_the_agent_stops() -> None:
    retry, work = new_retry(), Work(fails=2)
    trying = asyncio.ensure_future(retry.until_stored(work, "the work"))
    await until(lambda: work.attempts == 1)
    retry.end()
    with pytest.raises(StoreError):
        await soon(trying)
    assert work.attempts == 2, "it is tried for a last time"
    assert retry.over


async def test_a_trouble_ends_with_a_recovery_when_any_work_has_succeeded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retrying, "_RETRY_FIRST", 0.001)
    caplog.set_level(logging.WARNING)
    retry, recovered = new_retry(), list[str]()
    retry.on_recovered.append(lambda: recovered.append("recovered"))

    async def give_up() -> None:
        work = Work(fails=1_000_000)
        trying = asyncio.ensure_future(retry.until_stored(work, "work that its owner gives up"))
        await until(lambda: work.attempts)
        if not recovered:
            await soon(retry.until_stored(Work(fails=1), "work that succeeds"))
            assert recovered == [], "other work waits"
        trying.cancel()
        await asyncio.wait([trying])

    await give_up()
    assert recovered == ["recovered"]
    assert "works again" in caplog.records[-1].getMessage()
    await give_up()
    assert recovered == ["recovered"], "no work has succeeded since the second trouble began"
