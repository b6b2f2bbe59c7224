"""The default path of an agent's store."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from mqtt_agent.agents.store import SqliteStore, default_store_path
from mqtt_agent.agents.store.choosing import store_at
from mqtt_agent.errors import InvalidIdentifier
from mqtt_agent.wire.identifiers import is_identifier

IDENTIFIERS = st.text(min_size=1, max_size=80).filter(is_identifier)


def test_it_is_a_file_in_the_users_state_directory_that_tells_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    path = default_store_path("a2a/v1", "writer")
    assert path.is_absolute()
    assert path.suffix == ".db"
    assert path.name.startswith("a2a-v1-writer-")
    assert path.parent.name == "mqtt-agent"


def test_it_is_always_the_same() -> None:
    assert default_store_path("a2a/v1", "writer") == default_store_path("/a2a/v1/", "writer")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a2a/v1", "writer"), ("a2a/v1", "Writer")),
        (("a/b", "c"), ("a", "b-c")),
        (("a2a/v1", "é"), ("a2a/v1", "e\u0301")),
        (("a2a/v1", "x" * 200), ("a2a/v1", "x" * 201)),
        (("a2a/v1", "a.b"), ("a2a/v1", "a:b")),
    ],
)
def test_names_that_look_alike_have_files_of_their_own(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert str(default_store_path(*one)).casefold() != str(default_store_path(*other)).casefold()


@given(IDENTIFIERS, IDENTIFIERS, IDENTIFIERS)
def test_any_two_agents_have_files_of_their_own_with_safe_names(namespace: str, one: str, other: str) -> None:
    assume(one != other)
    paths = [default_store_path(namespace, agent_id) for agent_id in (one, other)]
    assert paths[0] != paths[1]
    for path in paths:
        assert path.parent == default_store_path("a2a/v1", "writer").parent
        assert path.name.isascii()
        assert len(path.name) < 150


@pytest.mark.parametrize(("namespace", "agent_id"), [("a2a/v1", "a/b"), ("a2a/v1", ""), ("a//b", "c"), ("a/#", "c")])
def test_names_that_cannot_be_topics_are_refused(namespace: str, agent_id: str) -> None:
    with pytest.raises(InvalidIdentifier):
        default_store_path(namespace, agent_id)


async def test_a_store_can_be_made_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    async with SqliteStore(default_store_path("a2a/v1", "grüße 🐙")) as store:
        assert store.path.exists()


@pytest.mark.parametrize("place", ["mysql://me@host/tasks", "sqlite:///tasks.db", "postgresql+asyncpg://host/tasks"])
def test_a_url_of_another_kind_is_not_taken_for_a_path(place: str) -> None:
    with pytest.raises(ValueError, match=r"a URL postgresql://USER@HOST/DATABASE, and not a URL") as raised:
        store_at(place)
    assert "me@host" not in str(raised.value)  # a URL may have a password
