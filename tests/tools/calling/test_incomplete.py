"""What a list says when the broker is away, or does not let the client see all cards. It is never an empty list."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import Agent, ToolClient
from mqtt_agent.agents import MemoryStore
from mqtt_agent.errors import ConnectionLost
from mqtt_agent.tools.calling import live_catalog
from mqtt_agent.wire import ServerCard
from support import soon, until


async def test_no_list_is_empty_while_the_broker_is_away_and_each_is_whole_after_its_return(
    make_mosquitto: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker: Mosquitto = make_mosquitto().start()
    place: dict[str, Any] = {"broker": broker.url, "namespace": namespace}
    async with ToolClient("caller", **place) as client, Agent("agent-a", store=MemoryStore(), **place) as agent:
        broker.kill()
        await until(lambda: not client.connection.connected and not agent.connection.connected)
        listing = [
            asyncio.ensure_future(each)
            for each in (client.list_tools(), client.list_servers(), client.list_resources(), agent.peers())
        ]
        with pytest.raises(ConnectionLost, match="did not come back in time"):
            await soon(client.list_prompts(timeout=0.1), 20)
        assert not any(each.done() for each in listing)
        await asyncio.to_thread(broker.start)
        for listed in await soon(asyncio.gather(*listing), 30):
            assert (list(listed), listed.incomplete) == ([], [])


async def test_servers_that_are_lost_in_turn_let_no_list_wait_for_ever(
    mosquitto: Mosquitto, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger may write cards of servers that come and go."""
    monkeypatch.setattr(live_catalog, "RETURN_WITHIN", 0.05)
    async with ToolClient("caller", broker=mosquitto.url, namespace=namespace) as client:
        catalog = client._catalog
        monkeypatch.setattr(catalog, "returns_until", lambda card: asyncio.get_running_loop().time() + 60)
        await soon(catalog.returned(lambda: [ServerCard(server="lost-again")]))
