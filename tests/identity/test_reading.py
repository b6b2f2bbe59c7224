"""Attempts to read what is for others: no message arrives."""

from __future__ import annotations

import itertools

import pytest

from .attempts import ACL_FILE, DYNSEC, EJABBERD, READING, Reading
from .conftest import Cast

_numbers = itertools.count()
SECRETS = [
    ("agent-a", "tasks/writer/inbox/agent-a"),
    ("agent-a", "tasks/writer/control/agent-a"),
    ("agent-a", "tasks/pool-a/inbox/agent-a"),
    ("pool-a.1", "agents/pool-a/members/all/control"),
    ("writer", "tasks/agent-a/results/writer"),
    ("writer", "tasks/agent-a/events/writer/t-1"),
    ("web", "mcp/tools/forecast/call/web"),
    ("web", "mcp/tools/forecast/cancel/web"),
    ("web", "mcp/servers/weather:1/query/web"),
    ("weather:1", "mcp/clients/web/responses/weather:1"),
    ("weather:1", "mcp/clients/web/stream/weather:1/c-1"),
]
"""What others must not read: who speaks, and where."""
OWN = {
    "agent-b": "tasks/agent-b/control/agent-b",
    "evil:1": "mcp/servers/evil:1/query/evil:1",
    "pool-b.1": "tasks/pool-b/control/pool-b",
}


@pytest.mark.parametrize("attempt", READING, ids=lambda attempt: attempt.name.replace(" ", "-"))
def test_nobody_can_read(cast: Cast, attempt: Reading) -> None:
    with cast.fresh(attempt.attacker) as attacker:
        own = f"ns/{OWN[attempt.attacker]}"
        assert attacker.subscribe(own.rpartition("/")[0] + "/+") < 0x80
        code = attacker.subscribe(attempt.topic_filter.format(ns="ns"))
        if cast.name == ACL_FILE:
            assert code < 0x80, "acl_file refuses no subscription, docs/identity.md says so"
        elif cast.name == DYNSEC:
            assert code == 0x87
        else:
            assert code >= 0x80
        assert not cast.broker.made.explain(attempt.attacker, "subscribe", attempt.topic_filter.format(ns="ns")).allowed
        secrets = [f"secret {next(_numbers)}".encode() for _ in SECRETS]
        for (speaker, topic), secret in zip(SECRETS, secrets, strict=True):
            assert cast.victim(speaker).publish(f"ns/{topic}", secret) < 0x80
        if not attacker.lost.is_set():
            attacker.settle(own)
        assert cast.name == EJABBERD or not attacker.lost.is_set()
        assert [each for each in attacker.payloads() if each in secrets] == []
