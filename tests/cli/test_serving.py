"""The options of ``mqtt-agent serve``: which of them apply to what is served, and what the command advises."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent import Agent, MemoryStore
from mqtt_agent.cli import serving
from mqtt_agent.cli.applying import ServeOptions
from mqtt_agent.cli.output import Output
from mqtt_agent.cli.settings import Settings, UsageError
from mqtt_agent.cli.verbs import Session
from mqtt_agent.errors import BrokerUnreachable, SessionTakenOver

from .terminal import Terminal


class Graph:
    """What a framework makes."""


def make_graph() -> Graph:
    return Graph()


def build():  # type: ignore[no-untyped-def]
    return Graph()


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return Session(Settings.of({"as_": None, "broker": "mqtt://localhost:1"}), Output())


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An adapter that serves a ``Graph`` as an agent. The value has the arguments that it got."""
    got: dict[str, Any] = {}

    class Entry:
        name = "graphs"

        def load(self) -> Any:
            def make(found: Any, *, name: str, **options: Any) -> Agent:
                got.update(options, name=name)
                return Agent(name, **options)

            return make

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **which: [Entry()])
    return got


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("weather", "--store", "x.db"), "--store does not apply to weather: it is served as a tool"),
        (("weather:forecast", "--description", "x"), "--description does not apply to weather:forecast"),
        (("weather", "--pool", "--capability", "rain"), "--capability and --pool do not apply to weather"),
        (("weather", "--max-attempts", "2"), "such as '-> Crew'"),
        (("writer", "--as", "bob"), "--as does not apply to writer: the module has made this server or agent"),
        (("writer", "--store", "x.db", "--read-only"), "--read-only and --store do not apply to writer"),
        (("writer", "--namespace", "other"), "--namespace does not apply to writer"),
        (("writer", "--user", "bob", "--password-file", "weather.py"), "--password-file and --user do not apply"),
        (("weather.forecast",), "did you mean 'weather:forecast'?"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(terminal: Terminal, words: tuple[str, ...], says: str) -> None:
    assert says in terminal.inside("serve", *words, code=2).err


def test_the_options_of_an_agent_reach_the_adapter(session: Session, adapter: dict[str, Any], tmp_path: Path) -> None:
    own = ServeOptions(
        description="Draws.",
        capabilities=("draw",),
        store=str(tmp_path / "tasks.db"),
        max_attempts=3,
        max_concurrency=2,
    )
    agent = serving._endpoint(session, "graphs", make_graph, "graphs:make_graph", own)
    assert isinstance(agent, Agent)
    expected = {"description": "Draws.", "capabilities": ("draw",), "max_attempts": 3, "max_concurrency": 2}
    assert adapter.items() >= {**expected, "store": str(tmp_path / "tasks.db"), "name": "graphs"}.items()


def test_the_only_function_of_a_module_may_make_what_an_adapter_serves(
    session: Session, adapter: dict[str, Any]
) -> None:
    serving._endpoint(session, "graphs", [make_graph], "graphs", ServeOptions())
    assert adapter["name"] == "graphs"


@pytest.mark.parametrize("own", [ServeOptions(replica="a"), ServeOptions(read_only=True)])
def test_an_option_that_an_adapter_does_not_know_is_refused(
    session: Session, adapter: dict[str, Any], own: ServeOptions
) -> None:
    with pytest.raises(UsageError, match=r"--\S+ does not apply to graphs:make_graph"):
        serving._endpoint(session, "graphs", make_graph, "graphs:make_graph", own)


@pytest.mark.parametrize("store", [None, "tasks.db"])
def test_a_pool_without_a_store_for_several_processes_is_told_which_option_it_needs(
    session: Session, adapter: dict[str, Any], store: str | None
) -> None:
    with pytest.raises(UsageError, match="--pool needs .*: --store postgresql://"):
        serving._endpoint(session, "graphs", make_graph, "graphs:make_graph", ServeOptions(pool=True, store=store))


def test_a_function_that_may_make_a_crew_is_served_as_a_tool_with_a_note(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(session.settings, Output())
    serving._endpoint(session, "graphs", build, "graphs:build", ServeOptions())
    assert "build is served as a tool. If it makes a crew" in capsys.readouterr().err


def test_plain_functions_are_served_under_the_name_of_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    session = Session(Settings.of({"as": "rain", "broker": "mqtt://localhost:1"}), Output())
    server = serving._endpoint(session, "weather", [len], "weather", ServeOptions(replica="a"))
    assert getattr(server, "server_id", None) == "rain:a"


@pytest.mark.parametrize(
    ("found", "advised", "not_advised"),
    [
        (Agent("a", store=MemoryStore()), "write another name into the module", "--as"),
        (make_graph, "--as NAME", "--replica"),
        ([len], "--replica NAME", "--as"),
    ],
)
def test_what_to_do_about_a_taken_name_fits_what_is_served(
    session: Session,
    adapter: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    found: Any,
    advised: str,
    not_advised: str,
) -> None:
    session = Session(session.settings, Output())
    assert serving._endpoint(session, "module", found, "module", ServeOptions()) is not None
    session.out.error(SessionTakenOver("the name is taken"), session.settings)
    said = capsys.readouterr().err
    assert advised in said
    assert not_advised not in said


@pytest.mark.parametrize(
    ("why", "advised"),
    [
        (
            "the certificate was not accepted (x); name the certificate authority with tls=TLS(ca=...)",
            "--ca FILE",
        ),
        (
            "TLS failed (EOF); this port may need another scheme: mqtt://, mqtts:// or ws://",
            "correct the scheme",
        ),
        ("the server asks for a client certificate; give tls=TLS(certificate=..., key=...)", "--certificate FILE"),
        ("no program listens at this port", "mqtt-agent broker"),
    ],
)
def test_what_to_do_about_a_broker_fits_why_it_cannot_be_used(
    session: Session, capsys: pytest.CaptureFixture[str], why: str, advised: str
) -> None:
    out = Output()
    assert out.error(BrokerUnreachable(f"no MQTT broker answers at mqtts://x: {why}"), session.settings) == 3
    said = capsys.readouterr().err
    assert advised in said
    assert "TLS(" not in said
    assert said.count("Next:") == 1
