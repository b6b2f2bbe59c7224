"""The roster: what it says, and that each mistake names its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from mqtt_agent.errors import RosterError
from mqtt_agent.identity import Roster
from mqtt_agent.identity.rights import grants

GOOD = """\
namespace = "acme/v1"
org_id = "acme"

[programs.planner]
kind = "agent"
user_id = "mia"
calls = ["forecast"]
delegates_to = "*"

[programs.weather]
kind = "server"
replicas = ["1", "2"]
serves = ["forecast", "alerts"]

[programs."web.eu"]
kind = "client"
calls = "*"
client_id = "web-eu"

[programs.host]
kind = "agent"
hosts = "files:host"
serves = ["read_file"]

[programs.audit]
kind = "auditor"
"""


def test_each_program_and_each_replica_is_a_login() -> None:
    roster = Roster.parse(GOOD)
    assert [(each.user, each.client_id, each.agent_id, each.server_id) for each in roster.logins()] == [
        ("planner", "planner@acme.v1", "planner", None),
        ("weather.1", "weather:1", None, "weather:1"),
        ("weather.2", "weather:2", None, "weather:2"),
        ("web.eu", "web-eu", "web.eu", None),
        ("host", "host@acme.v1", "host", "files:host"),
        ("audit", "audit", None, None),
    ]


def test_a_login_has_the_claims_of_its_program() -> None:
    roster = Roster.parse(GOOD)
    assert roster.login("planner").claims == {"agent_id": "planner", "user_id": "mia", "org_id": "acme"}
    assert roster.login("weather:1").claims == {
        "server_id": "weather:1",
        "tool_id": ["forecast", "alerts"],
        "org_id": "acme",
    }
    assert roster.login("host").claims == {
        "agent_id": "host",
        "server_id": "files:host",
        "tool_id": "read_file",
        "org_id": "acme",
    }


def test_the_client_id_of_an_agent_is_the_one_that_agent_takes() -> None:
    from mqtt_agent import Agent, MemoryStore

    for namespace in ("a2a/v1", "acme/v1"):
        roster = Roster.parse(f'namespace = "{namespace}"\n[programs.planner]\nkind = "agent"')
        agent = Agent("planner", broker="mqtt://127.0.0.1:1", namespace=namespace, store=MemoryStore())
        assert roster.login("planner").client_id == agent.connection.client_id


def test_the_members_of_a_pool_have_one_login_or_one_each() -> None:
    pool = '[programs.a]\nkind = "agent"\npool = true\n'
    [shared] = Roster.parse(f'namespace = "acme/v1"\n{pool}').logins()
    assert (shared.user, shared.client_id, shared.agent_id, shared.binds_client_id) == ("a", "a:*@acme.v1", "a", False)
    own = Roster.parse(f'namespace = "acme/v1"\n{pool}members = ["1", "2"]').logins()
    assert [(each.user, each.client_id) for each in own] == [("a.1", "a:1@acme.v1"), ("a.2", "a:2@acme.v1")]
    assert {(each.agent_id, each.binds_client_id) for each in own} == {("a", True)}


def test_a_login_is_found_by_each_of_its_names() -> None:
    roster = Roster.parse(GOOD)
    assert roster.login("weather:2") == roster.login("weather.2")
    assert roster.login("files:host") == roster.login("host")
    with pytest.raises(RosterError, match=r"'weather' has several logins: name one of weather\.1, weather\.2"):
        roster.login("weather")
    with pytest.raises(RosterError, match=r"has no program 'nobody': add \[programs\.nobody\], or name one of planner"):
        roster.login("nobody")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "roster.toml"
    path.write_text(GOOD)
    assert Roster.read(path) == Roster.parse(GOOD)
    with pytest.raises(RosterError, match="missing.toml cannot be read: No such file or directory; name a TOML file"):
        Roster.read(tmp_path / "missing.toml")
    path.write_bytes(b"\xff")
    with pytest.raises(RosterError, match="cannot be read"):
        Roster.read(path)


def test_reads_names_servers_and_stands_for_their_replicas() -> None:
    reads = '[programs.web2]\nkind = "client"\ncalls = "*"\nreads = ["weather", "files:host"]\n'
    roster = Roster.parse(GOOD + reads)
    assert roster.login("planner").program.reads == ("*",)
    assert roster.replicas_of(("weather", "files:host")) == ("weather:1", "weather:2", "files:host")
    topics = [each.topic for each in grants(roster, roster.login("web2").program) if "/request/" in each.topic]
    assert topics == [
        f"acme/v1/mcp/servers/{replica}/request/{{self}}" for replica in ("weather:1", "weather:2", "files:host")
    ]
    nobody = Roster.parse(f"{GOOD}{reads}".replace('["weather", "files:host"]', "[]"))
    assert not any("/request/" in each.topic for each in grants(nobody, nobody.login("web2").program))


AGENT = '[programs.a]\nkind = "agent"\n'
MISTAKES = {
    "no TOML": ("namespace = a", r"roster is not TOML: .*line 1.*; correct the line"),
    "nothing": ("", r"line 1: there is no program; add a table \[programs.NAME\]"),
    "an unknown key": (f"{AGENT}[people]\nx = 1\n", r"unknown key 'people'; use namespace, org_id and"),
    "a bad namespace": (f'namespace = "a/+"\n{AGENT}', r"line 1: .*namespace.*'\+'"),
    "a bad organisation": (f'# x\norg_id = "a/b"\n{AGENT}', r"line 2: .*org_id.*'/'"),
    "a bad name": ('\n[programs."a/b"]\nkind = "agent"', r"line 2: .*the name of a program.*'/'"),
    "no table": ("[programs]\na = 1", r"line 2: 'a' is no program; write \[programs.a\]|'a' is no program"),
    "no kind": (
        "\n\n[programs.a]\nuser_id = 'x'",
        r"line 3: program 'a' has no kind; use one of agent, ",
    ),
    "a wrong kind": ('[programs.a]\nkind = "agnet"', r"line 2: program 'a' has the unknown kind 'agnet'"),
    "a key of another kind": (
        f'{AGENT}replicas = ["1"]',
        r"line 3: 'replicas' has no meaning for the agent 'a'",
    ),
    "members of no pool": (f'{AGENT}members = ["1"]', r"line 3: agent 'a' has members, and so is a pool; add pool"),
    "a list that is a text": (f'{AGENT}calls = "forecast"', r"line 3: calls of 'a' must be \"\*\" or a list such as"),
    "a wrong name in a list": (f'{AGENT}calls = [\n "x",\n "a#",\n]', r"line 3: .*a name in calls.*'#'"),
    "a server that the roster does not have": (
        f'{AGENT}reads = ["x"]',
        r"line 3: reads of 'a' names 'x'.*add \[programs.x\]",
    ),
    "a number in a list": (f"{AGENT}delegates_to = [1]", r"line 3: .*is not a text but int"),
    "a client without tools": ('[programs.a]\nkind = "client"', r"line 1: client 'a' may call no tool; add calls"),
    "a server without tools": ('[programs.a]\nkind = "server"', r"line 1: server 'a' may offer no tool; add serves"),
    "all tools of a server": ('[programs.a]\nkind = "server"\nserves = ["*"]', r"line 1: 'a' must name each tool"),
    "a host without tools": (f'{AGENT}hosts = "s:1"', r"line 3: agent 'a' needs both hosts"),
    "tools without a host": (f'{AGENT}serves = ["x"]', r"line 3: agent 'a' needs both hosts"),
    "a host without replica": (f'{AGENT}hosts = "s"\nserves = ["x"]', r"line 3: hosts = 's' .* is no server id"),
    "one user twice": (
        '[programs."w.1"]\nkind = "agent"\n[programs.w]\nkind = "server"\nserves = ["x"]',
        r"line 3: 'w' and 'w\.1' have the same user 'w\.1'; rename one of them",
    ),
    "one server id twice": (
        f'{AGENT}hosts = "w:1"\nserves = ["x"]\n[programs.w]\nkind = "server"\nserves = ["x"]',
        r"line 5: 'w' and 'a' have the same server id 'w:1'",
    ),
    "an agent with the id of a server": (
        '[programs."w:1"]\nkind = "agent"\nclient_id = "x"\n[programs.w]\nkind = "server"\nserves = ["x"]',
        r"line 1: 'w:1' is also the server id of a replica of 'w', and would speak as this server; rename one",
    ),
    "one client id twice": (f'{AGENT}client_id = "b"\n[programs.b]\nkind = "agent"', r"line 4: .* same client id 'b'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_its_line_and_the_way_out(mistake: str) -> None:
    text, says = MISTAKES[mistake]
    with pytest.raises(RosterError, match=says) as told:
        Roster.parse(text, "roster")
    assert str(told.value).startswith("roster")


def test_comments_and_quoted_names_do_not_disturb_the_line() -> None:
    text = '# [programs.a]\n[programs."a.b"] # an agent\n# kind = "x"\n  "kind" = "x"\n'
    with pytest.raises(RosterError, match=r"roster, line 4: program 'a\.b' has the unknown kind 'x'"):
        Roster.parse(text, "roster")
