"""Whole systems with ``bound="require"`` and exactly the generated rights: everything works, and nothing is denied."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from mqtt_agent import errors
from support import soon

from .attempts import ROSTER
from .conftest import Cast
from .endpoints import client, server


@asynccontextmanager
async def clean(cast: Cast, caplog: pytest.LogCaptureFixture) -> AsyncIterator[AsyncExitStack]:
    """A system on a broker where no raw client is connected. Afterwards, nobody was denied anything."""
    cast.forget(*(login.user for login in ROSTER.logins()), *(login.server_id or "" for login in ROSTER.logins()))
    before = len(cast.broker.log)
    async with AsyncExitStack() as stack:
        yield stack
    denials = [line for line in cast.broker.log[before:].splitlines() if "denied" in line.lower()]
    assert denials == []
    told = [each for each in caplog.records if each.name.startswith("mqtt_agent") and each.levelno >= logging.WARNING]
    on_standby = "" if cast.broker.shares else "has no shared subscriptions: one replica"
    texts = [each.getMessage() for each in told]
    assert [text for text in texts if not on_standby or on_standby not in text] == []


async def test_tools_work_with_the_generated_rights(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    async with clean(cast, caplog) as stack:
        for replica in ("1", "2"):
            await stack.enter_async_context(server(cast, replica))
        web = await stack.enter_async_context(client(cast))
        assert [card.tool for card in await soon(web.list_tools())] == ["forecast"]
        seen: list[Any] = []
        results = [
            await soon(web.call("forecast", {"city": f"city {n}"}, on_partial=seen.append, timeout=20))
            for n in range(6)
        ]
        assert [each["city"] for each in results] == seen == [f"city {n}" for n in range(6)]
        assert all(each["client"] == "web" and each["bound"] for each in results)
        assert len({each["replica"] for each in results}) == (2 if cast.broker.shares else 1)
        handle = await soon(web.submit("forecast", {"city": "nowhere"}))
        assert await soon(anext(handle.partials())) == "nowhere"
        await handle.cancel()
        with pytest.raises(errors.CallCanceled):
            await soon(handle.result())


async def test_a_rolling_restart_works_with_the_generated_rights(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    async with clean(cast, caplog) as stack:
        first, second = server(cast, "1"), server(cast, "2")
        await first.start()
        web = await stack.enter_async_context(client(cast))
        assert (await soon(web.call("forecast", {"city": "Oslo"}, timeout=20)))["replica"] == "1"
        await second.start()
        await soon(first.stop())
        assert (await soon(web.call("forecast", {"city": "Oslo"}, timeout=20)))["replica"] == "2"
        again = await stack.enter_async_context(server(cast, "1"))
        await soon(second.stop())
        assert (await soon(web.call("forecast", {"city": "Oslo"}, timeout=20)))["replica"] == again.replica


def test_the_log_of_mosquitto_shows_a_denial(cast: Cast) -> None:
    if not cast.broker.shares:
        pytest.skip("ejabberd logs no denials; its endpoints get the reason codes")
    before = len(cast.broker.log)
    assert cast.attacker("agent-b").publish("ns/tasks/writer/inbox/agent-a", b"forged") == 0x87
    assert "denied" in cast.broker.log[before:].lower()
