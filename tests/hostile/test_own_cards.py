"""How a tool server reacts when another client overwrites its cards."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from brokers import ROOMY_BROKERS
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.wire import ServerCard, ToolCard
from support import soon, until

from .conftest import Stage
from .payloads import NO_JSON_OBJECT

RUN_ON = ROOMY_BROKERS

TOO_LARGE = json.dumps({"tool": "echo", "server": "honest", "description": "x" * 1_100_000}).encode()


def latest(stage: Stage, topic: str) -> dict[str, Any]:
    """The retained card on the broker."""
    return json.loads(stage.messages(topic)[-1].payload)


async def put_right(stage: Stage, topic: str, expected: dict[str, Any]) -> None:
    """Wait until the card again has the content that the server published first."""

    def is_right() -> bool:
        with contextlib.suppress(ValueError, TypeError):
            card = latest(stage, topic)
            return card == {**expected, "last_seen": card["last_seen"]}
        return False

    await stage.settle()
    try:
        await until(is_right, 3)
    except asyncio.TimeoutError:
        pytest.fail(f"the card stays as the stranger wrote it: {latest(stage, topic)} instead of {expected}")


@pytest.mark.rule("PRES-9")
async def test_an_unreadable_server_card_is_put_right_and_told_once(stage: Stage) -> None:
    topic = stage.topics.server_card(stage.server.server_id)
    before = latest(stage, stage.topics.server_card(stage.server.server_id))
    for payload, _ in [*NO_JSON_OBJECT.values(), (b'{"server": 5}', "server"), (TOO_LARGE, "limit")]:
        await stage.attack(topic, payload, retain=True)
    await put_right(stage, topic, before)
    await stage.settle()
    ours = [fault for fault in stage.faults() if topic in fault]
    assert len(ours) == 2, f"the server and the client tell it, once each; told: {ours}"
    await stage.check((topic, "unreadable"), (topic, "unreadable"))


@pytest.mark.rule("PRES-9")
async def test_an_unreadable_tool_card_is_put_right_and_told_once(stage: Stage) -> None:
    topic = stage.topics.tool_card("echo")
    before = latest(stage, topic)
    for payload, _ in [*NO_JSON_OBJECT.values(), (b'{"tool": 5}', "tool"), (TOO_LARGE, "limit")]:
        await stage.attack(topic, payload, retain=True)
    await put_right(stage, topic, before)
    await stage.settle()
    ours = [fault for fault in stage.faults() if topic in fault]
    assert len(ours) == 2, f"the server and the client tell it, once each; told: {ours}"
    await stage.check((topic, "unreadable"), (topic, "unreadable"))


@pytest.mark.rule("PRES-9")
async def test_cards_that_were_removed_or_set_offline_are_put_right(stage: Stage) -> None:
    server_topic, tool_topic = stage.topics.server_card(stage.server.server_id), stage.topics.tool_card("echo")
    server_before, tool_before = latest(stage, server_topic), latest(stage, tool_topic)
    for _ in range(3):
        await stage.attack(server_topic, b"", retain=True)
        await stage.attack(tool_topic, b"", retain=True)
        await stage.attack(server_topic, {**server_before, "status": "offline"}, retain=True)
        await stage.attack(tool_topic, {**tool_before, "status": "offline"}, retain=True)
    await put_right(stage, server_topic, server_before)
    await put_right(stage, tool_topic, tool_before)
    await stage.check((server_topic, "a card that this server did not write"))


@pytest.mark.rule("PRES-9")
@pytest.mark.parametrize("change", ["server", "tools", "started", "epoch"])
async def test_a_server_card_with_something_else_on_it_is_put_right(change: str, stage: Stage) -> None:
    topic = stage.topics.server_card(stage.server.server_id)
    before = latest(stage, stage.topics.server_card(stage.server.server_id))
    other = {"server": "other", "tools": ["nothing"], "started": "9999-01-01T00:00:00.000Z", "epoch": 10**9}
    await stage.attack(topic, {**before, change: other[change]}, retain=True)
    await put_right(stage, topic, before)


@pytest.mark.rule("PRES-9")
async def test_a_tool_card_for_another_name_is_put_right(stage: Stage) -> None:
    topic = stage.topics.tool_card("echo")
    before = latest(stage, topic)
    await stage.attack(topic, {**before, "tool": "other"}, retain=True)
    await put_right(stage, topic, before)


async def test_a_small_limit_for_calls_does_not_make_a_server_fight_its_own_cards(silent_stage: Stage) -> None:
    stage = silent_stage
    stage.watcher = await stage.new_peer()
    await stage.watcher.subscribe(f"{stage.namespace}/#")
    server = ToolServer("small", broker=stage.broker.url, namespace=stage.namespace, max_payload=100)
    server.add_tool("tiny", lambda: 1)
    async with server, ToolClient(broker=stage.broker.url, namespace=stage.namespace) as client:
        for _ in range(20):
            assert len(await soon(client.list_tools())) == 1
            await stage.watcher.barrier(f"{stage.namespace}/barrier")
        topics = (stage.topics.tool_card("tiny"), stage.topics.server_card(server.server_id))
        for topic, model in zip(topics, (ToolCard, ServerCard), strict=True):
            published = len(stage.messages(topic))
            electing = 0 if stage.broker.shared_subscriptions else 2
            assert published < 3 + electing, f"{published} times in a moment: {model.__name__}"
