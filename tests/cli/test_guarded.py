"""The command line on a broker that binds logins to client ids and allows exactly the rights of a roster."""

from __future__ import annotations

from brokers.guarded import DynamicSecurity
from logins import denials
from mqtt_agent.identity import Roster
from support import require

from .terminal import Terminal

ROSTER = Roster.parse(
    """
namespace = "ns"

[programs.web]
kind = "client"
calls = "*"

[programs.planner]
kind = "agent"

[programs.weather]
kind = "server"
serves = ["forecast", "slow", "endless", "broken"]

[programs.audit]
kind = "auditor"
"""
)


def test_verbs_take_the_client_id_of_their_login(terminal: Terminal) -> None:
    require(DynamicSecurity)

    def words(name: str, *more: str) -> tuple[str, ...]:
        login = ROSTER.login(name)
        terminal.write(login.user, broker.password_of(login))
        client_id = () if login.program.kind == "server" else ("--client-id", login.client_id)
        return ("--bound", "require", "--user", login.user, "--password-file", login.user, *client_id, *more)

    with DynamicSecurity(ROSTER) as broker:
        terminal.environment |= {"MQTT_AGENT_BROKER": broker.where, "MQTT_AGENT_NAMESPACE": "ns"}
        terminal.start("serve", "weather", "--replica", "1", *words("weather:1")).says("serves forecast")
        watching = terminal.start("watch", *words("audit"))
        watching.says("watching")
        said = terminal.inside("call", "forecast", "city=Oslo", *words("web", "--as", "web"))
        assert '"city": "Oslo"' in said.out
        watching.says("forecast")
        assert terminal.inside("agents", *words("planner", "--as", "planner")).out == ""
        assert "prefer" in terminal.inside("tools", "--bound", "always", code=2).err
        assert denials(broker.log) == []


def test_a_client_id_is_saved_with_a_context(terminal: Terminal) -> None:
    terminal.inside("context", "add", "lab", "--client-id", "web", "--bound", "require")
    [shown] = terminal.inside("context", "list", "--json").lines
    assert shown["contexts"]["lab"] == {"client_id": "web", "bound": "require"}
