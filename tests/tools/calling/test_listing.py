"""Listings of many tools."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.wire import ServerCard, ToolCard

from ...performance.counting import counted_calls

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


def calls_to_change_a_server(servers: int) -> int:
    catalog = Catalog()
    for number in range(servers):
        catalog.put_tool(ToolCard(tool=f"tool-{number}", server=f"server-{number}"))
        catalog.put_server(ServerCard(server=f"server-{number}", name=f"server-{number}", tools=[f"tool-{number}"]))
    with counted_calls() as calls:
        catalog.remove_server("server-0")
        catalog.put_server(ServerCard(server="server-0", name="server-0", tools=["tool-0"]))
        catalog.remove_tool("tool-0")
    return calls.count


def test_a_change_of_one_server_costs_the_same_among_few_servers_and_among_many() -> None:
    assert calls_to_change_a_server(100) == calls_to_change_a_server(5)


@pytest.mark.parametrize("card", [{"refused": ["wanted"]}, {"claims": ["wanted"]}, {"standby": True}])
def test_an_online_server_that_waits_for_a_tool_is_on_standby_for_it(card: dict[str, Any]) -> None:
    catalog = Catalog()
    catalog.put_tool(ToolCard(tool="wanted", server="owner"))
    assert not catalog.has_standby("wanted")
    waiting = ServerCard(server="owner:b", name="owner", **card)
    catalog.put_server(waiting)
    assert catalog.has_standby("wanted")
    catalog.put_server(waiting.model_copy(update={"tools": ["wanted"]}))
    assert not catalog.has_standby("wanted")
    catalog.put_server(waiting)
    assert catalog.has_standby("wanted")
    catalog.put_server(waiting.model_copy(update={"status": "offline"}))
    assert not catalog.has_standby("wanted")
    catalog.put_server(waiting)
    catalog.remove_server("owner:b")
    assert not catalog.has_standby("wanted")
