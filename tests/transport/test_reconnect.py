"""When a connection connects again, and in which order it then subscribes and publishes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from brokers import Broker, Ejabberd, Mosquitto
from mqtt_agent import Connection
from mqtt_agent.errors import SessionTakenOver, TransportError
from mqtt_agent.transport import waits
from mqtt_agent.transport.message import Will
from mqtt_agent.transport.packets import PUBLISH, SUBACK
from mqtt_agent.transport.takeovers import Takeovers
from packets import Packet, PacketProxy
from proxy import Proxy
from support import soon, until

from .test_connection import Inbox, connected


async def test_after_a_connection_that_lasted_the_first_wait_is_short_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "_STABLE_AFTER", 0)
    async with Proxy(broker.url) as proxy, connected(proxy.url) as connection:
        for number in range(1, 10):  # with waits that only grow, the last one would take 25 to 50 s
            proxy.drop()
            await until(lambda number=number: proxy.connections > number and connection.connected)


@pytest.mark.long
async def test_links_that_break_again_and_again_do_not_let_the_broker_publish_the_last_will(
    mosquitto: Mosquitto, namespace: str
) -> None:
    inbox, topic = Inbox(), f"{namespace}/status"
    async with Proxy(mosquitto.url) as proxy, connected(mosquitto.url) as watcher:
        await watcher.subscribe(topic, inbox)
        lost = Connection(proxy.url, will_delay=4)
        lost.claim_will(Will(topic, lambda: b"offline"))
        await soon(lost.start())
        for number in range(1, 11):  # with waits up to 30 s, the last ones would be longer than the will delay
            proxy.drop()
            await until(lambda number=number: proxy.connections > number and lost.connected, 60)
        await soon(lost.publish(topic, b"online"))
        await inbox.have(1)
        await soon(lost.stop(end_session=True))
    assert inbox.payloads == [b"online"]


@pytest.mark.rule("SESSION-3")
async def test_after_a_reconnect_the_subscriptions_are_made_before_anything_is_published(
    broker: Broker, namespace: str
) -> None:
    inbox = Inbox()
    async with PacketProxy(broker.url) as proxy, connected(proxy.url) as connection:
        for number in range(5):
            await connection.subscribe(f"{namespace}/{number}", inbox)
        await proxy.cut()
        await until(lambda: not connection.connected)
        waiting = connection.publish_soon(f"{namespace}/0", b"x")
        before = len(proxy.passed)
        await proxy.mend()
        await soon(waiting)
        await inbox.have(1)
        packets = [packet for packet in proxy.passed[before:] if isinstance(packet, Packet)]
    kinds = [packet.kind for packet in packets if packet.up == (packet.kind == PUBLISH)]
    assert kinds[: kinds.index(PUBLISH)].count(SUBACK) == 5


async def test_a_connection_whose_client_id_another_process_has_taken_does_not_connect_again(
    ejabberd: Ejabberd, namespace: str
) -> None:
    failures: list[TransportError] = []  # ejabberd tells the first process; Mosquitto and rumqttd do not
    client_id = namespace.replace("/", "-")
    async with connected(ejabberd.url, client_id=client_id) as first:
        first.on_failed.append(failures.append)
        async with connected(ejabberd.url, client_id=client_id) as second:
            await until(lambda: failures or first.epoch > 1)
            assert [type(failure) for failure in failures] == [SessionTakenOver]
            with pytest.raises(SessionTakenOver):
                await first.publish(namespace, b"x")
            await soon(second.publish(namespace, b"x"))
            assert (first.epoch, second.epoch) == (1, 1)


async def test_of_two_processes_with_one_client_id_the_first_is_told_where_the_broker_says_nothing(
    mosquitto: Mosquitto, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "_LONGEST_AFTER_BREAK", 0.2)  # so that the fight is short
    failures: list[tuple[str, TransportError]] = []
    client_id = namespace.replace("/", "-")
    async with connected(mosquitto.url, client_id=client_id) as first:
        first.on_failed.append(lambda error: failures.append(("first", error)))
        async with connected(mosquitto.url, client_id=client_id) as second:
            second.on_failed.append(lambda error: failures.append(("second", error)))
            await until(lambda: failures, 60)
            with pytest.raises(SessionTakenOver, match="same client id: give each process"):
                await first.publish(namespace, b"x")
            epoch = second.epoch
            await soon(second.publish(namespace, b"x"), 10)
            assert second.epoch <= epoch + 1
    assert [(name, type(error)) for name, error in failures] == [("first", SessionTakenOver)]


def test_links_that_a_proxy_closes_because_they_are_idle_are_no_takeover() -> None:
    takeovers = Takeovers()
    for now in range(0, 1000, 10):
        assert not takeovers.note(now, 10.0, quietly=True, session_present=True)


async def test_a_broker_that_is_restarted_again_and_again_is_no_takeover(
    make_mosquitto: Callable[..., Mosquitto], namespace: str
) -> None:
    broker = make_mosquitto(["persistence true"])
    async with connected(broker.url) as connection:
        for number in range(6):
            broker.stop()
            broker.start()
            await until(lambda number=number: connection.epoch > number + 1 and connection.connected, 30)
        await soon(connection.publish(namespace, b"x"))
