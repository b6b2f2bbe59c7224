"""The agents in whose names a process gives tasks: shared by value, connected while somebody uses them."""

from __future__ import annotations

import gc
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent import TLS, Agent, MemoryStore, Password, Token
from mqtt_agent.adapting.requesters import Requester, RequesterSettings
from mqtt_agent.transport import BrokerSettings

Make = Callable[..., Requester]


@pytest.fixture
def make(url_of_nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes requesters with the given settings; the broker is one that nobody needs to reach unless a test has one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # where the stores of named agents lie
    made: list[Requester] = []

    def make(agent_id: str | None = "planner", **settings: Any) -> Requester:
        broker = {
            name: settings.pop(name) for name in ("credentials", "tls", "namespace", "broker") if name in settings
        }
        where = BrokerSettings(**{"broker": url_of_nobody, **broker})
        requester = Requester(RequesterSettings(where, agent_id, **settings))
        made.append(requester)
        return requester

    yield make
    for requester in made:
        requester.close()


def test_two_equal_passwords_are_one_identity(make: Make) -> None:
    one = make(credentials=Password("anna", "secret"))
    other = make(credentials=Password("anna", "secret"))
    assert one.agent is other.agent


def test_equal_settings_in_other_words_are_one_identity(make: Make, url_of_nobody: str) -> None:
    one = make(namespace="a2a/v1", tls=TLS(ca=None))
    assert make(namespace="/a2a/v1/", tls=TLS(ca=None)).agent is one.agent
    assert make(broker=url_of_nobody + "/", tls=TLS()).agent is one.agent


def test_an_environment_variable_is_the_broker_that_it_names(
    make: Make, url_of_nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_AGENT_BROKER", url_of_nobody)
    assert make(broker=None).agent is make().agent


def test_199_tls_settings_of_which_each_is_forgotten_are_199_identities(make: Make) -> None:
    # Objects that are gone leave their id() to later objects, so an id() must not tell settings apart.
    agent_ids, object_ids = set[str](), set[int]()
    for number in range(199):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        object_ids.add(id(context))
        requester = Requester(RequesterSettings(BrokerSettings("mqtt://localhost:1", tls=context), prefix="crew"))
        agent_ids.add(requester.agent.agent_id)
        requester.close()
        del requester, context
        if number % 20 == 0:
            gc.collect()
    assert len(object_ids) < 199, "no id() came twice, so this test shows nothing"
    assert len(agent_ids) == 199


@pytest.mark.parametrize(
    "different",
    [
        {"namespace": "elsewhere"},
        {"agent_id": "other"},
        {"agent_id": None},
        {"agent_id": None, "prefix": "other"},
        {"agent_id": None, "credentials": Password("anna", "other")},
        {"agent_id": None, "credentials": Token("secret")},
        {"agent_id": None, "tls": TLS(ca="/elsewhere")},
    ],
    ids=lambda different: "-".join(different),
)
def test_other_settings_are_another_identity(make: Make, different: dict[str, Any]) -> None:
    named, unnamed = make(), make(None, credentials=Password("anna", "secret"), prefix="crew")
    other = make(**{"credentials": Password("anna", "secret"), "prefix": "crew", **different})
    assert other.agent is not named.agent
    assert other.agent is not unnamed.agent or different == {"agent_id": None}


def test_an_agent_id_in_use_with_another_login_is_refused_with_what_to_do(make: Make) -> None:
    first = make(credentials=Password("anna", "secret"))
    assert first.agent.agent_id == "planner"
    with pytest.raises(ValueError, match="'planner' is used in this process with another store or other credentials: "):
        make(credentials=Password("anna", "other"))
    first.close()
    assert make(credentials=Password("anna", "other")).agent is not first.agent


def test_a_process_without_an_agent_id_has_one_generated_name(make: Make) -> None:
    settings = RequesterSettings(BrokerSettings("mqtt://localhost:1"), prefix="crew")
    one, other = Requester(settings), Requester(RequesterSettings(BrokerSettings("mqtt://localhost:1"), prefix="crew"))
    try:
        assert one.agent is other.agent
        assert one.agent_id.startswith("crew-")
        assert isinstance(one.agent.store, MemoryStore)
    finally:
        one.close()
        other.close()


async def _is_connected(agent: Agent) -> bool:
    return agent.connection.connected


def test_the_agent_stays_connected_until_its_last_user_is_closed(make: Make, broker: Broker, namespace: str) -> None:
    one, other = (make(broker=broker.url, namespace=namespace) for _ in range(2))
    assert one.agent.run_on_loop(_is_connected)
    assert other.agent.run_on_loop(_is_connected)
    one.close()
    assert other.agent.connection.connected
    other.close()
    assert not other._peek().connection.connected  # pyright: ignore[reportPrivateUsage]
    assert one.agent.run_on_loop(_is_connected), "a later use connects again"


def test_who_uses_an_agent_while_its_last_user_closes_it_is_not_disconnected(
    make: Make, broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (make(broker=broker.url, namespace=namespace) for _ in range(2))
    agent, stops, go = one.agent, threading.Event(), threading.Event()
    assert agent.run_on_loop(_is_connected)
    stop = agent.stop_unless

    def slow_stop(*arguments: Any) -> None:
        stops.set()
        assert go.wait(10)
        stop(*arguments)

    monkeypatch.setattr(agent, "stop_unless", slow_stop)
    closing = threading.Thread(target=one.close)
    closing.start()
    assert stops.wait(10)
    using = threading.Thread(target=lambda: other.agent.run_on_loop(_is_connected))
    using.start()
    using.join(0.3)  # the user may wait for the stop, or use the agent now
    go.set()
    closing.join(10)
    using.join(10)
    monkeypatch.undo()
    assert agent.connection.connected


def test_a_requester_that_was_never_used_keeps_no_connection_open(make: Make, broker: Broker, namespace: str) -> None:
    used, unused = (make(broker=broker.url, namespace=namespace) for _ in range(2))
    assert used.agent.run_on_loop(_is_connected)
    used.close()
    assert not unused._peek().connection.connected  # pyright: ignore[reportPrivateUsage]


def test_a_requester_that_is_forgotten_does_not_count(make: Make, broker: Broker, namespace: str) -> None:
    settings = RequesterSettings(BrokerSettings(broker.url, namespace), "planner")
    forgotten = Requester(settings)
    assert forgotten.agent.run_on_loop(_is_connected)
    kept = make(broker=broker.url, namespace=namespace)
    agent = kept.agent
    del forgotten
    gc.collect()
    kept.close()
    assert not agent.connection.connected


def test_closing_and_using_again_keeps_the_identity_and_its_store(make: Make, broker: Broker, namespace: str) -> None:
    requester = make(None, broker=broker.url, namespace=namespace)
    before = requester.agent
    requester.close()
    assert requester.agent is before
