"""Names for language models: each is made from the tool's own name, and from nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent.adapting.naming import model_name, plain, prefixed_name

SIMILAR = st.text(st.sampled_from("ab_-. Ä天"), min_size=1, max_size=6)
LONG = st.text(st.sampled_from("a."), min_size=60, max_size=80)


@pytest.mark.parametrize("name", ["search", "db_clear", "Get-Forecast2", "_", "x" * 64])
def test_a_name_that_models_accept_stays(name: str) -> None:
    assert model_name(name) == name


@pytest.mark.parametrize("name", ["db.clear", "天气", "größe", "a b", "x" * 65, "...", "", "\ud800"])
def test_any_other_name_becomes_one_that_models_accept(name: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", model_name(name))
    assert model_name(name) != plain(name)


def test_a_name_made_by_hand_cannot_stand_for_another_tool() -> None:
    made = model_name("db.clear")
    assert made.startswith("db_clear_x")
    assert model_name(made) != made


@given(st.lists(st.one_of(SIMILAR, LONG, st.text(min_size=1)), unique=True))
def test_two_tools_never_have_one_name(names: list[str]) -> None:
    assert len({model_name(name) for name in names}) == len(names)
    lowered = {model_name(name, lambda text: plain(text).lower()) for name in names}
    assert len(lowered) == len(names)


@given(st.lists(st.tuples(SIMILAR, SIMILAR), unique=True))
def test_two_tools_of_two_servers_never_have_one_name(tools: list[tuple[str, str]]) -> None:
    assert len({prefixed_name(server, tool) for server, tool in tools}) == len(tools)


def test_a_prefix_is_readable() -> None:
    assert prefixed_name("github", "search") == "github_search"
