"""The end of a subscription, of a session and of a connection: nothing is lost, and no wait lasts for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import Broker, Embedded, Mosquitto
from mqtt_agent import Agent, MemoryStore
from mqtt_agent.errors import ConnectionLost
from mqtt_agent.transport import Connection, InboundMessage
from proxy import Proxy
from support import soon, until


@contextlib.asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Connection]:
    connection = Connection(url, **options)
    await soon(connection.start())
    try:
        yield connection
    finally:
        await soon(connection.stop(end_session=True))


class Handler:
    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def __call__(self, message: InboundMessage) -> None:
        self.heard.append(message.payload)


# Unsubscribing


async def test_who_subscribes_during_the_unsubscribe_of_another_stays_subscribed(
    own_broker: Broker, namespace: str
) -> None:
    topic, first, second = f"{namespace}/a", Handler(), Handler()
    async with Proxy(own_broker.url) as proxy, connected(proxy.url) as connection:
        await connection.subscribe(topic, first)
        proxy.hold()  # the UNSUBSCRIBE gets no answer
        leaving = asyncio.ensure_future(connection.unsubscribe(topic, first))
        await asyncio.sleep(0)
        coming = asyncio.ensure_future(connection.subscribe(topic, second))
        await asyncio.sleep(0)
        own_broker.restart(keep_state=False, kill=True)
        proxy.drop()
        proxy.release()
        await soon(leaving)
        with contextlib.suppress(ConnectionLost):
            await soon(coming)
        await until(lambda: connection.connected and connection.epoch > 1)
        await soon(connection.publish(topic, b"after"))
        await until(lambda: second.heard)
        assert first.heard == []
        await soon(connection.unsubscribe(topic, second))
        await soon(connection.publish(topic, b"nobody"))
        await soon(connection.subscribe(topic, first))
        assert second.heard == [b"after"]


async def test_a_subscribe_during_the_unsubscribe_of_another_returns_when_it_is_made(
    broker: Broker, namespace: str
) -> None:
    topic, first, second = f"{namespace}/a", Handler(), Handler()
    async with connected(broker.url) as connection, connected(broker.url) as other:
        await connection.subscribe(topic, first)
        leaving = asyncio.ensure_future(connection.unsubscribe(topic, first))
        await asyncio.sleep(0)
        await soon(connection.subscribe(topic, second))
        await soon(other.publish(topic, b"after"))
        await until(lambda: second.heard)
        await soon(leaving)
        assert first.heard == []


async def test_who_comes_and_goes_during_the_unsubscribe_of_another_leaves_no_subscription(
    mosquitto: Mosquitto, namespace: str
) -> None:
    topic, first, second = f"{namespace}/a", Handler(), Handler()
    async with connected(mosquitto.url) as connection, connected(mosquitto.url) as other:
        await connection.subscribe(topic, first)
        leaving = [asyncio.ensure_future(connection.unsubscribe(topic, first)) for _ in range(2)]
        await asyncio.sleep(0)
        coming = asyncio.ensure_future(connection.subscribe(topic, second))
        await asyncio.sleep(0)
        going = asyncio.ensure_future(connection.unsubscribe(topic, second))
        await soon(asyncio.gather(*leaving, coming, going))
        assert await soon(other.publish(topic, b"nobody")) == 0x10  # nobody is subscribed


async def test_a_subscribe_that_is_canceled_leaves_no_subscription(mosquitto: Mosquitto, namespace: str) -> None:
    topic, handler = f"{namespace}/a", Handler()
    async with connected(mosquitto.url) as connection, connected(mosquitto.url) as other:
        coming = asyncio.ensure_future(connection.subscribe(topic, handler))
        await asyncio.sleep(0)
        coming.cancel()
        await soon(connection.unsubscribe(topic, handler))
        assert await soon(other.publish(topic, b"nobody")) == 0x10


async def test_a_broker_that_sends_much_and_never_answers_a_subscribe_is_given_up(
    monkeypatch: pytest.MonkeyPatch, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mqtt_agent.transport.link._ANSWERED_WITHIN", 0.5)
    writers: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(1000)
        writer.write(bytes((0x20, 3, 0, 0, 0)))  # CONNACK
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(bytes((0xD0, 0)))  # PINGRESP
                await writer.drain()
                await asyncio.sleep(0.01)

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        connection = Connection(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await soon(connection.start())
        await soon(connection.subscribe(f"{namespace}/a", Handler()))  # the reconnect makes the subscription
        assert "stopped answering" in caplog.text
        await soon(connection.stop())
        for writer in writers:
            writer.close()


# A new session


@pytest.mark.parametrize("how", ["stop", "give up", "the broker is gone"])
async def test_a_wait_for_a_new_session_ends(how: str, monkeypatch: pytest.MonkeyPatch, namespace: str) -> None:
    monkeypatch.setattr("mqtt_agent.transport.reconnect._CLEAN_WITHIN", 1.0)
    with Embedded() as broker:
        async with Proxy(broker.url) as proxy:
            connection = Connection(proxy.url)
            await soon(connection.start())
            await proxy.cut()
            subscribing = asyncio.ensure_future(connection.subscribe(f"$share/group/{namespace}/a", Handler()))
            await asyncio.sleep(0)
            waiting = asyncio.ensure_future(connection._lifetime.reconnector.begin_clean())
            await asyncio.sleep(0)
            if how == "stop":
                await soon(connection.stop())
            elif how == "give up":
                connection.give_up(ConnectionLost("given up"))
            with pytest.raises(ConnectionLost):
                await soon(waiting)
            with contextlib.suppress(ConnectionLost):
                await soon(subscribing)
            await soon(connection.stop())


# Stopping


async def test_a_flood_of_messages_is_sent_before_the_connection_ends(broker: Broker, namespace: str) -> None:
    received = Handler()
    async with connected(broker.url) as receiver:
        await receiver.subscribe(f"{namespace}/a", received)
        sender = Connection(broker.url)
        await soon(sender.start())
        sent = [sender.publish_soon(f"{namespace}/a", b"%d" % n) for n in range(500)]
        await soon(sender.stop())
        assert all(future.result() == 0 for future in sent)
        await until(lambda: len(received.heard) == 500)
        assert received.heard == [b"%d" % n for n in range(500)]


async def test_what_could_not_be_sent_is_counted_in_the_log(
    mosquitto: Mosquitto, namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_agent.transport.lifetime._SENT_WITHIN", 0.2)
    async with Proxy(mosquitto.url) as proxy:
        sender = Connection(proxy.url, client_id="sender")
        await soon(sender.start())
        proxy.hold()
        sent = [sender.publish_soon(f"{namespace}/a", b"%d" % n) for n in range(500)]
        sent[7].cancel()
        with caplog.at_level(logging.WARNING, logger="mqtt_agent"):
            await soon(sender.stop())
        assert "the connection of sender to" in caplog.text
        assert "before the broker had confirmed 499 messages" in caplog.text
        for future in [*sent[:7], *sent[8:]]:
            assert isinstance(future.exception(), ConnectionLost)


async def test_a_stop_does_not_wait_for_a_connection_that_is_lost(mosquitto: Mosquitto, namespace: str) -> None:
    async with Proxy(mosquitto.url) as proxy:
        sender = Connection(proxy.url)
        await soon(sender.start())
        proxy.hold()
        sent = [sender.publish_soon(f"{namespace}/a", b"%d" % n) for n in range(50)]
        stopping = asyncio.ensure_future(sender.stop())
        await asyncio.sleep(0)
        await proxy.cut()
        await soon(stopping, 3)
        assert all(isinstance(future.exception(), ConnectionLost) for future in sent)


async def test_a_stop_without_messages_says_nothing(
    broker: Broker, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="mqtt_agent"):
        async with connected(broker.url) as connection:
            await connection.publish(f"{namespace}/a", b"")
    assert caplog.text == ""


async def test_an_offline_status_that_is_not_confirmed_is_a_warning_with_its_reason(
    mosquitto: Mosquitto, namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_agent.agents.agent._OFFLINE_WITHIN", 0.2)
    async with Proxy(mosquitto.url) as proxy:
        agent = Agent("silent", broker=proxy.url, namespace=namespace, store=MemoryStore())
        await soon(agent.start())
        proxy.hold()
        stopping = asyncio.ensure_future(agent.stop())
        await until(lambda: "could not publish its offline status: no confirmation within 0.2 s" in caplog.text)
        await proxy.cut()
        await soon(stopping)
