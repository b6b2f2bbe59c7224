"""Listings of many tools."""

from __future__ import annotations

import asyncio

from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.wire import ServerCard, ToolCard

CARDS = 2000


def catalog_of(cards: int) -> Catalog:
    catalog = Catalog()
    names = [f"tool-{number:05}" for number in range(cards)]
    for name in names:
        catalog.put_tool(ToolCard(tool=name, server="many"))
    catalog.put_server(ServerCard(server="many:a", name="many", tools=names))
    return catalog


async def test_the_event_loop_does_other_work_while_many_tools_are_listed() -> None:
    catalog = catalog_of(CARDS)
    turns = 0
    listing = asyncio.create_task(catalog.listing(None, True))
    while not listing.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(listing.result()) == CARDS
    assert turns >= CARDS / 100
    assert await catalog.listing(None, True) is listing.result()


async def test_a_card_that_changes_during_a_listing_is_in_the_next_listing() -> None:
    catalog = catalog_of(CARDS)
    listing = asyncio.create_task(catalog.listing(None, True))
    await asyncio.sleep(0)
    catalog.put_tool(ToolCard(tool="tool-00000", server="many", description="new"))
    catalog.remove_tool("tool-01999")
    assert len(await listing) == CARDS - 1
    again = await catalog.listing(None, True)
    assert (len(again), again[0].description) == (CARDS - 1, "new")
