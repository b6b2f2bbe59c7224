"""Each reason code of MQTT 5 has its own meaning. A packet that a broker may take later is sent again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from mqtt_agent import Agent, Connection, MemoryStore, ToolClient, ToolServer
from mqtt_agent.errors import (
    BrokerNotSupported,
    ConnectionLost,
    ConnectionRefused,
    PublishRefused,
    SubscriptionRefused,
    TopicNotAuthorized,
)
from mqtt_agent.transport.packets import read_connack, read_disconnect
from scripted import ScriptedBroker
from support import becomes, soon, until


@contextlib.asynccontextmanager
async def connected(broker: ScriptedBroker, **options: Any) -> AsyncIterator[Connection]:
    connection = Connection(broker.url, **options)
    await soon(connection.start())
    try:
        yield connection
    finally:
        await soon(connection.stop())


def answers(codes: Iterable[int]) -> Any:
    """Refuses with these reason codes, one after the other; then accepts."""
    left = iter(codes)
    return lambda topic: next(left, None)


@pytest.mark.parametrize("code", [0x91, 0x97])
async def test_a_subscription_that_the_broker_takes_at_the_second_attempt_is_made(code: int) -> None:
    async with ScriptedBroker(suback=answers([code, code])) as broker, connected(broker) as connection:
        await soon(connection.subscribe("a/b", print))
        assert broker.subscribed == ["a/b"] * 3
        assert "a/b" in broker.session(connection.client_id).filters


@pytest.mark.parametrize("code", [0x91, 0x97])
async def test_a_message_that_the_broker_takes_at_the_second_attempt_is_published(code: int) -> None:
    async with ScriptedBroker(puback=answers([code, code])) as broker, connected(broker) as connection:
        assert await soon(connection.publish("a/b", b"x")) == 0x10
        assert [message.payload for message in broker.published] == [b"x"]


async def test_a_message_that_must_not_arrive_twice_waits_for_the_quota_too() -> None:
    async with ScriptedBroker(puback=answers([0x97])) as broker, connected(broker) as connection:
        assert await soon(connection.publish_soon("a/b", b"x", repeatable=False)) == 0x10


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (0x80, SubscriptionRefused, r"unspecified error \(0x80\)"),
        (0x83, SubscriptionRefused, r"implementation specific error \(0x83\)"),
        (0x87, TopicNotAuthorized, "does not let"),
        (0x8F, SubscriptionRefused, r"topic filter invalid \(0x8f\)"),
        (0x91, SubscriptionRefused, r"packet identifier in use \(0x91\)"),
        (0x97, SubscriptionRefused, r"quota exceeded \(0x97\)"),
        (0xA1, SubscriptionRefused, r"subscription identifiers not supported \(0xa1\)"),
        (0xA2, SubscriptionRefused, r"wildcard subscriptions not supported \(0xa2\); allow wildcards"),
    ],
)
async def test_a_refused_subscription_has_the_error_of_its_reason(code: int, kind: type[Exception], says: str) -> None:
    async with ScriptedBroker(suback=lambda topic_filter: code) as broker, connected(broker) as connection:
        with pytest.raises(kind, match=says) as caught:
            await soon(connection.subscribe("a/b", print))
        assert "a/b" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (0x80, PublishRefused, r"unspecified error \(0x80\)"),
        (0x83, PublishRefused, r"implementation specific error \(0x83\)"),
        (0x87, TopicNotAuthorized, "does not let"),
        (0x90, TopicNotAuthorized, r"does not let.*topic name invalid \(0x90\)"),
        (0x91, PublishRefused, r"packet identifier in use \(0x91\)"),
        (0x97, PublishRefused, r"quota exceeded \(0x97\); raise the broker's quota"),
        (0x99, PublishRefused, r"payload format invalid \(0x99\)"),
    ],
)
async def test_a_refused_message_has_the_error_of_its_reason(code: int, kind: type[Exception], says: str) -> None:
    async with ScriptedBroker(puback=lambda topic: code) as broker, connected(broker) as connection:
        with pytest.raises(kind, match=says):
            await soon(connection.publish("a/b", b"x"))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (0x84, r"unsupported protocol version \(0x84\); use a broker that speaks MQTT 5"),
        (0x85, r"client identifier not valid \(0x85\)"),
        (0x88, r"server unavailable \(0x88\)"),
        (0x89, r"server busy \(0x89\)"),
        (0x8A, r"banned \(0x8a\)"),
        (0x95, r"packet too large \(0x95\)"),
        (0x97, r"quota exceeded \(0x97\)"),
        (0x9A, r"retain not supported \(0x9a\)"),
        (0x9B, r"QoS not supported \(0x9b\)"),
        (0x9F, r"connection rate exceeded \(0x9f\)"),
    ],
)
async def test_a_refused_connection_names_its_reason(code: int, says: str) -> None:
    async with ScriptedBroker(connack=(code, b"")) as broker:
        with pytest.raises(ConnectionRefused, match=says) as caught:
            await soon(Connection(broker.url).start())
        assert caught.value.reason_code == code


async def test_the_address_of_another_server_is_told() -> None:
    async with ScriptedBroker(connack=(0x9C, b"\x1c\x00\x05other")) as broker:
        with pytest.raises(ConnectionRefused, match=r"use another server \(0x9c\): 'other'; .* use that URL"):
            await soon(Connection(broker.url).start())


def test_a_broker_of_mqtt_3_is_recognized() -> None:
    assert read_connack(b"\x00\x01", 0, 2).code == 0x84
    assert read_connack(b"\x00\x00", 0, 2).code == 0x84
    assert read_connack(b"\x00\x05", 0, 2).code == 0x87


def test_a_disconnect_may_be_short() -> None:
    assert read_disconnect(b"", 0, 0) == (0, "")
    assert read_disconnect(b"\x97", 0, 1) == (0x97, "")
    assert read_disconnect(b"\x97\x05\x1f\x00\x02no", 0, 7) == (0x97, "no")


async def test_the_reason_of_a_disconnect_is_in_the_error() -> None:
    async with ScriptedBroker() as broker, connected(broker) as connection:
        confirmed = connection.publish_soon("a/b", b"x", repeatable=False)
        session = broker.session(connection.client_id)
        assert session.writer is not None
        session.writer.write(b"\xe0\x09\x97\x07\x1f\x00\x04much")
        with contextlib.suppress(ConnectionLost):
            await soon(confirmed)
        await until(lambda: broker.connects[connection.client_id] == 2)


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param(b"\x27\x10\x00\x00\x00", id="Maximum Packet Size 268,435,456"),
        pytest.param(b"\x27\x00\x00\x00\x00", id="Maximum Packet Size 0"),
        pytest.param(b"\x01\x01", id="a property of a PUBLISH"),
        pytest.param(b"\x21\x00\x14\x21\x00\x14", id="a property twice"),
        pytest.param(b"\xff", id="a property that MQTT does not have"),
    ],
)
async def test_an_odd_property_of_the_connack_does_not_hide_the_broker(properties: bytes, namespace: str) -> None:
    async with ScriptedBroker(connack=(0, properties)) as broker:
        server = ToolServer("weather", broker=broker.url, namespace=namespace)
        server.add_tool("forecast", lambda: 7)
        async with server, ToolClient("caller", broker=broker.url, namespace=namespace) as client:
            assert await soon(client.call("forecast")) == 7


@pytest.mark.parametrize(("properties", "says"), [(b"\x24\x00", "QoS 0 only"), (b"\x25\x00", "no retained messages")])
async def test_a_broker_without_what_everybody_needs_is_one_error(properties: bytes, says: str) -> None:
    async with ScriptedBroker(connack=(0, properties)) as broker:
        with pytest.raises(BrokerNotSupported, match=says):
            await soon(Connection(broker.url).start())


async def test_a_broker_that_refuses_only_shared_subscriptions_gets_one_active_replica(namespace: str) -> None:
    def no_groups(topic_filter: str) -> int | None:
        return 0x9E if topic_filter.startswith("$share/") else None

    async with ScriptedBroker(suback=no_groups) as broker:
        servers = [ToolServer("weather", broker=broker.url, namespace=namespace) for _ in range(2)]
        runs: list[int] = []
        async with contextlib.AsyncExitStack() as stack:
            for number, server in enumerate(servers):
                server.add_tool("forecast", lambda number=number: runs.append(number))
                await soon(stack.enter_async_context(server))
            client = await stack.enter_async_context(ToolClient("caller", broker=broker.url, namespace=namespace))
            await becomes(client.list_tools)
            await soon(client.call("forecast"))
            assert len(runs) == 1


async def test_a_broker_that_only_pretends_is_found_out_at_the_start(namespace: str) -> None:
    pretends = {"granted": 0, "groups": False, "sessions": False, "wills": False}
    async with ScriptedBroker(**pretends) as broker:
        for endpoint in (
            ToolServer("weather", broker=broker.url, namespace=namespace),
            ToolClient("caller", broker=broker.url, namespace=namespace),
            Agent("agent", broker=broker.url, namespace=namespace, store=MemoryStore()),
        ):
            if isinstance(endpoint, ToolServer):
                endpoint.add_tool("forecast", lambda: 7)
            with pytest.raises(BrokerNotSupported, match="grants QoS 0 .*: use another broker"):
                await soon(endpoint.start())
            await soon(endpoint.stop())


async def test_a_session_that_ends_earlier_than_asked_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedBroker(connack=(0, b"\x11\x00\x00\x01\x2c")) as broker:
        async with connected(broker, session_expiry=86_400) as connection:
            broker.drop(connection.client_id)
            await until(lambda: broker.connects[connection.client_id] == 2 and connection.connected)
        async with connected(broker, session_expiry=60):
            pass
    told = [record.message for record in caplog.records if "keeps sessions for" in record.message]
    assert len(told) == 1
    assert f"{broker.url} keeps sessions for 300 s and not for 86,400 s" in told[0]
