"""MQTT properties that no library would send, and that brokers deliver nevertheless.

The broker delivers an unreadable message again: at QoS 1 with the next connection, and a retained message with every
subscription. So a reader that ends its connection because of such a message would end its connection for ever.
"""

from __future__ import annotations

import pytest
from brokers import ROOMY_BROKERS, Ejabberd
from mqtt_agent import ToolClient
from mqtt_agent.errors import CallTimeout, ConnectionRefused, InvalidIdentifier
from support import soon

from .conftest import Stage
from .peer import Text, properties

RUN_ON = ROOMY_BROKERS

ODD_TEXTS: dict[str, Text] = {
    "a byte order mark": "\ufeff",
    "NUL": "a\x00b",
    "a control character": "\x01",
    "a non-character": "\uffff",
    "a surrogate": "\ud800",
    "invalid UTF-8": b"\xff\xfe",
    "overlong UTF-8": b"\xc0\x80",
    "nothing": "",
}


def odd_properties(text: Text) -> list[bytes]:
    suffix = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return [
        properties(user=[("key", text)]),
        properties(user=[(text, "value")]),
        properties(content_type=text),
        properties(response_topic=b"some/topic/" + suffix),
        properties(user=[("traceparent", text), ("traceparent", "twice"), ("tracestate", "x" * 60_000)]),
    ]


@pytest.mark.rule("HOST-11")
async def test_odd_properties_of_a_call_do_not_cost_the_connection(silent_stage: Stage) -> None:
    stage = silent_stage
    await stage.start(watch=False)
    for name, text in ODD_TEXTS.items():
        for packed in odd_properties(text):
            for payload in (stage.call(), b"null"):
                await stage.attack(stage.call_topic, payload, packed)
                await stage.attack(stage.topics.tool_cancel("echo"), payload, packed)
        await stands(stage, name)


@pytest.mark.rule("HOST-11")
async def test_odd_properties_of_an_answer_do_not_cost_the_connection(silent_stage: Stage) -> None:
    stage = silent_stage
    await stage.start(watch=False)
    for name, text in ODD_TEXTS.items():
        for packed in odd_properties(text):
            await stage.attack(stage.topics.client_responses("friend"), {"call_id": "x", "result": 1}, packed)
        await stands(stage, name)


@pytest.mark.rule("HOST-11")
async def test_odd_properties_of_a_card_do_not_cost_the_connection(silent_stage: Stage) -> None:
    stage = silent_stage
    await stage.start(watch=False)
    for name, text in ODD_TEXTS.items():
        for packed in odd_properties(text):
            await stage.attack(stage.topics.tool_card("odd"), {"tool": "odd", "server": "odd"}, packed)
            await stage.attack(stage.topics.tool_card("echo"), {"tool": "odd", "server": "odd"}, packed)
        await stands(stage, name)


@pytest.mark.rule("HOST-11")
async def test_odd_properties_of_retained_cards_do_not_lock_out_whoever_comes(silent_stage: Stage) -> None:
    stage = silent_stage
    for number, packed in enumerate(packed for text in ODD_TEXTS.values() for packed in odd_properties(text)):
        card = {"tool": f"odd-{number}", "server": "odd"}
        await stage.attack(stage.topics.tool_card(f"odd-{number}"), card, packed, retain=True)
    await stage.start(watch=False)
    await stands(stage, "retained cards")


@pytest.mark.rule("NAME-2")
async def test_a_client_s_name_is_refused_or_harmless(silent_stage: Stage) -> None:
    stage = silent_stage
    await stage.start(watch=False)
    for name in ("\ufeff", "a\ufeffb", "\u200b", "\u2028", "\U0010ffff", "名前", "é"):
        try:
            client = ToolClient(name, broker=stage.broker.url, namespace=stage.namespace)
        except InvalidIdentifier:
            continue
        try:
            async with client:
                assert await soon(client.call("echo", {"text": "fine"}, timeout=3), 4) == "fine"
        except ConnectionRefused:
            assert isinstance(stage.broker, Ejabberd), "only ejabberd is choosy about client ids"
    await stands(stage, "client names")


async def stands(stage: Stage, what: str) -> None:
    """Check that no connection broke, and that calls still work. The strange property may be logged or not."""
    try:
        for _ in range(2):
            assert await soon(stage.client.call("echo", {"text": "fine"}, timeout=2), 3) == "fine"
    except CallTimeout:
        pytest.fail(f"{what}: calls go unanswered from now on; {stage.faults()[:2]}")
    stage.check_connections()
