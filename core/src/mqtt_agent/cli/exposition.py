"""What a listener sees of a namespace, as metrics of Prometheus. It needs the package ``prometheus_client``."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter as Sums
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mqtt_agent.cli.doctor.picture import Picture
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Topics

__all__ = ["Exposition"]

_KEPT = 10_000
"""How many open calls, and how many tasks, are remembered."""
_FORGOTTEN_AFTER = 3600.0
"""Seconds after which a call without an answer is not counted as open any more: its caller has given up."""
_READ = 1024 * 1024
_OTHER = "_other"
_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_TERMINAL = {"completed", "failed", "canceled", "rejected"}
_STATES = _TERMINAL | {"submitted", "working", "input-required", "auth-required"}
_OUTCOMES = {"tool_error", "invalid_arguments", "unauthorized", "timeout", "unavailable"}


@dataclass
class _Work:
    """A call or a task: to whom it was given, when, and its state."""

    name: str
    begun: float
    state: str = "submitted"


class Exposition(Collector):
    """Counts what a listener sees.

    The names of tools and agents become labels only while a card has the name. Otherwise anybody who may publish could
    make any number of time series.

    Args:
        topics: The topics of the namespace.
        connected: Whether the listener is connected now.

    Attributes:
        registry: The metrics.
        visible: Whether the login may read the ``cards``, the ``calls`` and the ``tasks``.
    """

    def __init__(self, topics: Topics, connected: Callable[[], bool]) -> None:
        self.registry: CollectorRegistry = CollectorRegistry()
        self.visible: dict[str, bool] = {"cards": True, "calls": True, "tasks": True}
        self._topics = topics
        self._connected = connected
        self._picture = Picture(topics)
        self._calls: OrderedDict[str, _Work] = OrderedDict()
        self._tasks: OrderedDict[str, _Work] = OrderedDict()
        made: dict[str, Any] = {"registry": self.registry}
        self._answered = Counter("mqtt_agent_tool_calls", "Answered tool calls.", ("tool", "outcome"), **made)
        self._took = Histogram(
            "mqtt_agent_tool_call_duration_seconds",
            "Time from a tool call to its answer, as this listener saw it.",
            ("tool",),
            buckets=_BUCKETS,
            **made,
        )
        self._ended = Counter("mqtt_agent_tasks", "Tasks that have ended.", ("agent", "state"), **made)
        self.registry.register(self)

    def filters(self) -> dict[str, list[str]]:
        """The topic filters to subscribe to, by what they show."""
        topics, namespace = self._topics, self._topics.namespace
        return {
            "cards": [
                topics.all_server_cards,
                topics.all_tool_cards,
                topics.all_agent_cards,
                topics.all_agent_statuses,
            ],
            "calls": [f"{namespace}/mcp/tools/+/call/#", f"{namespace}/mcp/clients/+/responses/#"],
            "tasks": [f"{namespace}/tasks/#", topics.overview_inbox("x").replace("/x/", "/+/")],
        }

    def take(self, message: InboundMessage) -> None:
        """Add a message."""
        levels = message.topic[len(self._topics.namespace) + 1 :].split("/")
        if levels[-1] in ("card", "status"):
            self._picture.take(message)
        elif len(levels) >= 3 and not message.retain and len(message.payload) <= _READ:
            with contextlib.suppress(ValueError, RecursionError):  # a hostile message: it counts nothing
                read: Any = json.loads(message.payload)
                if isinstance(read, dict):
                    self._take(levels, cast("dict[str, Any]", read))

    def _take(self, levels: list[str], data: dict[str, Any]) -> None:
        call_id, task_id = data.get("call_id"), data.get("task_id")
        if levels[0] == "mcp" and isinstance(call_id, str):
            if levels[1] == "tools":
                _keep(self._calls, call_id, levels[2])
            else:
                self._answer(call_id, data)
        elif isinstance(task_id, str) and not task_id.startswith(MARKER_PREFIX):
            self._take_task(levels, task_id, data)

    def _answer(self, call_id: str, data: dict[str, Any]) -> None:
        call = self._calls.pop(call_id, None)
        if call is None:
            return  # the call was sent before the listener came, or the answer is repeated
        error: Any = data.get("error")
        kind = cast("dict[str, Any]", error).get("type") if isinstance(error, dict) else error and _OTHER
        outcome = "ok" if not kind else kind if isinstance(kind, str) and kind in _OUTCOMES else _OTHER
        tool = self._tool(call.name)
        self._answered.labels(tool, outcome).inc()
        self._took.labels(tool).observe(time.monotonic() - call.begun)

    def _take_task(self, levels: list[str], task_id: str, data: dict[str, Any]) -> None:
        kind, state = levels[2], data.get("status")
        if kind == "inbox":
            _keep(self._tasks, task_id, levels[1])
        task = self._tasks.get(task_id)
        if task is None or task.state in _TERMINAL or kind not in ("events", "results", "result"):
            return
        if not isinstance(state, str) or state not in _STATES or (state in _TERMINAL and kind == "events"):
            return  # the result ends a task, and the last event only announces the result
        task.state = state
        if state in _TERMINAL:
            self._ended.labels(self._agent(task.name), state).inc()

    def _tool(self, name: str) -> str:
        return name if name in self._picture.tools else _OTHER

    def _agent(self, name: str) -> str:
        return name if name in self._picture.agents or name in self._picture.statuses else _OTHER

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The present numbers. The HTTP server calls this in a thread of its own."""
        picture, since = self._picture, time.monotonic() - _FORGOTTEN_AFTER
        servers, online = list(picture.servers.values()), picture.online_servers()
        replicas: Sums[tuple[str, ...]] = Sums()
        for each in servers:
            status = "standby" if each.standby else "online" if each in online else "offline"
            replicas[each.shared_name, status] += 1
        serving = Sums((tool,) for each in online for tool in each.tools)
        names = {*picture.agents, *picture.statuses}
        calls = Sums((self._tool(each.name),) for each in list(self._calls.values()) if each.begun > since)
        tasks = Sums(
            (self._agent(each.name), each.state) for each in list(self._tasks.values()) if each.state not in _TERMINAL
        )
        yield _gauge("mqtt_agent_connected", "Whether this listener is connected.", {(): int(self._connected())})
        seen = {(part,): int(sees) for part, sees in self.visible.items()}
        yield _gauge("mqtt_agent_visible", "Whether the login of this listener may read a part.", seen, "part")
        yield _gauge("mqtt_agent_replicas", "Replicas of tool servers.", replicas, "server", "status")
        up = {(tool,): serving[(tool,)] for tool in list(picture.tools)}
        yield _gauge("mqtt_agent_tool_replicas", "Online replicas that serve a tool.", up, "tool")
        here = {(name,): int(picture.is_online(name)) for name in names}
        yield _gauge("mqtt_agent_agent_online", "Whether an agent is online.", here, "agent")
        yield _gauge("mqtt_agent_tool_calls_open", "Tool calls without an answer yet.", calls, "tool")
        yield _gauge("mqtt_agent_tasks_open", "Tasks without a result yet.", tasks, "agent", "state")


def _gauge(name: str, about: str, values: dict[Any, int], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=labels)
    for key, value in values.items():
        family.add_metric([str(each) for each in key], value)
    return family


def _keep(where: OrderedDict[str, _Work], key: str, name: str) -> None:
    if key not in where:
        where[key] = _Work(name, time.monotonic())
        if len(where) > _KEPT:
            where.popitem(last=False)
