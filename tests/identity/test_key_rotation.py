"""Keys are replaced while messages travel, and clocks may differ."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.errors import CallerNotAuthorized
from mqtt_agent.identity import Identity, PrivateKey, TrustedKeys
from support import soon


@pytest.mark.rule("SIG-3")
async def test_both_sides_replace_their_keys_and_no_call_is_lost(mosquitto: Mosquitto, namespace: str) -> None:
    old = {name: PrivateKey.new(name) for name in ("caller", "weather")}
    new = {name: PrivateKey.new(name) for name in old}
    both = TrustedKeys(key.public for keys in (old, new) for key in keys.values())
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace}

    def replica(number: str, key: PrivateKey, trusted: TrustedKeys = both) -> ToolServer:
        identity = Identity(key, trusted, verify="require")
        server = ToolServer("weather", **where, replica=number, identity=identity)

        async def add(n: int) -> int:
            await asyncio.sleep(0.01)  # simulates work
            return n + 1

        server.add_tool("add", add, idempotent=True)
        return server

    async def calling(key: PrivateKey, over: asyncio.Event) -> int:
        async with ToolClient("caller", **where, identity=Identity(key, both, verify="require")) as client:
            calls = 0
            while not over.is_set():
                assert await soon(client.call("add", {"n": calls}), 30) == calls + 1
                calls += 1
            return calls

    first, second, over = replica("1", old["weather"]), replica("2", new["weather"]), asyncio.Event()
    await soon(first.start())
    callers = [asyncio.ensure_future(calling(keys["caller"], over)) for keys in (old, new)]
    await soon(second.start())
    await soon(first.stop(), 30)  # the old key serves no more
    over.set()
    assert all(each > 0 for each in await soon(asyncio.gather(*callers), 30))
    await soon(second.stop())

    only_new = TrustedKeys(key.public for key in new.values())
    async with replica("3", new["weather"], only_new):
        async with ToolClient("caller", **where, identity=Identity(old["caller"], both)) as late:
            with pytest.raises(CallerNotAuthorized):
                await soon(late.call("add", {"n": 1}))


@pytest.mark.rule("SIG-4")
@pytest.mark.parametrize("ahead", [119, -119])
async def test_a_call_is_believed_when_the_clock_of_the_caller_is_two_minutes_off(
    ahead: int, mosquitto: Mosquitto, namespace: str
) -> None:
    keys = {name: PrivateKey.new(name) for name in ("caller", "weather")}
    trusted = TrustedKeys(key.public for key in keys.values())
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace}
    server = ToolServer("weather", **where, identity=Identity(keys["weather"], trusted, verify="require"))
    server.add_tool("forecast", lambda: "sun", idempotent=True)
    off = Identity(keys["caller"], trusted, verify="require", clock=lambda: time.time() + ahead)
    async with server, ToolClient("caller", **where, identity=off) as client:
        assert await soon(client.call("forecast")) == "sun"
