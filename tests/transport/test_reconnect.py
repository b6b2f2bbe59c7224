"""How long a connection waits before it connects again."""

from __future__ import annotations

import pytest
from brokers import Broker
from mqtt_agent.transport import reconnect
from proxy import Proxy
from support import until

from .test_connection import connected


async def test_after_a_connection_that_lasted_the_first_wait_is_short_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect, "_STABLE_AFTER", 0)
    async with Proxy(broker.url) as proxy, connected(proxy.url) as connection:
        for number in range(1, 10):  # with waits that only grow, the last one would take 25 to 50 s
            proxy.drop()
            await until(lambda number=number: proxy.connections > number and connection.connected)
