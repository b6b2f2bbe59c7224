"""The command-line options that all adapters share."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from mqtt_agent.cli.options import add_agent_options, load


def test_what_is_served_is_found_also_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served_from_here.py").write_text("class Crews:\n    report = 'a crew'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [])
    assert load("served_from_here:Crews.report") == "a crew"


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("json", ValueError, "module:name"),
        (":loads", ValueError, "module:name"),
        ("json:", ValueError, "module:name"),
        ("json:graph", ValueError, "module json has no graph"),
        ("json:decoder.graph", ValueError, "module json has no decoder.graph"),
        ("no_such_module:graph", ImportError, "No module named 'no_such_module'"),
    ],
)
def test_what_is_not_there_is_said(
    target: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(error, match=message):
        load(target)


def test_the_options_are_named_as_an_agents_arguments() -> None:
    parser = argparse.ArgumentParser()
    add_agent_options(parser)
    options = vars(parser.parse_args(["--agent-id", "writer", "--capability", "prose", "--capability", "verse"]))
    assert options == {
        "agent_id": "writer",
        "broker": None,
        "namespace": "a2a/v1",
        "description": "",
        "capabilities": ["prose", "verse"],
        "store": None,
        "max_attempts": None,
    }
