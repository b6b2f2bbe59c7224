"""The verbs ``acl`` and ``token``."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest
from mqtt_agent.identity import BROKERS

from .terminal import Terminal

ROSTER = """\
[programs.agent-a]
kind = "agent"
delegates_to = "*"

[programs.agent-b]
kind = "agent"

[programs.weather]
kind = "server"
serves = ["forecast"]
"""
SECRET = "0123456789abcdef0123456789abcdef"
TASK = "a2a/v1/tasks/agent-b/inbox/agent-a"


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A terminal in a folder with a roster. These verbs need no broker."""
    terminal = Terminal(tmp_path, "mqtt://127.0.0.1:1", "a2a/v1")
    terminal.write("roster.toml", ROSTER)
    terminal.write("secret", SECRET + "\n")
    return terminal


def test_the_rules_of_a_broker_are_printed_with_their_notes(terminal: Terminal) -> None:
    said = terminal.inside("acl", "roster.toml", "--for", "mosquitto")
    assert "pattern write a2a/v1/tasks/+/results/%u" in said.out
    assert "note: acl_file refuses no subscription" in said.err
    exact = terminal.inside("acl", "write", "roster.toml", "--for", "mosquitto", "--exact")
    assert "pattern" not in exact.out.replace("no patterns", "")


def test_the_files_of_a_broker_are_written_for_their_owner_only(terminal: Terminal) -> None:
    terminal.write("passwords", "agent-a:x\nagent-b:y\nweather.1:z\n")
    options = ("--passwords", "passwords", "-o", "conf", "--broker-version", "2.1")
    said = terminal.inside("acl", "roster.toml", "--for", "mosquitto-dynsec", *options)
    assert said.out.split() == ["conf/dynamic-security.json", "conf/mosquitto.conf"]
    path = terminal.home / "conf/dynamic-security.json"
    assert path.stat().st_mode & 0o077 == 0
    assert any("%u" in acl["topic"] for role in json.loads(path.read_text())["roles"] for acl in role["acls"])
    assert str(terminal.home / "conf") in (terminal.home / "conf/mosquitto.conf").read_text()


def test_explain_says_which_rule_decides_for_each_broker(terminal: Terminal) -> None:
    said = terminal.inside("acl", "explain", "roster.toml", "agent-a", "publish", TASK, "--json")
    assert [line["broker"] for line in said.lines] == list(BROKERS)
    assert all(line["allowed"] and line["rule"] in line["why"] for line in said.lines)
    said = terminal.inside("acl", "explain", "roster.toml", "agent-b", "publish", TASK, "--for", "ejabberd", code=1)
    assert "no rule lets agent-b publish there" in said.out


def test_check_tells_what_a_broker_allows_beyond_the_roster(terminal: Terminal) -> None:
    said = terminal.inside("acl", "check", "roster.toml")
    assert "mosquitto: allows more than the roster: weather.1 publish a2a/v1/agents/weather.1/card" in said.out
    assert "mosquitto-dynsec" not in said.out
    assert "3 programs, 3 logins: good" in said.err


def test_check_compares_the_files_of_a_folder(terminal: Terminal) -> None:
    terminal.inside("acl", "roster.toml", "--for", "ejabberd", "-o", "conf")
    check = ("acl", "check", "roster.toml", "--for", "ejabberd", "--against", "conf")
    terminal.inside(*check)
    terminal.write("roster.toml", ROSTER.replace("forecast", "alerts"))
    assert "conf/ejabberd.yml is not what the roster says; write it again" in terminal.inside(*check, code=1).out


def test_a_token_is_issued(terminal: Terminal) -> None:
    said = terminal.inside("token", "issue", "roster.toml", "weather:1", "--key-file", "secret", "--lifetime", "60")
    claims = jwt.decode(said.out.strip(), SECRET, algorithms=["HS256"])
    assert (claims["server_id"], claims["tool_id"], claims["exp"] - claims["iat"]) == ("weather:1", "forecast", 60)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("acl", "missing.toml", "--for", "emqx"), 2, "missing.toml cannot be read: No such file or directory"),
        (("acl", "roster.toml"), 2, "name the broker with --for: mosquitto, mosquitto-dynsec"),
        (("acl", "roster.toml", "--for", "mosquito"), 2, "did you mean"),
        (("acl", "roster.toml", "--for", "emqx", "--profile", "all"), 2, "'all' is no profile; write bound or mixed"),
        (
            ("acl", "explain", "roster.toml", "agent-a", "read", "x"),
            2,
            "'read' is no action; write publish or subscribe",
        ),
        (("acl", "explain", "roster.toml", "nobody", "publish", "x"), 2, "has no program 'nobody'"),
        (("token", "issue", "roster.toml", "agent-a", "--key-file", "none"), 2, "the file none cannot be read"),
        (
            ("acl", "roster.toml", "--for", "mosquitto-dynsec", "--broker-version", "new"),
            2,
            "--broker-version 'new' is no version; write 2.0 or 2.1",
        ),
    ],
)
def test_a_mistake_says_what_to_do(terminal: Terminal, words: tuple[str, ...], code: int, says: str) -> None:
    assert says in terminal.inside(*words, code=code).err
