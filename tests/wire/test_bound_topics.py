"""Sender-bound topics have the name of their writer, and the name can be read back."""

from __future__ import annotations

import pytest
from mqtt_agent.errors import InvalidIdentifier
from mqtt_agent.wire import Topics

bound = Topics("a2a/v1").bound


@pytest.mark.parametrize(
    ("topic", "filter_", "writer"),
    [
        (bound.call("forecast", "agent-a"), "a2a/v1/mcp/tools/forecast/call/+", "agent-a"),
        (bound.cancel("forecast", "agent-a"), bound.cancel("forecast"), "agent-a"),
        (bound.query("weather:1", "agent-a"), bound.query("weather:1"), "agent-a"),
        (bound.responses("agent-a", "weather:1"), bound.responses("agent-a"), "weather:1"),
        (bound.stream("agent-a", "call-1", "weather:1"), bound.stream("agent-a", "call-1"), "weather:1"),
        (bound.inbox("agent-b", "agent-a"), bound.inbox("agent-b"), "agent-a"),
        (bound.control("agent-b", "agent-a"), bound.control("agent-b"), "agent-a"),
        (bound.results("agent-a", "agent-b"), bound.results("agent-a"), "agent-b"),
        (bound.events("agent-a", "task-1", "agent-b"), bound.events("agent-a", "task-1"), "agent-b"),
    ],
)
def test_a_sender_bound_topic_names_its_writer_where_its_filter_has_a_wildcard(
    topic: str, filter_: str, writer: str
) -> None:
    assert bound.writer(topic) == writer
    levels = zip(topic.split("/"), filter_.split("/"), strict=True)
    assert [level for level, pattern in levels if pattern == "+"] == [writer]
    assert bound.writer(filter_) is None, "a filter has no writer"


@pytest.mark.parametrize(
    "topic",
    [
        "a2a/v1/mcp/tools/forecast/call",
        "a2a/v1/mcp/tools/forecast/stream/call-1",
        "a2a/v1/mcp/clients/agent-a/responses",
        "a2a/v1/tasks/agent-b/inbox",
        "a2a/v1/tasks/agent-b/inbox/agent-a/more",
        "a2a/v1/tasks/agent-b/inbox/",
        "a2a/v1/agents/agent-b/card",
        "other/tasks/agent-b/inbox/agent-a",
    ],
)
def test_a_plain_topic_has_no_writer(topic: str) -> None:
    assert bound.writer(topic) is None


def test_a_name_with_a_wildcard_never_becomes_part_of_a_sender_bound_topic() -> None:
    with pytest.raises(InvalidIdentifier):
        bound.inbox("agent-b", "+")
    with pytest.raises(InvalidIdentifier):
        bound.responses("#", "weather:1")
