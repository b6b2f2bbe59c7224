"""Thousands of random messages, on every topic to which an endpoint is subscribed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import ROOMY_BROKERS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mqtt_agent.errors import ToolUnavailable
from support import soon

from .conftest import Stage
from .payloads import fuzzed
from .peer import properties

RUN_ON = ROOMY_BROKERS

Bad = tuple[str, bytes, int]

text = st.text(max_size=12)
odd_text = st.sampled_from(["", "a/b", "#", "+", "$SYS", "\x00", "peer", "friend", "echo", "streaming", "x" * 300])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text | odd_text
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v, max_size=3), max_leaves=5)

TEMPLATES: list[dict[str, Any]] = [
    {"call_id": "c", "client": "peer", "arguments": {"text": "hi"}, "timestamp": "t", "stream": True},
    {"call_id": "c", "client": "friend", "reason": "no"},
    {"call_id": "streaming", "status": "ok", "result": 1, "elapsed_ms": 1.5, "server": "s", "seq": 3, "content": []},
    {"call_id": "c", "status": "error", "error": {"type": "timeout", "message": "m", "code": "c", "data": 1}},
    {"call_id": "streaming", "seq": 1, "type": "partial", "content": "x", "data": {"progress": 1}},
    {"version": "1", "tool": "fuzz", "server": "fuzz", "input_schema": {}, "status": "online", "features": ["cancel"]},
    {"version": "1", "tool": "echo", "server": "honest", "input_schema": {}, "status": "offline", "annotations": {}},
    {"version": "1", "server": "fuzz", "tools": ["fuzz", "echo"], "status": "online", "epoch": 1, "started": "s"},
    {"version": "1", "server": "fuzz", "tools": ["echo"], "status": "offline", "epoch": 2, "started": "s"},
]


payloads = fuzzed(TEMPLATES, values)
TOPICS = [
    "mcp/tools/echo/call",
    "mcp/tools/chatter/call",
    "mcp/tools/echo/cancel",
    "mcp/tools/wait/cancel",
    "mcp/tools/echo/card",
    "mcp/tools/fuzz/card",
    "mcp/tools//card",
    "mcp/servers/OWN/card",
    "mcp/servers/fuzz/card",
    "mcp/clients/friend/responses",
    "mcp/tools/wait/stream/streaming",
]
PROPERTIES = 6


def packed(stage: Stage, number: int) -> bytes:
    return [
        b"",
        properties(response_topic=stage.inbox, correlation=b"c"),
        properties(response_topic=stage.inbox, correlation=b"\xff" * 1000, expiry=60),
        properties(response_topic=f"{stage.namespace}/elsewhere", user=[("a", "b")] * 50),
        properties(response_topic=stage.topics.client_responses("friend"), correlation=b"streaming"),
        properties(content_type="image/png", expiry=60),
    ][number]


messages: st.SearchStrategy[list[Bad]] = st.lists(
    st.tuples(st.sampled_from(TOPICS), payloads, st.integers(0, PROPERTIES - 1)), min_size=60, max_size=120
)


@pytest.mark.rule("HOST-1")
@settings(
    max_examples=25,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # the endpoints keep state between examples, so shrinking is not possible
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
@given(batch=messages)
async def test_thousands_of_random_messages_do_no_harm(batch: list[Bad], stage: Stage) -> None:
    streaming = asyncio.ensure_future(
        stage.client.call("wait", on_partial=lambda partial: None, call_id="streaming", wait_online=True)
    )
    own = stage.server.server_id
    sent = [
        (f"{stage.namespace}/{topic.replace('OWN', own)}", payload, packed(stage, number))
        for topic, payload, number in batch
    ]
    try:
        await stage.attack_often(sent)
        assert await soon(ordinary_call(stage)) == "fine"
    finally:
        streaming.cancel()
        await asyncio.gather(streaming, return_exceptions=True)
    stage.check_connections()
    assert stage.errors() == []
    inboxes = f"{stage.namespace}/mcp/clients/"
    strays = {topic for topic in stage.strays() if not topic.startswith(inboxes)}
    assert {topic for topic in strays if "/stream/" not in topic} == set()


async def ordinary_call(stage: Stage) -> Any:
    """Until the server corrects it, a forged card may say that the server has ended together with the call."""
    while True:
        try:
            return await stage.client.call("echo", {"text": "fine"}, timeout=5, wait_online=True)
        except ToolUnavailable as error:
            if not error.maybe_executed:
                raise
