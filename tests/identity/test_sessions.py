"""Attempts on logins, client ids, sessions, Last Wills and share groups."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from brokers.guarded import SECRET
from mqtt_agent.identity import claims_of, issue
from skips import inapplicable

from .attempts import ACL_FILE, DYNSEC, EJABBERD, ROSTER
from .conftest import Cast
from .raw import Raw, Will

_numbers = itertools.count()


def refused(cast: Cast, user: str, **options: Any) -> bool:
    raw = Raw(cast.broker, user, **options)
    try:
        return raw.connect() >= 0x80
    finally:
        raw.close()


# Logins


@pytest.mark.parametrize("name", ["agent-a", "web", "weather.1", "audit", "nobody", ""])
def test_nobody_can_log_in_under_another_name(cast: Cast, name: str) -> None:
    cast.forget("agent-b")
    assert refused(cast, "agent-b", username=name)


def test_nobody_can_log_in_without_a_password(cast: Cast) -> None:
    cast.forget("agent-b")
    assert refused(cast, "agent-b", password="")


@pytest.mark.parametrize("wrong", ["expired", "signed-by-another", "not-signed", "no-exp", "no-jid"])
def test_a_wrong_token_is_refused(cast: Cast, wrong: str) -> None:
    if cast.name != EJABBERD:
        inapplicable("only this broker takes tokens")
    cast.forget("agent-b")
    claims = claims_of(ROSTER, ROSTER.login("agent-b"), lifetime=-5 if wrong == "expired" else 60)
    if wrong in ("no-exp", "no-jid"):
        del claims[wrong.partition("-")[2]]
    key = SECRET[::-1] if wrong == "signed-by-another" else SECRET
    token = unsigned(claims) if wrong == "not-signed" else issue(claims, key)
    assert refused(cast, "agent-b", password=token)


def unsigned(claims: dict[str, Any]) -> str:
    import jwt

    return jwt.encode(claims, "", algorithm="none")


def test_a_connection_outlives_its_token_on_ejabberd(cast: Cast) -> None:
    if cast.name != EJABBERD:
        inapplicable("only this broker takes tokens")
    claims = claims_of(ROSTER, ROSTER.login("agent-b"), lifetime=2)
    with cast.fresh("agent-b", password=issue(claims, SECRET)) as agent:
        time.sleep(max(0, claims["exp"] - time.time()) + 0.1)
        assert refused(cast, "agent-b", password=issue(claims, SECRET))
        assert agent.publish("ns/tasks/writer/inbox/agent-b", b"late") == 0


# Client ids and sessions


def test_a_foreign_client_id_is_refused_or_ends_no_connection(cast: Cast) -> None:
    """acl_file cannot prevent it, and docs/identity.md says so."""
    cast.forget("agent-b")
    victim = cast.victim("agent-a")
    attacker = Raw(cast.broker, "agent-b", client_id=victim.login.client_id)
    code = attacker.connect()
    if cast.name == DYNSEC:
        assert code >= 0x80
    if cast.name == ACL_FILE:
        assert code == 0
        assert victim.lost.wait(10)
        cast.forget("agent-a")
    else:
        cast.settle("agent-a")
        assert not victim.lost.is_set()
    attacker.close()


@pytest.mark.parametrize("attacker", ["pool-a.2", "pool-b.1"], ids=["the same pool", "another pool"])
def test_a_member_of_a_pool_cannot_end_the_connection_of_another_member(cast: Cast, attacker: str) -> None:
    """acl_file cannot prevent it, and docs/identity.md says so."""
    cast.forget("pool-a.1", "pool-a.2", "pool-b.1")
    victim = cast.victim("pool-a.1")
    taking = Raw(cast.broker, attacker, client_id=victim.login.client_id)
    code = taking.connect()
    if cast.name == DYNSEC:
        assert code >= 0x80
    if cast.name == ACL_FILE:
        assert victim.lost.wait(10)
        cast.forget("pool-a.1")
    else:
        cast.settle("pool-a.1")
        assert not victim.lost.is_set()
    taking.close()


def test_the_messages_that_wait_for_another_one_cannot_be_fetched(cast: Cast) -> None:
    cast.forget("agent-b", "agent-a")
    secret = f"secret {next(_numbers)}".encode()
    with cast.fresh("agent-a", keep=60) as victim:
        assert victim.subscribe("ns/tasks/agent-a/inbox/+") < 0x80
    assert cast.victim("writer").publish("ns/tasks/agent-a/inbox/writer", secret) < 0x80
    attacker = Raw(cast.broker, "agent-b", client_id=victim.login.client_id, keep=60)
    if attacker.connect() == 0:
        assert attacker.subscribe("ns/tasks/agent-b/control/+") < 0x80
        attacker.settle("ns/tasks/agent-b/control/agent-b")
    attacker.close()
    assert secret not in attacker.payloads()
    with cast.fresh("agent-a", keep=60) as victim:
        if cast.name == ACL_FILE:  # who has the client id has the session: the task is lost, and sent again later
            victim.subscribe("ns/tasks/agent-a/control/+")
            victim.settle("ns/tasks/agent-a/control/agent-a")
        else:
            victim.wait_for(secret)
    with cast.fresh("agent-a"):
        pass  # end the kept session


def test_nobody_can_unsubscribe_another_one(cast: Cast) -> None:
    """ejabberd cannot prevent it, and docs/identity.md says so."""
    victim = cast.victim("writer")
    attacker = cast.attacker("agent-b")
    cast.settle("writer")
    for topic_filter in ("ns/tasks/writer/inbox/+", "ns/#"):
        attacker.unsubscribe(topic_filter)
    payload = f"task {next(_numbers)}".encode()
    code = cast.victim("agent-a").publish("ns/tasks/writer/inbox/agent-a", payload)
    if cast.name == EJABBERD:
        assert code == 0x10, "no subscriber is left"
        assert payload not in victim.payloads()
        cast.forget("writer", "audit")  # they subscribe again
    else:
        assert code == 0
        victim.wait_for(payload)


# Last Wills


WILLS = [
    ("the death of another agent", "agent-b", "agents/agent-a/status"),
    ("the death of a server", "evil:1", "mcp/servers/weather:1/card"),
    ("a task in the name of another agent", "agent-b", "tasks/writer/inbox/agent-a"),
    ("a result in the name of another agent", "agent-b", "tasks/agent-a/results/writer"),
    ("a call in the name of a client", "agent-b", "mcp/tools/forecast/call/web"),
    ("a response in the name of a server", "evil:1", "mcp/clients/web/responses/weather:1"),
]


@pytest.mark.parametrize(("name", "attacker", "topic"), WILLS, ids=lambda value: value.replace(" ", "-"))
def test_a_last_will_cannot_say(cast: Cast, name: str, attacker: str, topic: str) -> None:
    cast.forget(attacker)
    audit = cast.victim("audit")
    payload = f"will {next(_numbers)}".encode()
    dying = Raw(cast.broker, attacker, will=Will(f"ns/{topic}", payload))
    if dying.connect() == 0:
        dying.drop()
        with cast.fresh(attacker):  # the broker has seen the end of the connection before
            pass
    else:
        dying.close()
    cast.settle("audit")
    assert payload not in audit.payloads()


def test_a_last_will_says_the_death_of_its_own_agent(cast: Cast) -> None:
    cast.forget("agent-b")
    audit = cast.victim("audit")
    payload = f"will {next(_numbers)}".encode()
    dying = Raw(cast.broker, "agent-b", will=Will("ns/agents/agent-b/status", payload))
    assert dying.connect() == 0
    dying.drop()
    audit.wait_for(payload)


# Share groups


def test_a_foreign_share_group_swallows_no_calls(cast: Cast) -> None:
    """acl_file cannot prevent it, and docs/identity.md says so: a call that goes to the intruder is lost."""
    if not cast.broker.shares:
        inapplicable("this broker has no shared subscriptions")
    servers = [cast.victim("weather:1"), cast.victim("weather:2")]
    with cast.fresh("evil:1") as evil:
        evil.subscribe("$share/mcp-bound-forecast/ns/mcp/tools/forecast/call/+")
        calls = [f"call {next(_numbers)}".encode() for _ in range(9)]
        for call in calls:
            assert cast.victim("web").publish("ns/mcp/tools/forecast/call/web", call) < 0x80
        for server in ("weather:1", "weather:2"):
            cast.settle(server)
        served = [each for server in servers for each in server.payloads() if each in calls]
        assert set(evil.payloads()) & set(calls) == set()
        assert len(served) == (6 if cast.name == ACL_FILE else 9)


# The broker's own topics


@pytest.mark.parametrize(
    "topic", ["$CONTROL/dynamic-security/v1", "$SYS/broker/uptime", "$share/x/ns/tasks/writer/inbox"]
)
def test_nobody_can_publish_to_the_brokers_own_topics(cast: Cast, topic: str) -> None:
    commands = b'{"commands": [{"command": "createClient", "username": "mallory", "password": "x"}]}'
    with cast.fresh("agent-b") as attacker:
        assert attacker.publish(topic, commands) >= 0x80


def test_nobody_can_hear_the_answers_of_the_administration(cast: Cast) -> None:
    with cast.fresh("agent-b") as attacker:
        code = attacker.subscribe("$CONTROL/dynamic-security/v1/response")
        assert code >= 0x80 or cast.name == ACL_FILE


def test_an_auditor_hears_everything_and_says_nothing(cast: Cast) -> None:
    audit = cast.victim("audit")
    payload = f"audited {next(_numbers)}".encode()
    assert cast.victim("agent-a").publish("ns/tasks/writer/inbox/agent-a", payload) == 0
    audit.wait_for(payload)
