"""What tests wait for that have servers of several names."""

from __future__ import annotations

import asyncio

from mqtt_agent import ToolClient
from support import becomes


async def serving(client: ToolClient, tool: str, *names: str) -> None:
    """Wait until exactly these servers list a tool, one name for each replica."""

    async def so() -> bool:
        found = [card.shared_name for card in await client.list_servers() if tool in card.tools]
        return sorted(found) == sorted(names)

    await becomes(so, 25)


async def waiting(client: ToolClient, tool: str, *names: str) -> None:
    """Wait until exactly these servers are on standby for a tool."""

    async def so() -> bool:
        found = [card.shared_name for card in await client.list_servers() if tool in (card.refused or ())]
        return sorted(found) == sorted(names)

    await becomes(so, 25)


async def callers(client: ToolClient, tool: str, count: int = 20) -> set[str]:
    results = await asyncio.gather(*(client.call(tool, {"n": n}, wait_online=True) for n in range(count)))
    assert [result["arguments"]["n"] for result in results] == list(range(count))
    return {result["server"] for result in results}
