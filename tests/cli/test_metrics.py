"""The verb ``metrics``: read over HTTP, as Prometheus does."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Callable

import pytest
from brokers import find_program, free_port
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from .terminal import PATIENCE, Terminal

Labels = tuple[str, ...]


def scrape(url: str) -> dict[str, dict[Labels, float]]:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        text = answer.read().decode()
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def complaints(url: str) -> str:
    """What the parser of OpenMetrics and, where it is installed, Prometheus' own linter have against the metrics."""
    wanted = {"Accept": "application/openmetrics-text;version=1.0.0"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=wanted), timeout=PATIENCE) as answer:
        assert len(list(openmetrics_families(answer.read().decode()))) > 5
    if (promtool := find_program("promtool")) is None:
        return ""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        ran = subprocess.run([promtool, "check", "metrics"], input=answer.read(), capture_output=True, check=False)
    return (ran.stdout + ran.stderr).decode()


def until(url: str, holds: Callable[[dict[str, dict[Labels, float]]], bool]) -> dict[str, dict[Labels, float]]:
    deadline = time.monotonic() + PATIENCE
    while not holds(seen := scrape(url)):
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    return seen


def test_a_namespace_is_shown_to_prometheus(terminal: Terminal) -> None:
    serving = terminal.start("serve", "weather")
    serving.says("serves")
    terminal.start("serve", "writer").says("takes tasks")
    url = terminal.start("metrics", "--port", "0").says("/metrics").split()[-1]
    until(url, lambda seen: ("forecast",) in seen.get("mqtt_agent_tool_replicas", {}))
    terminal.inside("call", "forecast", "city=Oslo")
    terminal.inside("call", "broken", code=1)
    terminal.start("call", "endless").says("begun")
    terminal.inside("delegate", "writer", "cats", "--as", "planner")
    terminal.inside("delegate", "writer", "ask", "--as", "planner", code=1)
    seen = until(url, lambda seen: ("writer", "input-required") in seen.get("mqtt_agent_tasks_open", {}))
    assert seen["mqtt_agent_connected"] == {(): 1}
    assert seen["mqtt_agent_visible"] == {("cards",): 1, ("calls",): 1, ("tasks",): 1}
    assert seen["mqtt_agent_replicas"] == {("weather", "online"): 1}
    assert seen["mqtt_agent_tool_replicas"]["forecast",] == 1
    assert seen["mqtt_agent_agent_online"]["writer",] == 1
    assert seen["mqtt_agent_tool_calls_total"] == {("ok", "forecast"): 1, ("tool_error", "broken"): 1}
    assert seen["mqtt_agent_tool_call_duration_seconds_count"] == {("forecast",): 1, ("broken",): 1}
    assert seen["mqtt_agent_tool_calls_open"] == {("endless",): 1}
    assert seen["mqtt_agent_tasks_total"] == {("writer", "completed"): 1}
    assert seen["mqtt_agent_tasks_open"] == {("writer", "input-required"): 1}
    assert complaints(url) == ""
    serving.kill()
    until(url, lambda seen: seen["mqtt_agent_replicas"] == {("weather", "offline"): 1})


HOSTILE = """
import asyncio
from mqtt_agent.transport import Connection
from mqtt_agent.wire import Topics

async def main():
    topics, connection = Topics(__import__("os").environ["MQTT_AGENT_NAMESPACE"]), Connection()
    await connection.start()
    for number in range(200):
        await connection.publish(topics.tool_call(f"made-up-{number}"), b'{"call_id": "%d", "client": "x"}' % number)
        answer = b'{"call_id": "%d", "error": {"type": "e%d"}}' % (number, number)
        await connection.publish(topics.client_responses("x"), answer)
        await connection.publish(topics.inbox(f"made-up-{number}"), b'{"task_id": "%d"}' % number)
        await connection.publish(topics.results("x"), b'{"task_id": "%d", "status": "completed"}' % number)
        await connection.publish(topics.results("x"), b'{"task_id": {}, "status": [1]}')
        await connection.publish(topics.results("x"), b"[" * 5000)
    print("published", flush=True)

asyncio.run(main())
"""


@pytest.mark.long
def test_names_that_peers_make_up_make_no_series(terminal: Terminal) -> None:
    url = terminal.start("metrics", "--port", "0").says("/metrics").split()[-1]
    terminal.write("hostile.py", HOSTILE)
    terminal.program("hostile.py").says("published")
    seen = until(url, lambda seen: sum(seen.get("mqtt_agent_tasks_total", {}).values()) == 200)
    assert seen["mqtt_agent_tool_calls_total"] == {("_other", "_other"): 200}
    assert seen["mqtt_agent_tasks_total"] == {("_other", "completed"): 200}


def test_a_port_that_is_taken_is_told(terminal: Terminal) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        said = terminal.inside("metrics", "--port", str(taken.getsockname()[1]), code=2).err
    assert "choose another one with --port" in said
