"""The cost of a listing, counted and not timed: for many tools, and when nothing has changed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from brokers import Mosquitto
from langchain_mqtt_agent import MQTTToolkit
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.adapting.finding import Selection, find_tools
from support import becomes, soon

from tests.performance.counting import counted_calls

RUN_ON = [Mosquitto]
FEW, MANY = 50, 200
FIND_CALLS_PER_TOOL = 10
"""Python calls; a comparison of two cards alone takes more."""
TAKE_CALLS_PER_TOOL = 12


@pytest.fixture
async def server(broker: Mosquitto, namespace: str) -> Any:
    made = ToolServer("many", broker=broker.url, namespace=namespace)

    async def handle(city: str, days: int = 3) -> str:
        """Look it up."""
        return city

    for number in range(MANY):
        made.add_tool(f"tool_{number}", handle)
    async with made:
        yield made


async def test_the_cost_of_finding_grows_with_the_number_of_tools_and_not_with_its_square(
    broker: Mosquitto, namespace: str, server: ToolServer
) -> None:
    async with ToolClient(broker=broker.url, namespace=namespace) as client:
        await becomes(lambda: _all_there(client))
        for selection in (Selection(), Selection(tools=["tool_*", "*_1"], servers=["many"])):
            with counted_calls() as calls:
                found = await find_tools(client, selection)
            assert len(found.tools) == MANY
            assert calls.count / MANY <= FIND_CALLS_PER_TOOL * (3 if selection.tools else 1)


async def _all_there(client: ToolClient) -> bool:
    return len(await client.list_tools()) == MANY


async def test_a_listing_makes_only_the_tools_whose_cards_have_changed(
    broker: Mosquitto, namespace: str, server: ToolServer
) -> None:
    async with MQTTToolkit(broker=broker.url, namespace=namespace) as toolkit:
        before: list[Any] = []

        async def all_there() -> bool:
            before[:] = await toolkit.aget_tools()
            return len(before) == MANY

        await becomes(all_there)
        found = await toolkit._afind()
        with counted_calls() as calls:
            assert all(now is then for now, then in zip(toolkit._take(found), before, strict=True))
        assert calls.count / MANY <= TAKE_CALLS_PER_TOOL
        server.add_tool("one_more", lambda: "more")
        after: list[Any] = []

        async def one_more() -> bool:
            after[:] = await toolkit.aget_tools()
            return len(after) == MANY + 1

        await becomes(one_more)
        assert {id(tool) for tool in before} < {id(tool) for tool in after}
        found = await toolkit._afind()
        assert len(found.tools) == MANY + 1
        with counted_calls() as calls:
            toolkit._take(found)
        assert calls.count / MANY <= 2 * TAKE_CALLS_PER_TOOL


async def test_the_tools_are_made_in_another_thread(
    broker: Mosquitto, namespace: str, server: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in: set[str] = set()
    make = MQTTToolkit._make

    def watched(self: Any, name: str, card: Any) -> Any:
        made_in.add(threading.current_thread().name)
        return make(self, name, card)

    monkeypatch.setattr(MQTTToolkit, "_make", watched)
    async with MQTTToolkit(broker=broker.url, namespace=namespace) as toolkit:
        assert await soon(toolkit.aget_tools())
    assert made_in
    assert threading.current_thread().name not in made_in
