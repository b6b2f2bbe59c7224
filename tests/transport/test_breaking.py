"""probe() with broken connections: what a broker does with the session, the share and the will of a lost client."""

from __future__ import annotations

import math

import pytest
from brokers import ALL_BROKERS, Broker, Ejabberd
from mqtt_agent import probe
from mqtt_agent.transport import breaking
from scripted import ScriptedBroker
from support import soon

RUN_ON = ALL_BROKERS
LONG_ON = [Ejabberd]


async def test_what_a_broker_does_when_connections_break_is_found_out(broker: Broker, namespace: str) -> None:
    found = await soon(probe(broker.url, namespace=namespace, thorough=True), 20)
    assert (found.queues, found.queued_in_order) == _queues(broker)
    assert found.expires is broker.drops_expired
    assert found.ends_sessions or not broker.ends_sessions
    if found.frees_groups is not None:
        assert found.frees_groups is broker.frees_groups
    assert found.dead_member == ("queued" if broker.keeps_shared_messages else None)
    assert found.will_after is not None
    assert 1 <= found.will_after <= 5


def _queues(broker: Broker) -> tuple[bool, bool | None]:
    return (True, broker.repeats_in_order) if broker.queues_beyond_window else (False, None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for what a scripted broker never sends."""
    for name in ("_ARRIVES_WITHIN", "_LATE"):
        monkeypatch.setattr(breaking, name, 0.5)
    monkeypatch.setattr(breaking, "_WILL_WITHIN", 1.5)


async def test_a_broker_that_loses_what_waits_is_found_out(namespace: str, quick: None) -> None:
    script = {"most_messages": 2, "wills": False, "session_outlives_will": 30.0}
    async with ScriptedBroker(**script) as broker:
        found = await soon(probe(broker.url, namespace=namespace, thorough=True), 20)
    assert (found.queues, found.dead_member, found.ends_sessions) == (False, "lost", False)
    assert found.will_after == math.inf


@pytest.mark.long
async def test_a_broker_that_gives_no_message_to_the_dead_is_found_out(namespace: str) -> None:
    async with ScriptedBroker(skips_dead=True) as broker:
        found = await soon(probe(broker.url, namespace=namespace, thorough=True), 20)
    assert (found.queues, found.dead_member, found.ends_sessions) == (True, "skipped", True)
