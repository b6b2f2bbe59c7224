"""A broker that knows the programs of one system with a framework, and the arguments of each program's endpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from brokers.guarded import DynamicSecurity, JWTEjabberd
from logins import denials
from mqtt_agent import Password
from mqtt_agent.identity import Roster
from support import on_brokers, require

ROSTER = Roster.parse(
    """
namespace = "ns"

[programs.host]
kind = "agent"
calls = ["add"]

[programs.planner]
kind = "agent"
calls = ["add"]
delegates_to = ["host"]

[programs.hands]
kind = "client"
calls = ["add"]

[programs.toolbox]
kind = "server"
serves = ["add"]
"""
)
EXPECTED = ("has no shared subscriptions: one", "keeps sessions for 300 s")


class System:
    """One broker, and the logins on it."""

    def __init__(self, broker: Any) -> None:
        self.broker = broker
        self._passwords = {login.user: broker.password_of(login) for login in ROSTER.logins()}

    def of(self, name: str, *, agent_id: bool = False) -> dict[str, Any]:
        """The arguments of the endpoint of a program."""
        login = ROSTER.login(name)
        return {
            "broker": self.broker.where,
            "namespace": "ns",
            "credentials": Password(login.user, self._passwords[login.user]),
            "bound": "require",
            **({"agent_id": name} if agent_id else {}),
            **({"client_id": login.client_id} if login.program.kind == "client" else {}),
        }


@pytest.fixture(params=on_brokers([DynamicSecurity, JWTEjabberd], [JWTEjabberd]))
def system(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[System]:
    """A system on a broker with exactly the generated rights. Afterwards, nothing was denied, and nobody was warned."""
    require(request.param)
    with request.param(ROSTER) as broker:
        yield System(broker)
        assert denials(broker.log) == []
    told = [each for each in caplog.records if "mqtt_agent" in each.name and each.levelno >= logging.WARNING]
    assert [each.getMessage() for each in told if not any(word in each.getMessage() for word in EXPECTED)] == []
