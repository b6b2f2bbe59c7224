"""Which messages are acknowledged, in which order, and which ones early: the PUBACK packets on the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent.transport import Connection, InboundMessage
from packets import Packet, PacketProxy
from support import soon

from .test_connection import Inbox, connected

MAX_UNACKNOWLEDGED = 10


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[PacketProxy]:
    async with PacketProxy(broker.url) as proxy:
        yield proxy


@pytest.fixture
async def receiver(proxy: PacketProxy) -> AsyncIterator[Connection]:
    async with connected(proxy.url, max_unacknowledged=MAX_UNACKNOWLEDGED) as connection:
        yield connection


async def received(
    receiver: Connection, broker: Broker, proxy: PacketProxy, topic: str, count: int, start: Callable[[bytes], Any]
) -> tuple[list[InboundMessage], list[Packet]]:
    """Send messages, and let the work on some of them begin. Returns the messages and their packets."""
    inbox = Inbox()

    def handle(message: InboundMessage) -> None:
        inbox(message)
        if start(message.payload):
            message.work_started()

    await receiver.subscribe(topic, handle, manual=True)
    async with connected(broker.url) as sender:
        for number in range(count):
            await soon(sender.publish(topic, b"%d" % number))
    await inbox.have(count)
    return inbox.messages, proxy.published(topic, up=False)


async def acknowledged(receiver: Connection, proxy: PacketProxy, packets: list[Packet]) -> list[int]:
    """The numbers of the messages whose PUBACK has passed, in the order of the PUBACKs."""
    await soon(receiver.publish("nobody", b""))  # when this is confirmed, all earlier packets have passed
    passed = [(proxy.passed.index(puback), n) for n, p in enumerate(packets) if (puback := proxy.puback(p))]
    return [number for _, number in sorted(passed)]


@pytest.mark.rule("SESSION-5")
async def test_a_finished_message_waits_for_those_that_arrived_before_it(
    receiver: Connection, broker: Broker, proxy: PacketProxy, namespace: str
) -> None:
    messages, packets = await received(receiver, broker, proxy, namespace, 4, start=lambda payload: False)
    messages[3].acknowledge()
    messages[1].acknowledge()
    assert await acknowledged(receiver, proxy, packets) == []
    messages[0].acknowledge()
    assert await acknowledged(receiver, proxy, packets) == [0, 1]
    messages[2].acknowledge()
    assert await acknowledged(receiver, proxy, packets) == [0, 1, 2, 3]


@pytest.mark.rule("CALL-14")
async def test_only_work_that_has_begun_is_acknowledged_early_up_to_the_first_that_has_not(
    receiver: Connection, broker: Broker, proxy: PacketProxy, namespace: str
) -> None:
    count = MAX_UNACKNOWLEDGED + 2
    messages, packets = await received(receiver, broker, proxy, namespace, count, start=lambda payload: payload != b"4")
    await proxy.acknowledged(packets[3])
    assert await acknowledged(receiver, proxy, packets) == [0, 1, 2, 3]
    for message in messages:
        message.acknowledge()
    assert await acknowledged(receiver, proxy, packets) == list(range(count))


@pytest.mark.rule("CALL-14")
async def test_as_much_work_as_allowed_stays_unacknowledged(
    receiver: Connection, broker: Broker, proxy: PacketProxy, namespace: str
) -> None:
    _, packets = await received(receiver, broker, proxy, namespace, MAX_UNACKNOWLEDGED, start=lambda payload: True)
    await asyncio.sleep(0.1)  # no event announces that nothing is acknowledged early, after 25 ms
    assert await acknowledged(receiver, proxy, packets) == []
