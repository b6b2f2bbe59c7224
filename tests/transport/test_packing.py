"""A message that cannot be sent fails its own sender. The connection, and all other messages, do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from brokers import Broker, Mosquitto
from mqtt_agent.errors import MQTTAgentError, PayloadTooLarge, TransportError, WireError
from mqtt_agent.transport import Connection, Password, PublishProperties, Token, Will
from proxy import Proxy
from support import soon, until

LONG = "x" * 70_000


@contextlib.asynccontextmanager
async def behind_proxy(url: str, **options: Any) -> AsyncIterator[tuple[Connection, Proxy]]:
    async with Proxy(url) as proxy:
        connection = Connection(proxy.url, **options)
        await soon(connection.start())
        try:
            yield connection, proxy
        finally:
            await soon(connection.stop(end_session=True))


async def works_after_a_break(connection: Connection, proxy: Proxy, topic: str) -> None:
    """Cut the network, mend it, and publish: nothing that was refused earlier may stand in the way."""
    epoch = connection.epoch
    await proxy.cut()
    await until(lambda: not connection.connected)
    await proxy.mend()
    await soon(connection.publish(topic, b"still here"))
    assert connection.epoch > epoch


UNSENDABLE: dict[str, tuple[str, PublishProperties]] = {
    "a wildcard": ("a/+", PublishProperties()),
    "an empty topic": ("", PublishProperties()),
    "a topic with NUL": ("a/\x00", PublishProperties()),
    "a topic with a control character": ("a/\x07", PublishProperties()),
    "a topic with a lone surrogate": ("a/\ud800", PublishProperties()),
    "a topic with a non-character": ("a/\uffff", PublishProperties()),
    "a topic that is too long": (LONG, PublishProperties()),
    "a topic with too many levels": ("/".join("a" * 300), PublishProperties()),
    "a Response Topic with a wildcard": ("a", PublishProperties(response_topic="b/#")),
    "a Response Topic with NUL": ("a", PublishProperties(response_topic="b/\x00")),
    "long Correlation Data": ("a", PublishProperties(correlation_data=LONG.encode())),
    "a long user property": ("a", PublishProperties(user_properties=(("a", LONG),))),
    "a user property with NUL": ("a", PublishProperties(user_properties=(("a", "\x00"),))),
    "a user property with a lone surrogate": ("a", PublishProperties(user_properties=(("\udfff", "a"),))),
    "a long Content Type": ("a", PublishProperties(content_type=LONG)),
    "an expiry beyond 32 bits": ("a", PublishProperties(message_expiry=2**32)),
    "an expiry below zero": ("a", PublishProperties(message_expiry=-1)),
}


@pytest.mark.rule("MQTT-4")
@pytest.mark.parametrize("what", UNSENDABLE)
async def test_a_message_that_cannot_be_packed_fails_its_sender_and_no_connection(
    what: str, broker: Broker, namespace: str
) -> None:
    topic, properties = UNSENDABLE[what]
    async with behind_proxy(broker.url) as (connection, proxy):
        for publish in (
            lambda: connection.publish(topic, b"x", properties=properties),
            lambda: connection.publish(topic, b"x", qos=0, properties=properties),
        ):
            with pytest.raises(WireError):
                await soon(publish())
        await works_after_a_break(connection, proxy, namespace)


@pytest.mark.parametrize("what", UNSENDABLE)
async def test_a_message_that_cannot_be_packed_fails_at_once_while_the_network_is_away(
    what: str, broker: Broker, namespace: str
) -> None:
    topic, properties = UNSENDABLE[what]
    async with behind_proxy(broker.url) as (connection, proxy):
        await proxy.cut()
        await until(lambda: not connection.connected)
        with pytest.raises(WireError):
            connection.publish_soon(topic, b"x", properties=properties)
        await proxy.mend()
        await soon(connection.publish(namespace, b"x"))


@pytest.mark.parametrize(
    "topic_filter",
    [
        "",
        "a/#/b",
        "a+",
        "a/\x00",
        "a/\x07",
        "a/\ud800",
        "a/\uffff",
        LONG,
        "/".join("a" * 300),
        "$share/a+/b",
        "$share/a",
    ],
)
async def test_a_topic_filter_that_cannot_be_packed_is_not_registered(
    topic_filter: str, broker: Broker, namespace: str
) -> None:
    async with behind_proxy(broker.url) as (connection, proxy):
        with pytest.raises(WireError):
            await soon(connection.subscribe(topic_filter, lambda _: None))
        await works_after_a_break(connection, proxy, namespace)


async def test_a_topic_filter_is_checked_before_the_connection_is_started(broker: Broker, namespace: str) -> None:
    connection = Connection(broker.url)
    with pytest.raises(WireError, match="topic filter"):
        await connection.subscribe("a/#/b", lambda _: None)
    await soon(connection.start())
    await soon(connection.publish(namespace, b"x"))
    await connection.stop()


async def test_a_message_that_waited_and_is_larger_than_the_broker_takes_fails_alone(
    make_mosquitto: Callable[..., Mosquitto], namespace: str
) -> None:
    roomy, strict = make_mosquitto(), make_mosquitto(["max_packet_size 2000"])
    async with behind_proxy(roomy.url) as (connection, proxy):
        await proxy.cut()
        await until(lambda: not connection.connected)
        waiting = [connection.publish_soon(namespace, b"x" * size) for size in (10, 5000, 20)]
        proxy.move(strict.url)
        await proxy.mend()
        small, large, last = await soon(asyncio.gather(*waiting, return_exceptions=True))
        assert isinstance(large, PayloadTooLarge)
        assert "2,000" in str(large)
        assert not isinstance(small, Exception)
        assert not isinstance(last, Exception)


@pytest.mark.parametrize(
    "options",
    [
        {"client_id": LONG},
        {"client_id": "a\x00"},
        {"client_id": "a\ud800"},
        {"keep_alive": 70_000},
        {"keep_alive": -1},
        {"session_expiry": -1},
        {"session_expiry": math.nan},
        {"will_delay": -1},
        {"receive_maximum": 0},
        {"receive_maximum": 70_000},
        {"max_packet_size": 0},
        {"credentials": Password(LONG, "secret")},
        {"credentials": Password("me", "secret" * 20_000)},
        {"credentials": Password("m\x00e", "secret")},
    ],
)
def test_settings_that_no_connect_packet_can_hold_are_refused_where_they_are_given(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|at most 65,535|the character") as caught:
        Connection("mqtt://localhost", **options)
    assert "secret" not in str(caught.value)


async def test_a_token_that_no_connect_packet_can_hold_is_one_clear_error(broker: Broker) -> None:
    connection = Connection(broker.url, credentials=Token(lambda: "secret" * 20_000))
    with pytest.raises(WireError, match="password or token") as caught:
        await soon(connection.start())
    assert "secret" not in str(caught.value)


async def test_a_will_that_no_connect_packet_can_hold_is_one_clear_error(broker: Broker) -> None:
    connection = Connection(broker.url)
    connection.claim_will(Will("a", lambda: b"x" * 70_000))
    with pytest.raises(WireError, match=r"Last Will.*65,535"):
        await soon(connection.start())


async def test_a_will_with_an_impossible_topic_is_refused_at_once() -> None:
    with pytest.raises(WireError):
        Connection("mqtt://localhost").claim_will(Will("a/+", lambda: b""))


@pytest.mark.rule("MQTT-5")
@pytest.mark.parametrize("seconds", [2**32, 5_000_000_000, math.inf])
async def test_a_time_beyond_32_bits_is_sent_as_no_limit(seconds: float, broker: Broker, namespace: str) -> None:
    connection = Connection(broker.url, session_expiry=seconds)
    assert connection.session_expiry == 2**32 - 1
    await soon(connection.start())
    await soon(connection.publish(namespace, b"x"))
    await connection.stop(end_session=True)


# Messages that were given up


async def test_a_message_that_was_given_up_frees_its_place_in_the_queue(broker: Broker, namespace: str) -> None:
    async with behind_proxy(broker.url, max_queued=3) as (connection, proxy):
        await proxy.cut()
        await until(lambda: not connection.connected)
        for _ in range(20):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(connection.publish(namespace, b"x"), 0.001)
        wanted = [connection.publish_soon(namespace, b"wanted") for _ in range(3)]
        await proxy.mend()
        await soon(asyncio.gather(*wanted))


async def test_a_message_that_expired_in_the_queue_fails_and_frees_its_place(broker: Broker, namespace: str) -> None:
    brief = PublishProperties(message_expiry=1)
    async with behind_proxy(broker.url, max_queued=3) as (connection, proxy):
        await proxy.cut()
        await until(lambda: not connection.connected)
        expired = [connection.publish_soon(namespace, b"x", properties=brief) for _ in range(3)]
        for each in expired:
            with pytest.raises(TransportError, match="expired"):
                await soon(each)
        wanted = [connection.publish_soon(namespace, b"wanted") for _ in range(3)]
        await proxy.mend()
        await soon(asyncio.gather(*wanted))


@pytest.mark.rule("MQTT-5")
async def test_the_time_in_the_queue_counts_for_the_expiry(mosquitto: Mosquitto, namespace: str) -> None:
    heard: list[int | None] = []
    receiver = Connection(mosquitto.url)
    await soon(receiver.start())
    await receiver.subscribe(namespace, lambda message: heard.append(message.message_expiry))
    async with behind_proxy(mosquitto.url) as (connection, proxy):
        await proxy.cut()
        await until(lambda: not connection.connected)
        sending = connection.publish_soon(namespace, b"x", properties=PublishProperties(message_expiry=1000))
        brief = connection.publish_soon(namespace, b"x", properties=PublishProperties(message_expiry=1))
        with pytest.raises(TransportError):
            await soon(brief)
        await proxy.mend()
        await soon(sending)
    await until(lambda: heard)
    await receiver.stop(end_session=True)
    assert heard[0] is not None
    assert heard[0] < 1000


async def test_a_message_that_was_sent_and_given_up_keeps_its_packet_id_until_it_is_confirmed(
    mosquitto: Mosquitto, namespace: str
) -> None:
    async with behind_proxy(mosquitto.url, max_queued=1) as (connection, proxy):
        proxy.hold()
        for _ in range(20):  # Mosquitto's Receive Maximum
            connection.publish_soon(namespace, b"x").cancel()
        waiting = connection.publish_soon(namespace, b"y")  # waits: the window is full of unconfirmed messages
        with pytest.raises(MQTTAgentError, match="wait"):
            connection.publish_soon(namespace, b"z")
        proxy.release()
        await soon(waiting)


@pytest.mark.parametrize("size", [0, 10, 199_800, 199_900, *range(199_940, 200_001), 70_000_000])
@pytest.mark.parametrize(
    "properties",
    [
        PublishProperties(),
        PublishProperties(correlation_data=b"1" * 32, response_topic="a/results"),
        PublishProperties(user_properties=(("a", "b"),)),
        PublishProperties(message_expiry=5),
        PublishProperties(content_type="x" * 60),
        PublishProperties(correlation_data=b"1" * 70_000),
        PublishProperties(content_type="\x00"),
    ],
    ids=["none", "those of a result", "user property", "expiry", "content type", "too long", "forbidden"],
)
async def test_the_check_of_a_message_says_what_its_publication_would_say(
    size: int, properties: PublishProperties
) -> None:
    outbox = Connection("mqtt://localhost", max_packet_size=200_000)._outbox
    said: list[str] = []
    for act in (partial(outbox.pack, "a/b", bytes(size), 1, False), partial(outbox.check, "a/b", bytes(size))):
        try:
            act(properties, 20)
            said.append("")
        except MQTTAgentError as error:
            said.append(f"{type(error).__name__}: {error}")
    assert said[0] == said[1]
