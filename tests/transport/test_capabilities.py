"""probe() finds out what a broker says of itself, and what it really does."""

from __future__ import annotations

import pytest
from brokers import ALL_BROKERS, Broker, Mosquitto
from mqtt_agent import probe
from mqtt_agent.errors import BrokerUnreachable
from scripted import ScriptedBroker
from support import soon

RUN_ON = ALL_BROKERS


async def test_a_real_broker_does_what_it_says(broker: Broker, namespace: str) -> None:
    found = await soon(probe(broker.url, namespace=namespace))
    assert (found.echo, found.retained, found.message_life) == (True, True, broker.longest_life)
    assert found.says_unheard == broker.says_unheard
    assert found.shared == found.shared_subscriptions == broker.shared_subscriptions


async def test_mosquitto_says_when_nobody_listens(mosquitto: Mosquitto, namespace: str) -> None:
    found = await soon(probe(mosquitto.url, namespace=namespace))
    assert found.says_unheard is True
    assert found.receive_maximum == 20


async def test_a_broker_that_says_more_than_it_does_is_found_out(namespace: str) -> None:
    script = {"groups": False, "retained": False, "matching": False, "longest_life": 60.0, "tells_life": True}
    async with ScriptedBroker(**script) as broker:
        found = await soon(probe(broker.url, namespace=namespace))
    assert found.shared_subscriptions
    assert (found.echo, found.shared, found.retained, found.says_unheard) == (True, False, False, False)
    assert found.message_life == 60


async def test_a_broker_that_allows_no_try_is_described_by_its_own_words(namespace: str) -> None:
    async with ScriptedBroker(puback=lambda topic: 0x87, connack=(0, b"\x21\x00\x14")) as broker:
        found = await soon(probe(broker.url, namespace=namespace))
    assert (found.receive_maximum, found.echo, found.shared) == (20, None, None)


async def test_a_broker_that_is_not_there_is_the_usual_error(url_of_nobody: str) -> None:
    with pytest.raises(BrokerUnreachable):
        await soon(probe(url_of_nobody))
