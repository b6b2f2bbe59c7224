"""Each broker's configuration: that it says what the roster says, and does not grow with the agents."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from brokers import find_program
from mqtt_agent.errors import RosterError
from mqtt_agent.identity import (
    BROKERS,
    RIGHTS,
    Plan,
    Profile,
    Roster,
    allows,
    covers,
    differences,
    grants,
    plan_for,
    read_passwords,
    roles,
)
from mqtt_agent.wire import Topics

from .attempts import ROSTER

STRICT = Roster.parse(
    """
[programs.clerk]
kind = "agent"
calls = ["clock"]
delegates_to = ["writer"]

[programs.writer]
kind = "agent"

[programs.clocks]
kind = "server"
serves = ["clock", "calendar"]

[programs.host]
kind = "agent"
hosts = "files:1"
serves = ["read_file"]

[programs.web]
kind = "client"
calls = "*"

[programs.operator]
kind = "operator"
"""
)
NS = "a2a/v1"
NAMED = {"mosquitto", "cloudsignal"}
"""The brokers whose rules allow some things beyond the roster; their notes say which."""


def plan(target: str, roster: Roster, profile: Profile = "bound", **options: Any) -> Plan:
    return plan_for(target, roster, profile, **options)


@pytest.mark.parametrize("profile", ["bound", "mixed"])
@pytest.mark.parametrize("roster", [ROSTER, STRICT], ids=["open", "strict"])
@pytest.mark.parametrize("target", BROKERS)
def test_no_right_is_missing_and_none_is_too_many(target: str, roster: Roster, profile: Profile) -> None:
    found = differences(plan(target, roster, profile))
    assert [each for each in found if not each.allowed] == []
    if target not in NAMED:
        assert found == []


@pytest.mark.parametrize("roster", [ROSTER, STRICT], ids=["open", "strict"])
def test_without_patterns_acl_file_allows_exactly_the_roster(roster: Roster) -> None:
    assert differences(plan("mosquitto", roster, exact=True)) == []


def test_with_variables_the_plugin_allows_exactly_the_roster() -> None:
    assert differences(plan("mosquitto-dynsec", ROSTER, variables=True)) == []
    assert differences(plan("mosquitto-dynsec", STRICT, variables=True)) == []


def test_what_acl_file_allows_beyond_the_roster_has_the_logins_own_name() -> None:
    for found in differences(plan("mosquitto", ROSTER)):
        if found.action == "publish":
            assert found.user in found.topic.split("/")


@pytest.mark.parametrize("target", ["mosquitto", "ejabberd", "emqx", "cloudsignal"])
def test_the_rules_do_not_grow_with_the_agents(target: str) -> None:
    def size(agents: int) -> int:
        text = "".join(f'[programs.a{n}]\nkind = "agent"\ncalls = "*"\ndelegates_to = "*"\n' for n in range(agents))
        made = plan(target, Roster.parse(text))
        return len(made.files.get("acl", "").splitlines()) or len(
            made.rules if target != "cloudsignal" else [*made.files]
        )

    assert size(100) == size(2)


def test_with_variables_the_roles_of_the_plugin_do_not_grow_with_the_agents() -> None:
    text = "".join(f'[programs.a{n}]\nkind = "agent"\ndelegates_to = "*"\n' for n in range(100))
    content = json.loads(plan("mosquitto-dynsec", Roster.parse(text), variables=True).files["dynamic-security.json"])
    assert len(content["roles"]) == 1
    assert len(content["clients"]) == 100


@pytest.mark.parametrize("target", BROKERS)
def test_explain_names_the_rule(target: str) -> None:
    made = plan(target, ROSTER)
    yes = made.explain("agent-a", "publish", "ns/tasks/writer/inbox/agent-a")
    assert yes.allowed
    assert yes.rule is not None
    assert yes.rule.text in yes.why
    files = " ".join(" ".join(made.files.values()).split())  # one rule can be several lines of JSON
    assert yes.rule.topic in files or yes.rule.text.strip("{}") in files
    no = made.explain("agent-b", "publish", "ns/tasks/writer/inbox/agent-a")
    assert (no.allowed, no.rule) == (False, None)
    assert "no rule lets agent-b publish there" in no.why
    with pytest.raises(RosterError, match="has no program 'nobody'"):
        made.explain("nobody", "publish", "x")


def test_acl_file_says_that_it_withholds_messages_only() -> None:
    why = plan("mosquitto", ROSTER).explain("agent-b", "subscribe", "ns/#").why
    assert "accepts every subscription" in why


@pytest.mark.parametrize("target", BROKERS)
def test_an_entry_of_the_roster_is_a_limit(target: str) -> None:
    made = plan(target, STRICT)
    assert made.explain("clerk", "publish", f"{NS}/mcp/tools/clock/call/clerk").allowed
    assert made.explain("clerk", "publish", f"{NS}/tasks/writer/inbox/clerk").allowed
    beyond = [
        ("clerk", f"{NS}/mcp/tools/calendar/call/clerk"),
        ("clerk", f"{NS}/tasks/host/inbox/clerk"),
        ("writer", f"{NS}/mcp/tools/clock/call/writer"),
        ("writer", f"{NS}/tasks/clerk/inbox/writer"),
        ("host", f"{NS}/mcp/tools/clock/card"),
    ]
    for user, topic in beyond:
        said = any(repr(user) in note for note in made.notes) or target == "cloudsignal"
        assert not made.explain(user, "publish", topic).allowed or (target == "cloudsignal" and said)


@pytest.mark.parametrize("target", BROKERS)
def test_an_agent_that_hosts_a_tool_server_has_its_rights(target: str) -> None:
    made = plan(target, STRICT)
    for topic in (
        "mcp/servers/files:1/card",
        "mcp/tools/read_file/card",
        "mcp/clients/web/responses/files:1",
        "agents/host/status",
    ):
        assert made.explain("host", "publish", f"{NS}/{topic}").allowed, topic


@pytest.mark.parametrize("target", sorted(set(BROKERS) - {"cloudsignal"}))
def test_an_operator_may_remove_cards_and_nothing_else(target: str) -> None:
    made = plan(target, STRICT)
    assert made.explain("operator", "subscribe", f"{NS}/#").allowed
    assert made.explain("operator", "publish", f"{NS}/mcp/tools/clock/card").allowed
    assert not made.explain("operator", "publish", f"{NS}/mcp/clients/web/responses/clocks:1").allowed


def test_cloudsignal_says_what_its_policy_cannot() -> None:
    notes = plan("cloudsignal", STRICT).notes
    assert "The policy does not say: calls of 'clerk'; its token may use every name." in notes
    assert any("the rights of the operator 'operator'" in note for note in notes)


def test_the_profile_mixed_says_what_is_lost() -> None:
    for target in BROKERS:
        assert any("can speak as any other one" in note for note in plan(target, ROSTER, "mixed").notes)
        assert not any("can speak as any other one" in note for note in plan(target, ROSTER).notes)


def test_the_profile_bound_is_a_part_of_mixed() -> None:
    for login in (*ROSTER.logins(), *STRICT.logins()):
        roster = ROSTER if login in ROSTER.logins() else STRICT
        bound, mixed = (set(grants(roster, login.program, profile)) for profile in ("bound", "mixed"))
        assert bound <= mixed
        assert not any(each.right.plain for each in bound)


def test_the_rights_have_the_topics_of_the_wire_format() -> None:
    topics = Topics("ns")
    bound = topics.bound
    expected = [
        ("agent-a", "publish", bound.inbox("writer", "agent-a")),
        ("agent-a", "publish", bound.control("writer", "agent-a")),
        ("agent-a", "publish", bound.results("writer", "agent-a")),
        ("agent-a", "publish", bound.events("writer", "t-1", "agent-a")),
        ("agent-a", "subscribe", bound.inbox("agent-a")),
        ("agent-a", "subscribe", bound.control("agent-a")),
        ("agent-a", "subscribe", bound.results("agent-a")),
        ("agent-a", "subscribe", bound.events("agent-a", "t-1")),
        ("agent-a", "subscribe", topics.all_agent_cards),
        ("agent-a", "subscribe", topics.all_agent_statuses),
        ("web", "publish", bound.call("forecast", "web")),
        ("web", "publish", bound.cancel("forecast", "web")),
        ("web", "publish", bound.query("weather:1", "web")),
        ("web", "subscribe", bound.responses("web")),
        ("web", "subscribe", bound.stream("web", "c-1")),
        ("web", "subscribe", topics.all_tool_cards),
        ("web", "subscribe", topics.all_server_cards),
        ("weather:1", "subscribe", bound.calls_shared("forecast")),
        ("weather:1", "subscribe", bound.cancel("forecast")),
        ("weather:1", "subscribe", bound.query("weather:1")),
        ("weather:1", "publish", bound.responses("web", "weather:1")),
        ("weather:1", "publish", bound.stream("web", "c-1", "weather:1")),
        ("weather:1", "publish", topics.tool_card("forecast")),
        ("weather:1", "publish", topics.server_card("weather:1")),
    ]
    for name, action, topic in expected:
        assert allows(ROSTER, ROSTER.login(name), action, topic) is not None, topic  # type: ignore[arg-type]


def test_every_right_says_what_it_is_for_and_stands_once() -> None:
    assert all(right.why for right in RIGHTS)
    assert len({(right.part, right.action, right.topic) for right in RIGHTS}) == len(RIGHTS)


def test_the_name_of_a_role_depends_only_on_its_rights() -> None:
    before = {login.user: role.name for role in roles(STRICT) for login in role.logins}
    more = Roster((*reversed(STRICT.programs),))
    assert {login.user: role.name for role in roles(more) for login in role.logins} == before


@pytest.mark.parametrize(
    ("target", "name", "says"),
    [
        ("mosquitto", "a:b", r"the user name 'a:b' contains ':', which Mosquitto's files cannot hold"),
        ("mosquitto", "a%u", r"contains '%'"),
        ("ejabberd", "a@b", r"the user name 'a@b' contains '@', which no user of ejabberd may have"),
        ("ejabberd", "a%u", r"contains '%'"),
    ],
)
def test_a_name_that_a_broker_cannot_hold_is_told(target: str, name: str, says: str) -> None:
    with pytest.raises(RosterError, match=says):
        plan(target, Roster.parse(f'[programs."{name}"]\nkind = "agent"'))


def test_two_names_that_are_one_for_ejabberd_are_told() -> None:
    with pytest.raises(RosterError, match=r"'Anna' and 'anna' are one user for ejabberd"):
        plan("ejabberd", Roster.parse('[programs.anna]\nkind = "agent"\n[programs.Anna]\nkind = "agent"'))


def test_an_unknown_broker_is_told() -> None:
    with pytest.raises(RosterError, match="no configuration can be made for 'rabbit'; use one of mosquitto, "):
        plan("rabbit", ROSTER)


@pytest.mark.parametrize("target", ["mosquitto", "mosquitto-dynsec"])
def test_a_missing_password_is_told(target: str) -> None:
    with pytest.raises(RosterError, match=r"there is no password for 'agent-b'; add a line agent-b:PASSWORD"):
        plan(target, ROSTER, passwords={"agent-a": "x"})


def test_a_password_file_is_read() -> None:
    assert read_passwords("# a comment\n\na:b:c\n") == {"a": "b:c"}
    with pytest.raises(RosterError, match="line 2: there is no user and password; write USER:PASSWORD"):
        read_passwords("a:b\nc\n")


def test_mosquitto_passwd_can_change_the_generated_password_file(tmp_path: Path) -> None:
    program = find_program("mosquitto_passwd")
    if program is None:
        pytest.skip("mosquitto_passwd is not installed")
    passwords = {login.user: "x" for login in ROSTER.logins()}
    path = tmp_path / "passwords"
    path.write_text(plan("mosquitto", ROSTER, passwords=passwords).files["passwords"])
    path.chmod(0o600)
    subprocess.run([program, "-b", str(path), "agent-a", "new"], check=True, capture_output=True)
    assert len(path.read_text().splitlines()) == len(passwords)


@pytest.mark.parametrize(
    ("allowed", "asked", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/+", True),
        ("a/+", "a/#", False),
        ("a/#", "a/#", True),
        ("a/#", "a", True),
        ("a/#", "a/+/b", True),
        ("a/b", "a/+", False),
        ("a/+/c", "a/b", False),
        ("a/b", "a/b/c", False),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("#", "a", True),
        ("$share/g/a/+", "$share/g/a/+", True),
        ("a/+", "$share/g/a/+", False),
    ],
)
def test_a_filter_covers_what_it_matches(allowed: str, asked: str, expected: bool) -> None:
    assert covers(allowed, asked) is expected


def test_plus_takes_hash_at_brokers_that_compare_level_by_level() -> None:
    assert covers("a/+", "a/#", plus_takes_hash=True)
