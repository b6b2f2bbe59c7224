"""The verb ``doctor``: what is wrong with a broker, a login or a namespace is found, and said with what to do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker, Mosquitto, password_line
from brokers.guarded import DynamicSecurity
from certificates import Authority
from mqtt_agent import ToolServer
from mqtt_agent.cli.doctor.namespace import about_namespace
from mqtt_agent.cli.doctor.picture import Picture
from mqtt_agent.identity import Roster
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import (
    AgentCard,
    AgentStatus,
    Control,
    ServerCard,
    TaskResult,
    ToolCard,
    Topics,
    decode,
    encode,
)
from support import require

from .terminal import Terminal

RUN_ON = ALL_BROKERS
PLUGIN = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
TWO_PROCESSES = """
import asyncio
import os
from mqtt_agent import Agent
from mqtt_agent.agents import MemoryStore
from mqtt_agent.errors import SessionTakenOver

async def again_and_again():
    while True:  # as a service manager does
        async with Agent("twin", namespace=os.environ["MQTT_AGENT_NAMESPACE"], store=MemoryStore()) as agent:
            print("up", flush=True)
            try:
                await agent.serve_forever()
            except SessionTakenOver:
                await asyncio.sleep(0.2)

asyncio.run(again_and_again())
"""


def found(terminal: Terminal, *words: str, code: int = 0, **environment: str) -> list[dict[str, Any]]:
    """What the doctor finds."""
    return terminal.inside("doctor", "--json", "--seconds", "0", *words, code=code, **environment).lines


def of(findings: list[dict[str, Any]], check: str, level: str) -> str:
    """The messages and steps of one check and one level."""
    return "\n".join(
        f"{each['message']} -> {each.get('next')}"
        for each in findings
        if (each["check"], each["level"]) == (check, level)
    )


async def find(terminal: Terminal, *words: str, code: int = 0) -> list[dict[str, Any]]:
    return await asyncio.to_thread(found, terminal, *words, code=code)


def test_a_healthy_broker_has_nothing_wrong(terminal: Terminal, broker: Broker) -> None:
    said = found(terminal, "--broker", broker.url)
    assert {each["level"] for each in said} <= {"ok", "note", "warning"}
    good = of(said, "rights", "ok")
    for role in ("client", "server", "agent"):
        for kind in ("plain", "sender-bound"):
            assert re.search(rf"may be the {role} \S+ on {kind} topics: (\d+) of \1 rights were proven", good), good
    assert ("no shared subscriptions" in of(said, "broker", "note")) is not broker.shared_subscriptions


def test_of_several_brokers_each_is_examined(terminal: Terminal, mosquitto: Mosquitto, url_of_nobody: str) -> None:
    said = found(terminal, "--broker", f"{mosquitto.url},{url_of_nobody}", "--role", "client", code=3)
    assert of(said, "login", "ok").startswith(mosquitto.url)
    assert url_of_nobody in of(said, "broker", "wrong")


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.name, marks=pytest.mark.long) for kind in ALL_BROKERS])
def test_what_happens_when_connections_break_is_found(terminal: Terminal, kind: type[Broker]) -> None:
    require(kind)
    with kind() as broker:
        said = terminal.run("doctor", "--json", "--seconds", "0.1", "--broker", broker.url).lines
    messages = "\n".join(each["message"] for each in said)
    expected = {
        "drops messages that wait": not broker.queues_beyond_window,
        "keeps sessions longer than asked": not broker.ends_sessions,
        "to replicas whose session has ended": not broker.frees_groups,
        "does not say when nobody is subscribed": not broker.says_unheard,
        "drops each message after": broker.longest_life is not None,
        "has no shared subscriptions": not broker.shared_subscriptions,
        "publishes a Last Will": False,
    }
    assert {words: words in messages for words in expected} == expected
    assert {each["level"] for each in said} <= {"ok", "note", "warning"}


@pytest.mark.long
def test_it_leaves_nothing_behind(terminal: Terminal) -> None:
    terminal.start("serve", "weather").says("serves")
    watching = terminal.start("watch", "--retained")
    watching.says("watching")
    terminal.run("doctor", "--tool", "forecast", "--seconds", "0")
    assert {card["tool"] for card in terminal.inside("tools", "--all", "--json").lines} == {
        "forecast",
        "slow",
        "endless",
        "broken",
    }
    assert [each["name"] for each in terminal.inside("servers", "--all", "--json").lines] == ["weather"]
    assert terminal.inside("agents", "--all", "--json").out == ""
    assert '"city": "Oslo"' in terminal.run("call", "forecast", "city=Oslo").out


def test_for_people_each_finding_says_what_to_do_next(terminal: Terminal) -> None:
    said = terminal.run("doctor", "--seconds", "0").out
    assert "ok      broker   the broker speaks MQTT 5" in said
    assert "note    open" in said
    assert "Next: forbid clients without a login" in said


# Reaching the broker


class _Web(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def web_server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_port_of_a_web_server_is_recognized(terminal: Terminal, web_server: int) -> None:
    [said] = found(terminal, "--broker", f"mqtt://127.0.0.1:{web_server}", code=3)
    assert "the port speaks HTTP" in said["next"]


def test_a_port_where_nobody_listens_is_told(terminal: Terminal, url_of_nobody: str) -> None:
    [said] = found(terminal, "--broker", url_of_nobody, code=3)
    assert "mqtt-agent broker" in said["next"]


class _WithTLS(Mosquitto):
    def answers(self) -> bool:
        return self.accepts_tcp()


@pytest.mark.long
def test_tls_with_a_wrong_name_says_how_to_see_the_right_names(terminal: Terminal, tmp_path: Path) -> None:
    require(Mosquitto)
    require(Authority)
    authority = Authority(tmp_path / "authority", "test")
    own = authority.issue("broker", "DNS:broker.example")
    lines = [f"cafile {authority.certificate}", f"certfile {own.certificate}", f"keyfile {own.key}"]
    with _WithTLS(lines) as broker:
        secure = f"mqtts://127.0.0.1:{broker.port}"
        [said] = found(terminal, "--broker", secure, "--ca", str(authority.certificate), code=3)
        assert "not valid for '127.0.0.1'" in said["message"]
        assert "subjectAltName" in said["next"]
        [said] = found(terminal, "--broker", secure, code=3)
        assert "--ca FILE" in said["next"]
        [said] = found(terminal, "--broker", broker.url, code=3)
        assert f"the port speaks TLS: try --broker {secure}" in said["next"]


# Rights


def _login(terminal: Terminal, name: str) -> tuple[str, ...]:
    terminal.write("password", "secret")
    return ("--user", name, "--password-file", "password", "--as", name)


class _WithLogins(Mosquitto):
    """A broker that takes only the user ``ada``."""

    def __init__(self, lines: list[str], files: dict[str, str], anonymous: bool = False) -> None:
        super().__init__(lines, anonymous=anonymous, files=files, credentials={"username": "ada", "password": "secret"})


def _with_acl(namespace: str, *lines: str, anonymous: bool = False) -> _WithLogins:
    acl = "user ada\n" + "".join(f"topic {line.format(ns=namespace)}\n" for line in lines)
    return _WithLogins(
        ["password_file {folder}/passwords", "acl_file {folder}/acl"],
        {"passwords": password_line("ada", "secret"), "acl": acl},
        anonymous,
    )


def test_a_right_that_is_missing_although_the_suback_said_yes_is_found(terminal: Terminal, namespace: str) -> None:
    require(Mosquitto)
    with _with_acl(namespace, "write {ns}/#", "read {ns}/mcp/tools/#", "read {ns}/mcp/servers/#") as broker:
        said = found(terminal, "--broker", broker.url, *_login(terminal, "ada"), "--role", "client", code=1)
    wrong = of(said, "rights", "wrong")
    inbox = f"{namespace}/mcp/clients/ada/responses"
    assert f"accepted a subscription to {inbox}" in wrong
    assert (
        "although the SUBACK said yes. What the right is for: a message to itself; responses of such servers" in wrong
    )
    assert f"-> allow this login to read {inbox}" in wrong
    assert "mcp/servers/+/card" not in wrong


@pytest.mark.long
def test_a_login_with_the_rights_of_a_client_may_be_a_client_and_no_server(terminal: Terminal, namespace: str) -> None:
    require(Mosquitto)
    rights = (
        "readwrite {ns}/mcp/clients/ada/responses",
        "read {ns}/mcp/tools/+/card",
        "read {ns}/mcp/servers/+/card",
        "read {ns}/mcp/tools/+/stream/+",
        "write {ns}/mcp/tools/+/call",
        "write {ns}/mcp/tools/+/cancel",
        "write {ns}/mcp/servers/+/query",
    )
    with _with_acl(namespace, *rights) as broker:
        login = _login(terminal, "ada")
        said = found(terminal, "--broker", broker.url, *login, "--role", "client")
        assert "may be the client 'ada'" in of(said, "rights", "ok")
        assert "The SUBACK alone says yes" in of(said, "rights", "ok")
        said = found(terminal, "--broker", broker.url, *login, "--role", "server", code=1)
        assert "as server 'ada', this login may not publish to" in of(said, "rights", "wrong")
        assert "What the right is for: the cards of its tools" in of(said, "rights", "wrong")
        said = found(terminal, "--broker", broker.url, *login)  # the login may be meant for one role only
        assert "this login cannot be the server 'ada'" in of(said, "rights", "note")


def _dynamic_security(namespace: str) -> dict[str, str]:
    salt = b"saltsaltsalt"
    digest = hashlib.pbkdf2_hmac("sha512", b"secret", salt, 101, 64)
    allowed = [
        ("publishClientSend", f"{namespace}/mcp/#"),
        ("subscribePattern", f"{namespace}/mcp/#"),
        ("subscribePattern", f"{namespace}/agents/+/status"),
        ("publishClientReceive", f"{namespace}/mcp/clients/#"),
    ]
    return {
        "dynsec.json": json.dumps(
            {
                "defaultACLAccess": dict.fromkeys(("publishClientSend", "publishClientReceive", "subscribe"), False),
                "clients": [
                    {
                        "username": "ada",
                        "password": base64.b64encode(digest).decode(),
                        "salt": base64.b64encode(salt).decode(),
                        "iterations": 101,
                        "roles": [{"rolename": "caller"}],
                    }
                ],
                "roles": [
                    {
                        "rolename": "caller",
                        "acls": [{"acltype": kind, "topic": topic, "allow": True} for kind, topic in allowed],
                    }
                ],
            }
        )
    }


@pytest.mark.skipif(not PLUGIN.exists(), reason="Mosquitto has no plugin for dynamic security here")
@pytest.mark.long
def test_the_rights_of_dynamic_security_are_tried(terminal: Terminal, namespace: str) -> None:
    lines = [f"plugin {PLUGIN}", "plugin_opt_config_file {folder}/dynsec.json"]
    with _WithLogins(lines, _dynamic_security(namespace)) as broker:
        said = found(terminal, "--broker", broker.url, *_login(terminal, "ada"), code=1)
    wrong = of(said, "rights", "wrong")
    assert f"subscription to {namespace}/mcp/tools/+/card" in wrong  # SUBACK yes, and no right to receive
    assert f"{namespace}/mcp/clients/ada/responses and a message" not in wrong
    assert "cannot be the agent 'ada'" in of(said, "rights", "note")
    assert f"{namespace}/probe/#" in of(said, "broker", "note")


ROSTER = """
namespace = "ns"

[programs.web]
kind = "client"
calls = ["forecast"]

[programs.planner]
kind = "agent"
delegates_to = ["writer"]

[programs.weather]
kind = "server"
serves = ["forecast"]

[programs.audit]
kind = "auditor"

[programs.ops]
kind = "operator"
"""


@pytest.mark.parametrize(
    ("role", "name", "proven"),
    [
        ("client", "web", "1 of 11"),
        pytest.param("agent", "planner", "5 of 8", marks=pytest.mark.long),
        pytest.param("server", "weather:1", "3 of 10", marks=pytest.mark.long),
        pytest.param("auditor", "audit", "0 of 1", marks=pytest.mark.long),
        pytest.param("operator", "ops", "4 of 4", marks=pytest.mark.long),
    ],
)
def test_the_rights_of_a_roster_are_exactly_those_that_the_doctor_tries(
    terminal: Terminal, role: str, name: str, proven: str
) -> None:
    require(DynamicSecurity)
    roster = Roster.parse(ROSTER)
    login = roster.login(name)
    with DynamicSecurity(roster) as broker:
        terminal.write("secret", broker.password_of(login))
        words = ("--broker", broker.where, "--namespace", "ns", "--bound", "require", "--as", name, "--role", role)
        words += ("--user", login.user, "--password-file", "secret", "--client-id", login.client_id)
        words += ("--tool", "forecast", "--peer", "writer")
        said = found(terminal, *words)
        assert of(said, "rights", "wrong") == ""
        assert f"on sender-bound topics: {proven} rights were proven" in of(said, "rights", "ok")
        if role == "client":
            wrong = of(found(terminal, *words, "--tool", "other", code=1), "rights", "wrong")
            assert "may not publish to ns/mcp/tools/other/call/web" in wrong
        if role == "server":  # there are no rights on plain topics
            assert of(found(terminal, *words[:4], *words[6:], code=1), "rights", "wrong")


def test_a_wrong_login_is_told(terminal: Terminal, namespace: str) -> None:
    require(Mosquitto)
    with _with_acl(namespace, "readwrite #") as broker:
        terminal.write("wrong", "wrong")
        login = ("--user", "ada", "--password-file", "wrong")
        [said] = found(terminal, "--broker", broker.url, *login, code=1)
        assert (said["check"], said["level"]) == ("login", "wrong")
        assert "--password-file" in said["next"]


def test_a_broker_that_is_open_to_everybody_besides_its_logins_is_found(terminal: Terminal, namespace: str) -> None:
    require(Mosquitto)
    with _with_acl(namespace, "readwrite #") as closed:
        assert "without a login" not in str(found(terminal, "--broker", closed.url, *_login(terminal, "ada")))
    broker = _WithLogins(["password_file {folder}/passwords"], {"passwords": password_line("ada", "secret")}, True)
    with broker as half_open:
        said = of(found(terminal, "--broker", half_open.url, *_login(terminal, "ada")), "open", "note")
    assert "may connect without a login, and read every message of the namespace with the topic filter #" in said
    assert f"this login may read every message of the namespace ({namespace}/#)" in said


# The namespace


@pytest.mark.long
async def test_two_servers_of_one_tool_name_are_found(terminal: Terminal, mosquitto: Mosquitto, namespace: str) -> None:
    async with ToolServer("weather", broker=mosquitto.url, namespace=namespace) as server:
        await server.add_tool("forecast", lambda: 1, description="A forecast.")
        other = ServerCard(server="climate", tools=["forecast"])  # another SDK, which does not know our rule
        connection = Connection(mosquitto.url)
        await connection.start()
        await connection.publish(Topics(namespace).server_card("climate"), encode(other), retain=True)
        said = await find(terminal, "--broker", mosquitto.url, code=1)
        await connection.stop()
    assert "the tool 'forecast' is served by climate, weather" in of(said, "names", "wrong")
    assert "ToolServer(..., prefix=True)" in of(said, "names", "wrong")


@pytest.mark.long
async def test_the_cards_of_the_dead_are_found_and_forgotten(
    terminal: Terminal, mosquitto: Mosquitto, namespace: str
) -> None:
    topics = Topics(namespace)
    connection = Connection(mosquitto.url)
    await connection.start()
    server = ServerCard(server="dead", tools=["lost"], features=["query"])
    await connection.publish(topics.server_card("dead"), encode(server), retain=True)
    await connection.publish(
        topics.server_card("gone"), encode(ServerCard(server="gone", status="offline")), retain=True
    )
    await connection.publish(topics.tool_card("broken"), b"no card", retain=True)
    await connection.stop()
    where = ("--broker", mosquitto.url)
    said = await find(terminal, *where, code=1)
    assert "'dead' says that it is online, and nobody listens there" in of(said, "cards", "wrong")
    assert "mqtt-agent forget --force dead" in of(said, "cards", "wrong")
    assert f"nobody can read the card at {topics.tool_card('broken')}" in of(said, "cards", "wrong")
    assert "a server lists the tools lost, and the tools have no card" in of(said, "cards", "wrong")
    assert "the cards of gone are there" in of(said, "cards", "note")
    await asyncio.to_thread(terminal.run, "forget", "dead", *where, code=2)
    await asyncio.to_thread(terminal.run, "forget", "--force", "--yes", "dead", *where)
    assert "dead" not in str(await find(terminal, *where, code=1))


async def test_clocks_that_differ_are_found(terminal: Terminal, mosquitto: Mosquitto, namespace: str) -> None:
    topics = Topics(namespace)
    later = (datetime.now(timezone.utc) + timedelta(minutes=10)).isoformat()
    earlier = (datetime.now(timezone.utc) - timedelta(minutes=10)).isoformat()
    connection = Connection(mosquitto.url)
    await connection.start()

    def answer(message: InboundMessage) -> None:
        control = decode(Control, message.payload)
        result = TaskResult(task_id=control.task_id, status="failed", timestamp=earlier)
        assert message.response_topic is not None
        connection.publish_soon(message.response_topic, encode(result))

    await connection.subscribe(topics.control("slow"), answer)
    await connection.publish(topics.agent_card("slow"), encode(AgentCard(name="slow", features=["get"])), retain=True)
    await connection.publish(
        topics.agent_status("slow"), encode(AgentStatus(name="slow", status="online")), retain=True
    )
    await connection.publish(
        topics.tool_card("fast"), encode(ToolCard(tool="fast", server="s", last_seen=later)), retain=True
    )
    said = of(await find(terminal, "--broker", mosquitto.url, code=1), "clocks", "wrong")
    await connection.stop()
    assert "the clock of 'slow' is 60" in said  # and some seconds that the command needed to start
    assert "s behind the clock of this machine" in said
    assert "the clock of 'fast' is" in said
    assert "s ahead of the clock of this machine" in said
    assert "NTP" in said


@pytest.mark.long
def test_a_session_that_is_taken_over_again_and_again_is_found(terminal: Terminal) -> None:
    terminal.write("twin.py", TWO_PROCESSES)
    running = [terminal.program("twin.py") for _ in range(2)]
    for each in running:
        each.says("up")
    said = of(found(terminal, "--seconds", "8", code=1), "sessions", "wrong")
    assert "processes used the name 'twin'" in said
    assert "give each process a name of its own" in said


async def test_limits_that_are_too_small_for_the_largest_card_are_found(terminal: Terminal, namespace: str) -> None:
    require(Mosquitto)
    with Mosquitto(["max_packet_size 5000"]) as broker:
        async with ToolServer("large", broker=broker.url, namespace=namespace) as server:
            await server.add_tool("wide", lambda: 1, description="x" * 3900)
            said = of(await find(terminal, "--broker", broker.url, code=1), "limits", "wrong")
    assert "the largest card" in said
    assert "the broker takes packets of at most 5,000" in said
    with Mosquitto(["message_size_limit 20000"]) as broker:  # the CONNACK packet says nothing of this limit
        said = of(await find(terminal, "--broker", broker.url, code=1), "limits", "wrong")
    assert "message_size_limit" in said


def test_an_unknown_role_is_refused(terminal: Terminal) -> None:
    assert "did you mean 'client'?" in terminal.inside("doctor", "--role", "clinet", code=2).err


def test_the_card_of_the_command_line_is_no_card_of_the_dead() -> None:
    topics = Topics("a2a/v1")
    picture = Picture(topics)
    for name in ("mqtt-agent-0123456789", "writer"):
        picture.take(InboundMessage(topics.agent_card(name), encode(AgentCard(name=name)), retain=True))
        offline = AgentStatus(name=name, status="offline", timestamp="2026-01-01T00:00:00.000Z")
        picture.take(InboundMessage(topics.agent_status(name), encode(offline), retain=True))
    [gone] = [each.message for each in about_namespace(picture, set(), 0) if "offline" in each.message]
    assert gone == "the cards of writer are there, and their owners are offline"
