"""The brokers of the attack suite, with the victims on them: raw clients that listen where endpoints listen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from brokers.guarded import GUARDED, ACLFile, JWTEjabberd
from mqtt_agent.identity import grants, without_share
from support import on_brokers, require

from .attempts import ROSTER
from .raw import Raw

LONG_ON = [ACLFile, JWTEjabberd]  # `make long` runs the attacks on these: one broker shows each change of the product


class Cast:
    """The connections of one broker. They are made once, and stay for all attempts."""

    def __init__(self, broker: Any) -> None:
        self.broker: Any = broker
        self.name: str = broker.name
        self._open: dict[tuple[str, bool], Raw] = {}

    def attacker(self, user: str) -> Raw:
        """A login that listens to nothing."""
        return self._get(user, listens=False)

    def victim(self, user: str) -> Raw:
        """A login that listens wherever its rights let it listen."""
        return self._get(user, listens=True)

    def forget(self, *users: str) -> None:
        """Close the connections of these logins."""
        for user in users:
            for listens in (False, True):
                if (user, listens) in self._open:
                    self._open.pop((user, listens)).close()

    def fresh(self, user: str, **options: Any) -> Raw:
        """A connection of its own, in the place of the connection that this login had."""
        self.forget(user)
        return Raw(self.broker, user, **options)

    def settle(self, user: str) -> None:
        """Wait until the victim has everything that the broker had queued for it."""
        login, victim = ROSTER.login(user), self.victim(user)
        if login.program.kind == "agent":
            victim.settle(f"ns/tasks/{login.agent_id}/control/{login.agent_id}")
        elif login.program.kind == "client":
            victim.settle(f"ns/mcp/clients/{user}/responses/{user}")
        elif login.program.kind == "server":
            victim.settle(f"ns/mcp/servers/{login.server_id}/query/{login.server_id}")
        else:
            self._settle_auditor(victim)

    def _settle_auditor(self, victim: Raw) -> None:
        """An auditor may publish nothing, so another login publishes the marker."""
        marker = f"marker {len(victim.heard)}".encode()
        assert self.attacker("agent-b").publish("ns/tasks/agent-b/control/agent-b", marker) < 0x80
        victim.wait_for(marker)

    def _get(self, user: str, *, listens: bool) -> Raw:
        key = user, listens
        if key not in self._open:
            self.forget(user)  # a login has one client id, and so one connection
            raw = Raw(self.broker, user)
            assert raw.connect() == 0
            self._open[key] = raw
            if listens:
                for grant in grants(ROSTER, raw.login.program, shares=self.broker.shares):
                    if grant.action == "subscribe":
                        topic = grant.filled(raw.login)
                        shared = self.broker.shares
                        assert raw.subscribe(topic if shared else without_share(topic)) < 0x80, topic
        return self._open[key]

    def close(self) -> None:
        for raw in self._open.values():
            raw.close()


@pytest.fixture(scope="session", params=on_brokers(GUARDED, LONG_ON))
def cast(request: pytest.FixtureRequest) -> Iterator[Cast]:
    """A broker with exactly the generated configuration."""
    require(request.param)
    with request.param(ROSTER) as broker:
        cast = Cast(broker)
        yield cast
        cast.close()
