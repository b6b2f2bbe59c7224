"""An endpoint whose name another object uses, in this process or in another one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from brokers import Embedded
from mqtt_agent import Agent, MemoryStore
from mqtt_agent.aio.waiting import within
from mqtt_agent.endpoints.listing import all_arrived
from mqtt_agent.endpoints.namesakes import begins_here, taken_over
from mqtt_agent.errors import SessionTakenOver


class Owner:
    pass


def test_a_second_object_of_this_process_is_told_from_another_process() -> None:
    owner = Owner()
    begins_here(owner, "planner", "2026-01-01T00:00:00.000Z")
    here = taken_over("planner", "agent 'planner'", "2026-01-01T00:00:00.000Z", "advice")
    assert "this process has started agent 'planner' a second time" in str(here)
    assert "stop()" in str(here)
    other = taken_over("planner", "agent 'planner'", "2026-01-01T00:00:01.000Z", "advice")
    assert str(other) == "another process runs as agent 'planner' since 2026-01-01T00:00:01.000Z: advice"


async def test_a_list_ends_at_once_when_the_connection_fails_for_good() -> None:
    failure = SessionTakenOver("taken")
    connection: Any = SimpleNamespace(on_failed=[], failure=None, connected=False, epoch=1, url="mqtt://x")

    async def never() -> bool:
        connection.failure = failure
        asyncio.get_running_loop().call_soon(lambda: [listener(failure) for listener in list(connection.on_failed)])
        await asyncio.Event().wait()
        return True

    with pytest.raises(SessionTakenOver, match="taken"):
        await within(all_arrived(never, connection, None), 10)
    assert connection.on_failed == []
    with pytest.raises(SessionTakenOver, match="taken"):  # and when it had failed before
        await within(all_arrived(asyncio.Event().wait, connection, None), 10)


@pytest.mark.long
async def test_a_cell_that_starts_an_agent_twice_is_told_what_to_do(embedded: Embedded, namespace: str) -> None:
    where: dict[str, Any] = {"broker": embedded.url, "namespace": namespace}
    first = Agent("planner", store=MemoryStore(), **where)
    await first.start()
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    first.connection.on_failed.append(failed.set_result)
    async with Agent("planner", store=MemoryStore(), **where) as second:
        assert "a second time" in str(await within(failed, 30))
        with pytest.raises(SessionTakenOver, match="a second time"):
            await within(first.peers(), 10)
        await first.stop()
        assert await second.peers() == []
