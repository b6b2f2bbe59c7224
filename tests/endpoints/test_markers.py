"""A marker that has returned proves that everything that the broker had queued before it has arrived."""

from __future__ import annotations

import itertools

from brokers import Broker
from mqtt_agent.endpoints.markers import Marker
from mqtt_agent.transport import InboundMessage
from support import soon

from ..transport.test_connection import Inbox, connected


async def test_when_the_marker_is_back_everything_before_it_has_arrived(broker: Broker, namespace: str) -> None:
    numbers, inbox = itertools.count(1), Inbox()
    async with connected(broker.url) as connection, connected(broker.url) as sender:
        marker = Marker(connection, f"{namespace}/marker", lambda: b"%d" % next(numbers))

        def on_marker(message: InboundMessage) -> None:
            assert marker.recognize(message)

        await connection.subscribe(marker.topic, on_marker)
        await connection.subscribe(f"{namespace}/a", inbox)
        for count in range(1, 6):
            await soon(sender.publish(f"{namespace}/a", b"x"))
            assert await soon(marker.round_trip(5))
            assert len(inbox.messages) == count


async def test_a_marker_that_does_not_return_in_time_proves_nothing(broker: Broker, namespace: str) -> None:
    async with connected(broker.url) as connection:
        marker = Marker(connection, f"{namespace}/marker", lambda: b"1")  # nobody is subscribed to it
        assert not await soon(marker.round_trip(0.1))
