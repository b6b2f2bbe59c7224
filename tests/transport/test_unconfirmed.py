"""Messages that the broker had not confirmed when the connection was lost: which are sent again, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from brokers import ALL_BROKERS, Broker, Mosquitto
from mqtt_agent.errors import ConnectionLost
from packets import PacketProxy
from support import soon, until

from .test_connection import Inbox, connected

RUN_ON = ALL_BROKERS


@pytest.mark.rule("SESSION-4")
async def test_messages_that_were_lost_with_the_connection_are_sent_again_in_their_order(
    broker: Broker, namespace: str
) -> None:
    inbox = Inbox()
    async with connected(broker.url) as receiver, PacketProxy(broker.url) as proxy, connected(proxy.url) as sender:
        await receiver.subscribe(namespace, inbox)
        proxy.hold()
        # Some of them are sent and lost on the way, and the others wait until the broker takes more.
        sending = [sender.publish_soon(namespace, b"%d" % n) for n in range(100)]
        proxy.drop()
        await until(lambda: not sender.connected)
        sending += [sender.publish_soon(namespace, b"%d" % n) for n in range(100, 110)]
        proxy.release()
        await soon(asyncio.gather(*sending), 20)
        await inbox.have(110)
    assert inbox.payloads == [b"%d" % n for n in range(110)]


@pytest.mark.rule("SESSION-4")
async def test_messages_whose_confirmations_were_lost_arrive_twice_and_in_their_order(
    broker: Broker, namespace: str
) -> None:
    inbox = Inbox()
    async with connected(broker.url) as receiver, PacketProxy(broker.url) as proxy, connected(proxy.url) as sender:
        await receiver.subscribe(namespace, inbox)
        proxy.hold(up=False)
        sending = [sender.publish_soon(namespace, b"%d" % n) for n in range(10)]
        await inbox.have(10)
        proxy.drop()
        proxy.release()
        await soon(asyncio.gather(*sending), 20)
        await inbox.have(20)
    assert inbox.payloads == [b"%d" % n for n in range(10)] * 2


async def test_a_subscription_that_was_lost_with_the_connection_is_made_by_the_reconnect(
    broker: Broker, namespace: str
) -> None:
    inbox = Inbox()
    async with connected(broker.url) as sender, PacketProxy(broker.url) as proxy, connected(proxy.url) as receiver:
        proxy.hold()
        subscribing = asyncio.ensure_future(receiver.subscribe(namespace, inbox))
        await asyncio.sleep(0)
        proxy.drop()
        await soon(subscribing)  # like a subscription that is asked for while the connection is broken
        proxy.release()
        await until(lambda: receiver.connected)
        await soon(sender.publish(namespace, b"after"))
        await inbox.have(1)


async def test_a_message_that_must_not_arrive_twice_is_not_sent_again(broker: Broker, namespace: str) -> None:
    inbox = Inbox()
    async with connected(broker.url) as receiver, PacketProxy(broker.url) as proxy, connected(proxy.url) as sender:
        await receiver.subscribe(namespace, inbox)
        proxy.hold(up=False)
        once = sender.publish_soon(namespace, b"once", repeatable=False)
        await inbox.have(1)
        proxy.drop()
        proxy.release()
        with pytest.raises(ConnectionLost, match="may have arrived"):
            await soon(once)
        await soon(sender.publish(namespace, b"after"))
        await inbox.have(2)
    assert inbox.payloads == [b"once", b"after"]


async def test_a_message_that_is_given_up_while_it_is_unconfirmed_is_not_sent_again(
    broker: Broker, namespace: str
) -> None:
    inbox = Inbox()
    async with connected(broker.url) as receiver, PacketProxy(broker.url) as proxy, connected(proxy.url) as sender:
        await receiver.subscribe(namespace, inbox)
        proxy.hold()
        given_up = sender.publish_soon(namespace, b"given up")
        wanted = sender.publish_soon(namespace, b"wanted")
        given_up.cancel()
        proxy.drop()
        proxy.release()
        await soon(wanted)
        await inbox.have(1)
    assert inbox.payloads == [b"wanted"]


async def test_no_more_messages_are_unconfirmed_than_the_broker_takes(
    make_mosquitto: Callable[..., Mosquitto], namespace: str
) -> None:
    broker = make_mosquitto(["max_inflight_messages 5"])
    async with PacketProxy(broker.url) as proxy, connected(proxy.url) as sender:
        proxy.hold(up=False)
        sending = [sender.publish_soon(namespace, b"%d" % n) for n in range(20)]
        await proxy.publish(namespace, up=True, count=5)
        await soon(sender.publish(namespace, b"at QoS 0", qos=0))
        await until(lambda: proxy.published(namespace, up=True)[-1].payload == b"at QoS 0")
        assert len(proxy.published(namespace, up=True)) == 6, "five messages, and the message at QoS 0"
        proxy.release()
        await soon(asyncio.gather(*sending))
        assert proxy.connections == 1
