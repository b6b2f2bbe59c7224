"""What MCP clients of 2025 are told, when some of them are slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from mcp.server.session import ServerSession
from mcp_mqtt_agent import news as module
from mcp_mqtt_agent.news import News
from support import soon, until


class Client:
    """A session that takes a message when the test lets it."""

    def __init__(self, *, reads: bool = True) -> None:
        self.told: list[str] = []
        self.waits = False
        self.reads = asyncio.Event()
        if reads:
            self.reads.set()

    async def _take(self, what: str) -> None:
        self.waits = True
        await self.reads.wait()
        self.told.append(what)

    async def send_tool_list_changed(self) -> None:
        await self._take("tools")

    async def send_resource_updated(self, uri: str) -> None:
        await self._take(uri)


async def test_a_client_that_does_not_read_holds_up_no_other_and_is_told_a_repeated_change_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_TOGETHER", 0.0)
    news, changes = News(), asyncio.Queue[None]()
    slow, quick = Client(reads=False), Client()
    for each in (slow, quick):
        news.add(cast("ServerSession", each))

    async def changed() -> AsyncIterator[object]:
        while True:
            yield await changes.get()

    async def refresh() -> Any:
        return None

    telling = asyncio.create_task(news.tell(refresh, changed()))
    for number in (1, 2, 3):
        changes.put_nowait(None)
        await until(lambda number=number: len(quick.told) == number)
    assert slow.waits
    assert slow.told == []
    slow.reads.set()
    await until(lambda: len(slow.told) == 2)  # the change that it was being told, and all later ones together
    telling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await soon(telling)
    assert news._untold == {}
