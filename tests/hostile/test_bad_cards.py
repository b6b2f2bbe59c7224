"""How a tool client and the LangChain toolkit treat invalid cards."""

from __future__ import annotations

from typing import Any

import pytest
from brokers import ROOMY_BROKERS
from mqtt_agent.errors import ToolUnavailable
from support import soon

from .conftest import FakeServer, Stage
from .payloads import NO_JSON_OBJECT

RUN_ON = ROOMY_BROKERS

HONEST = ["chatter", "echo", "wait"]

TOO_LARGE = b'{"tool": "fake", "server": "fake", "description": "' + b"x" * (256 * 1024) + b'"}'

BAD_SCHEMAS: dict[str, dict[str, Any]] = {
    "empty": {},
    "unknown type": {"type": "no such type"},
    "no object": {"type": "array", "items": {"type": "string"}},
    "type is a number": {"type": 5},
    "properties is a number": {"type": "object", "properties": 5},
    "properties is null": {"type": "object", "properties": None},
    "property is a string": {"type": "object", "properties": {"a": "string"}},
    "required is a string": {"type": "object", "properties": {"a": {}}, "required": "a"},
    "reference to the network": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}},
    "reference to a file": {"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}},
    "reference to nothing": {"type": "object", "properties": {"a": {"$ref": "#/$defs/nothing"}}},
    "reference to itself": {"$ref": "#"},
    "recursive": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}},
    },
    "endless": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "huge pattern": {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a+)+" * 10_000}}},
    "bad pattern": {"type": "object", "properties": {"a": {"type": "string", "pattern": "(["}}},
    "unknown dialect": {"$schema": "http://127.0.0.1:9/dialect", "type": "object"},
    "odd names": {"type": "object", "properties": {"": {}, "self": {}, "a b": {}, "\x00": {}, "mqtt_runtime": {}}},
}


async def listed(stage: Stage, online_only: bool = True) -> list[str]:
    return [card.tool for card in await soon(stage.client.list_tools(online_only=online_only))]


@pytest.mark.rule("HOST-1", "HOST-2", "HOST-8", "LIMIT-3")
async def test_what_is_no_tool_card_is_left_out_and_told_once(stage: Stage) -> None:
    bad = {
        **NO_JSON_OBJECT,
        "over the limit": (TOO_LARGE, "limit"),
        "no tool": (b'{"server": "fake"}', "tool"),
        "no server": (b'{"tool": "bad"}', "server"),
        "schema is a list": (b'{"tool": "bad", "server": "fake", "input_schema": []}', "input_schema"),
        "unknown status": (b'{"tool": "bad", "server": "fake", "status": "dancing"}', "status"),
        "features is text": (b'{"tool": "bad", "server": "fake", "features": "all"}', "features"),
    }
    topic = stage.topics.tool_card("bad")
    for payload, _ in bad.values():
        await stage.attack(topic, payload, retain=True)
    await stage.check((topic, "an unreadable card"))
    stage.check_each_was_told(topic, [reason for _, reason in bad.values()])
    assert await listed(stage, online_only=False) == HONEST
    assert await soon(stage.client.get_tool("bad")) is None


@pytest.mark.rule("HOST-1", "HOST-2", "HOST-8", "LIMIT-3")
async def test_what_is_no_server_card_is_left_out_and_told_once(stage: Stage) -> None:
    bad = {
        **NO_JSON_OBJECT,
        "over the limit": (b'{"server": "bad", "tools": ["' + b"x" * (256 * 1024) + b'"]}', "limit"),
        "no server": (b'{"tools": ["echo"]}', "server"),
        "tools is text": (b'{"server": "bad", "tools": "echo"}', "tools"),
        "tools holds numbers": (b'{"server": "bad", "tools": [1, 2]}', "tools"),
        "unknown status": (b'{"server": "bad", "tools": ["echo"], "status": "dancing"}', "status"),
    }
    topic = stage.topics.server_card("bad")
    for payload, _ in bad.values():
        await stage.attack(topic, payload, retain=True)
    await stage.check((topic, "an unreadable card"))
    stage.check_each_was_told(topic, [reason for _, reason in bad.values()])
    assert [card.server for card in await soon(stage.client.list_servers())] == [stage.server.server_id]


@pytest.mark.rule("HOST-8")
async def test_a_card_that_turns_bad_leaves_the_good_one_before(fake: FakeServer) -> None:
    topic = fake.stage.topics.tool_card("fake")
    for payload in (b"null", TOO_LARGE, b'{"tool": "other", "server": "fake"}'):
        await fake.stage.attack(topic, payload, retain=True)
    await fake.stage.check((topic, "object"), (topic, "another name"))
    assert await listed(fake.stage) == ["chatter", "echo", "fake", "wait"]


@pytest.mark.rule("HOST-2", "HOST-8")
async def test_a_card_whose_name_is_not_its_topic_s_is_told_once(stage: Stage) -> None:
    tool_topic, server_topic = stage.topics.tool_card("bad"), stage.topics.server_card("bad")
    for name in ("echo", "", "Bad", "bad/x", "#", "bad\n2026-01-01 CRITICAL a line of its own"):
        await stage.attack(tool_topic, {"tool": name, "server": "bad", "description": "trust me"}, retain=True)
        await stage.attack(server_topic, {"server": name, "tools": ["echo", "bad"]}, retain=True)
    await stage.attack(server_topic, {"server": stage.server.server_id, "tools": [], "status": "offline"}, retain=True)
    await stage.settle()
    assert len(stage.told(tool_topic)) == 6
    assert len(stage.told(server_topic)) == 7
    for fault in stage.told(tool_topic) + stage.told(server_topic):
        assert fault.isprintable(), "a peer must not write lines of its own into our log"
    await stage.check((tool_topic, "another name"), (server_topic, "another name"))
    assert await listed(stage, online_only=False) == HONEST
    card = await soon(stage.client.get_tool("echo"))
    assert card is not None
    assert card.description == ""


@pytest.mark.rule("HOST-9")
async def test_cards_for_impossible_names_are_told_once_each(stage: Stage) -> None:
    topics = [
        f"{stage.namespace}/mcp/{kind}/{name}/card" for kind in ("tools", "servers") for name in ("", "$x", "x" * 256)
    ]
    for topic in topics:
        for payload in ({"tool": "x", "server": "x"}, {"tool": "x", "server": "x"}, b"null", b""):
            assert await stage.attack(topic, payload, retain=True)
    await stage.check(*[(topic, "impossible name") for topic in topics])
    assert await listed(stage, online_only=False) == HONEST


@pytest.mark.rule("DISC-5")
async def test_an_empty_retained_card_means_removed(fake: FakeServer) -> None:
    stage = fake.stage
    await stage.attack(stage.topics.tool_card("fake"), b"", retain=True)
    await stage.attack(stage.topics.server_card("fake"), b"", retain=True)
    await stage.attack(stage.topics.tool_card("never was"), b"", retain=True)
    await stage.check()
    assert await listed(stage, online_only=False) == HONEST
    with pytest.raises(ToolUnavailable):
        await soon(stage.client.call("fake"))


async def test_a_server_that_lists_odd_names_changes_nothing(stage: Stage) -> None:
    names = ["a/b", "#", "", "$x", "\x00", "x" * 1000, "no card", "no card", "echo"]
    for status in ("online", "offline", "online"):
        card = {"server": "bad", "tools": names, "status": status, "name": "\n", "replica": "#", "agent": "/"}
        await stage.attack(stage.topics.server_card("bad"), card, retain=True)
    await stage.check(("'honest'", "both offer tool 'echo'"))
    assert await listed(stage, online_only=False) == HONEST
    await stage.attack(stage.topics.server_card("bad"), b"", retain=True)
    await stage.check(("'honest'", "both offer tool 'echo'"))
    assert await listed(stage) == HONEST


async def test_ten_thousand_names_on_one_card_do_not_hold_up_a_call(stage: Stage) -> None:
    card = {"server": "bad", "tools": [f"{number:05}" for number in range(10_000)]}
    for status in ("online", "offline"):
        await stage.attack(stage.topics.server_card("bad"), {**card, "status": status}, retain=True)
        assert await soon(stage.client.call("echo", {"text": "fine"}, timeout=2)) == "fine"
    await stage.check()


@pytest.mark.rule("HOST-10")
async def test_a_card_with_a_bad_schema_breaks_neither_discovery_nor_other_calls(stage: Stage) -> None:
    for number, schema in enumerate(BAD_SCHEMAS.values()):
        card = {"tool": f"bad-{number}", "server": "bad", "input_schema": schema, "output_schema": schema}
        await stage.attack(stage.topics.tool_card(f"bad-{number}"), card, retain=True)
    await stage.settle()
    found = await listed(stage)
    assert set(HONEST) < set(found)
    assert len(found) == len(HONEST) + len(BAD_SCHEMAS)
    await stage.check()


@pytest.mark.rule("HOST-10")
async def test_cards_with_bad_schemas_do_not_keep_an_agent_from_the_other_tools(stage: Stage) -> None:
    from langchain_core.utils.function_calling import convert_to_openai_tool
    from langchain_mqtt_agent import MQTTToolkit

    kinds = {f"bad-{number}": kind for number, kind in enumerate(BAD_SCHEMAS)}
    for name, kind in kinds.items():
        card = {"tool": name, "server": "bad", "description": "", "input_schema": BAD_SCHEMAS[kind]}
        await stage.attack(stage.topics.tool_card(name), card, retain=True)
    async with MQTTToolkit(broker=stage.broker.url, namespace=stage.namespace) as toolkit:
        tools = {tool.name: tool for tool in await soon(toolkit.aget_tools())}
        assert set(HONEST) <= set(tools)
        assert await soon(tools["echo"].ainvoke({"text": "fine"})) == "fine"
        broken: dict[str, object] = {}
        for name, tool in tools.items():  # the step that an agent does with all its tools before it calls the model
            try:
                if not isinstance(tool.args, dict):
                    broken[kinds[name]] = f"args is {tool.args!r}"
                convert_to_openai_tool(tool)
            except Exception as error:  # any exception: it would end the agent, with all its other tools
                broken[kinds[name]] = error
        assert broken == {}
        assert await soon(tools["echo"].ainvoke({"text": "fine"})) == "fine"
