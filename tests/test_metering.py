"""Metrics, read with the SDK's own reader in a process of its own: a meter provider cannot be taken back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent.metering import Durations

PROGRAM = Path(__file__).parent / "programs" / "metered.py"
MCP = {
    "mcp.method.name": "tools/call",
    "gen_ai.operation.name": "execute_tool",
    "network.protocol.name": "mqtt",
    "network.protocol.version": "5",
}

Points = list[dict[str, Any]]


def run(*words: str) -> list[dict[str, Points]]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def measured() -> list[dict[str, Points]]:
    return run("provider")


def by(points: Points, *keys: str) -> dict[tuple[str | None, ...], int]:
    return {tuple(each["attributes"].get(key) for key in keys): each["value"] for each in points}


@pytest.mark.parametrize("side", ["client", "server"])
def test_calls_are_timed_on_both_sides_by_tool_and_error(side: str, measured: list[dict[str, Points]]) -> None:
    points = measured[0][f"mcp.{side}.operation.duration"]
    expected = {("forecast", None): 3, ("broken", "tool_error"): 1}
    if side == "client":
        expected["nobody_has_it", "unavailable"] = 1
    assert by(points, "gen_ai.tool.name", "error.type") == expected
    for point in points:
        assert {**MCP, **point["attributes"]} == point["attributes"]
        assert point["unit"] == "s"
        assert 0 < point["sum"] < 30
        assert point["bounds"][:2] == [0.01, 0.02]


def test_tasks_are_timed_at_the_agent_and_at_the_requester(measured: list[dict[str, Points]]) -> None:
    for name in ("messaging.process.duration", "mqtt_agent.task.duration"):
        points = measured[0][name]
        assert by(points, "gen_ai.agent.name", "error.type") == {("writer", None): 1, ("writer", "failed"): 1}
        assert {each["attributes"]["messaging.system"] for each in points} == {"mqtt"}


def test_the_lengths_of_the_queues_are_read_when_somebody_collects(measured: list[dict[str, Points]]) -> None:
    calls, tasks = measured[0]["mqtt_agent.server.calls"], measured[0]["mqtt_agent.agent.tasks"]
    key = "mqtt_agent.state"
    assert by(calls, "mqtt_agent.server", key) == {("weather", "running"): 1, ("weather", "waiting"): 2}
    waiting = by(tasks, "gen_ai.agent.name", key)
    assert (waiting["writer", "running"], waiting["writer", "waiting"]) == (1, 2)
    assert set(by(measured[0]["mqtt_agent.outbox.messages"], key)) == {("waiting",), ("unconfirmed",)}
    over = by(measured[1]["mqtt_agent.server.calls"], "mqtt_agent.server", key)
    assert over == {("weather", "running"): 0, ("weather", "waiting"): 0}


def test_reconnects_are_counted(measured: list[dict[str, Points]]) -> None:
    assert "mqtt_agent.connection.reconnects" not in measured[0]
    [point] = measured[1]["mqtt_agent.connection.reconnects"]
    assert point["attributes"]["mqtt_agent.reason"] == "connection_lost"
    assert point["value"] >= 1


@pytest.mark.long
def test_without_a_provider_nothing_is_measured_and_everything_works() -> None:
    assert run("no provider") == [{}, {}]


def test_made_up_names_do_not_make_endless_series() -> None:
    durations = Durations("test.duration", "A test.", "gen_ai.tool.name", {})
    seen: set[str] = set()

    class Instrument:
        def record(self, seconds: float, attributes: dict[str, str]) -> None:
            seen.add(attributes["gen_ai.tool.name"])

    durations._instrument = Instrument()
    for number in range(5000):
        durations.record(1.0, f"tool-{number}")
    assert len(seen) == 1001
    assert "_OTHER" in seen
