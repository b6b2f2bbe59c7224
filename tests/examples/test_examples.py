"""The examples, started as a reader starts them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import Broker, Embedded

LONG_ON = [Embedded]
EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_replicas_are_restarted_under_load(broker: Broker) -> None:
    *_, last = run("replicas", "--replicas", "2", "--callers", "4", "--broker", broker.url)
    calls = re.fullmatch(r"(\d+) calls, answered by (\d) processes; 0 failed", last)
    assert calls, last
    assert int(calls[1]) > 20
    assert calls[2] == "4", "each of the two, and each of those that took their places"


def test_a_long_task_survives_a_sigkill(broker: Broker) -> None:
    lines = run("long_task", "--pages", "6", "--broker", broker.url)
    assert re.fullmatch(r"task \w+ is on disk", lines[0])
    assert re.fullmatch(r"process \d+ was killed", lines[1])
    assert any("(attempt 2)" in line for line in lines)
    assert lines[-1] == "{'pages': 6, 'processes': 2, 'attempt': 2}"


@pytest.mark.long
def test_agents_over_mqtt_and_over_http_work_together_while_the_gateway_is_killed() -> None:
    lines = run("a2a")
    assert re.fullmatch(r"the gateway, process \d+, was killed", lines[1])
    assert [line for line in lines if not line.startswith(("the gateway", "TASK_STATE_WORKING"))] == [
        "TASK_STATE_INPUT_REQUIRED: Since which year?",
        "the client of A2A gets: octopuses since 2020: three pages, for a2a-gateway",
        "the planner is asked: Since which year?",
        "the planner gets: squids since 2024: three pages, for a2a-gateway",
    ]


@pytest.mark.parametrize("name", ["replicas", "long_task"])
def test_it_brings_a_broker_of_its_own_and_says_what_it_does(name: str) -> None:
    assert any("--broker" in line for line in run(name, "--help"))
