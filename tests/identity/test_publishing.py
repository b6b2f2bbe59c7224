"""Attempts to speak in the name of another one: the broker refuses them, and tells the sender so."""

from __future__ import annotations

import itertools

import pytest
from skips import inapplicable

from .attempts import PUBLISHING, Publishing
from .conftest import Cast

_numbers = itertools.count()


@pytest.mark.parametrize("attempt", PUBLISHING, ids=lambda attempt: attempt.name.replace(" ", "-"))
def test_nobody_can_publish(cast: Cast, attempt: Publishing) -> None:
    audit = cast.victim("audit")  # hears everything that anybody could hear
    before = len(audit.heard)
    payload = b"" if attempt.empty else f"forged {next(_numbers)}".encode()
    code = cast.attacker(attempt.attacker).publish(f"ns/{attempt.topic}", payload, retain=attempt.retain)
    assert cast.broker.made.explain(attempt.attacker, "publish", f"ns/{attempt.topic}").allowed == (code < 0x80)
    cast.settle("audit")
    arrived = [each for each in audit.heard[before:] if each.topic == f"ns/{attempt.topic}" and each.payload == payload]
    if cast.name in dict(attempt.possible):
        assert code < 0x80
        assert len(arrived) == 1
    else:
        assert code in (0x87, 0x90), f"the sender is not told: {code:#x}"
        assert arrived == []


def test_the_rights_are_enough_to_speak_in_ones_own_name(cast: Cast) -> None:
    spoken = [
        ("agent-a", "tasks/writer/inbox/agent-a", "writer"),
        ("agent-a", "tasks/writer/control/agent-a", "writer"),
        ("writer", "tasks/agent-a/results/writer", "agent-a"),
        ("writer", "tasks/agent-a/events/writer/t-1", "agent-a"),
        ("writer", "agents/writer/card", "agent-a"),
        ("writer", "agents/writer/status", "web"),
        ("web", "mcp/tools/forecast/cancel/web", "weather:1"),
        ("web", "mcp/servers/weather:1/query/web", "weather:1"),
        ("agent-a", "mcp/servers/weather:1/query/agent-a", "weather:1"),
        ("weather:1", "mcp/clients/web/responses/weather:1", "web"),
        ("weather:1", "mcp/clients/agent-a/stream/weather:1/c-1", "agent-a"),
        ("weather:1", "mcp/servers/weather:1/card", "web"),
        ("weather:1", "mcp/tools/forecast/card", "agent-a"),
    ]
    for speaker, topic, listener in spoken:
        payload = f"true {next(_numbers)}".encode()
        victim = cast.victim(listener)
        assert cast.victim(speaker).publish(f"ns/{topic}", payload) == 0, topic
        victim.wait_for(payload)


def test_the_replicas_share_the_calls(cast: Cast) -> None:
    if not cast.broker.shares:
        inapplicable("this broker has no shared subscriptions")
    first, second = cast.victim("weather:1"), cast.victim("weather:2")
    calls = [f"call {next(_numbers)}".encode() for _ in range(8)]
    for call in calls:
        assert cast.victim("web").publish("ns/mcp/tools/forecast/call/web", call) == 0
    for server in ("weather:1", "weather:2"):
        cast.settle(server)
    assert sorted(each for each in (*first.payloads(), *second.payloads()) if each in calls) == sorted(calls)
    assert set(calls) & set(first.payloads())
    assert set(calls) & set(second.payloads())
