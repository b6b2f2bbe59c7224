"""Attackers on an open broker, with and without a trusted key: they read everything, and end no work of others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import Agent, TaskContext, ToolClient, ToolContext, ToolServer
from mqtt_agent.identity import Identity, PrivateKey, TrustedKeys
from mqtt_agent.transport import Connection, InboundMessage, PublishProperties
from mqtt_agent.wire import Topics
from support import soon, until

KEYS = {name: PrivateKey.new(name) for name in ("caller", "weather", "agent-a", "agent-b", "evil")}
CHANGED = "notifications/tools/list_changed"
SERVES = {"weather": ["forecast"]}
TRUSTED = TrustedKeys(key.public.pinned(SERVES.get(name, ())) for name, key in KEYS.items())


def identity(name: str) -> Identity:
    return Identity(KEYS[name], TRUSTED, verify="require")


@dataclass
class Stranger:
    """A connection that hears everything, and signs nothing or as itself."""

    connection: Connection
    topics: Topics
    heard: list[InboundMessage] = field(default_factory=list[InboundMessage])

    async def send(self, topic: str, payload: bytes, about: PublishProperties | None = None) -> None:
        await soon(self.connection.publish(topic, payload, properties=about or PublishProperties()))

    async def first(self, part: str) -> InboundMessage:
        """The first message on a topic with this part."""
        await until(lambda: any(part in each.topic for each in self.heard))
        return next(each for each in self.heard if part in each.topic)


@pytest.fixture(params=["unsigned", pytest.param("not trusted", marks=pytest.mark.long), "trusted"])
async def stranger(request: pytest.FixtureRequest, mosquitto: Mosquitto, namespace: str) -> AsyncIterator[Stranger]:
    keys = {"unsigned": None, "not trusted": PrivateKey.new("evil"), "trusted": KEYS["evil"]}
    key = keys[request.param]
    own = None if key is None else Identity(key, verify="off")
    stranger = Stranger(Connection(mosquitto.url, identity=own), Topics(namespace))
    await soon(stranger.connection.start())
    await soon(stranger.connection.subscribe(f"{namespace}/#", stranger.heard.append))
    yield stranger
    await soon(stranger.connection.stop())


def copied(message: InboundMessage, *, signed: bool = False) -> PublishProperties:
    """The properties of a captured message, with or without its signature."""
    return PublishProperties(
        message.response_topic,
        message.correlation_data,
        message.content_type,
        60,
        message.user_properties if signed else (),
    )


@dataclass
class Tools:
    server: ToolServer
    caller: ToolClient
    go: asyncio.Event = field(default_factory=asyncio.Event)
    ran: list[str] = field(default_factory=list[str])


@pytest.fixture(params=["prefer", "off"])
async def tools(request: pytest.FixtureRequest, mosquitto: Mosquitto, namespace: str) -> AsyncIterator[Tools]:
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace, "bound": request.param}
    server = ToolServer("weather", **where, replica="1", identity=identity("weather"))
    caller = ToolClient("caller", **where, identity=identity("caller"))
    found = Tools(server, caller)

    @server.tool
    async def forecast(city: str, ctx: ToolContext) -> str:
        found.ran.append(ctx.client)
        await found.go.wait()
        return "true"

    async with server, caller:
        yield found
        found.go.set()


@pytest.mark.rule("SIG-7")
async def test_a_copy_of_a_call_without_its_signature_does_not_end_the_call(stranger: Stranger, tools: Tools) -> None:
    handle = await soon(tools.caller.submit("forecast", {"city": "x"}))
    call = await stranger.first("/tools/forecast/call")
    await until(lambda: tools.ran)
    await stranger.send(call.topic, call.payload, copied(call))
    other = json.dumps({**json.loads(call.payload), "arguments": {"city": "y"}}).encode()
    await stranger.send(call.topic, other, copied(call))
    await stranger.send(call.topic, other, copied(call, signed=True))
    unreadable = b'{"client": "caller", "arguments": 1'
    await stranger.send(call.topic, unreadable, copied(call))
    await stranger.send(call.topic, unreadable, copied(call, signed=True))
    query = {"query_id": handle.call_id, "client": "caller", "call_ids": []}
    for topic in (stranger.topics.server_query("weather:1"), stranger.topics.bound.query("weather:1", "caller")):
        await stranger.send(topic, json.dumps(query).encode(), copied(call))
    await until(lambda: len([each for each in stranger.heard if "/responses" in each.topic]) >= 4)
    await soon(tools.caller.list_tools())
    assert not handle.done
    tools.go.set()
    assert await soon(handle.result()) == "true"
    assert tools.ran == ["caller"]


@pytest.mark.rule("SIG-7")
async def test_a_copy_of_a_task_without_its_signature_does_not_end_the_task(
    stranger: Stranger, mosquitto: Mosquitto, namespace: str
) -> None:
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace, "store": None}
    go, ran = asyncio.Event(), list[Any]()
    executor = Agent("agent-b", **where, identity=identity("agent-b"))

    @executor.on_task
    async def work(task: TaskContext) -> str:
        ran.append(task.prompt)
        await go.wait()
        return "true"

    async with executor, Agent("agent-a", **where, identity=identity("agent-a")) as requester:
        handle = await soon(requester.delegate("agent-b", "work"))
        task = await stranger.first("/inbox")
        await until(lambda: ran)
        await stranger.send(task.topic, task.payload, copied(task))
        other = json.dumps({**json.loads(task.payload), "prompt": "other"}).encode()
        await stranger.send(task.topic, other, copied(task))
        await stranger.send(task.topic, other, copied(task, signed=True))
        await stranger.send(stranger.topics.inbox("agent-b"), other, copied(task))
        unreadable = b'{"from": "agent-a", "prompt": 1'
        await stranger.send(task.topic, unreadable, copied(task))
        await stranger.send(task.topic, unreadable, copied(task, signed=True))
        await until(lambda: len([each for each in stranger.heard if "/result" in each.topic]) >= 5)
        assert not handle.done
        go.set()
        assert await soon(handle.result()) == "true"
    assert ran == ["work"]


def body(**values: Any) -> bytes:
    return json.dumps(values).encode()


@pytest.mark.rule("SIG-6", "SIG-7")
async def test_what_a_stranger_sends_in_its_own_name_about_a_call_changes_nothing(
    stranger: Stranger, tools: Tools, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    handle = await soon(tools.caller.submit("forecast", {"city": "x"}))
    reading = asyncio.create_task(_read(handle.partials(), seen))
    call = await stranger.first("/tools/forecast/call")
    await until(lambda: tools.ran)
    topics, own = stranger.topics, {"call_id": handle.call_id, "client": "evil", "server": "evil:1"}
    to_caller = PublishProperties(topics.client_responses("caller"), handle.call_id.encode())
    wrong = body(**own, arguments="no object")  # it cannot be read, and names the inbox of the caller
    ansi = ["\x1b[2J\nWARNING forged: line"]
    for topic, payload in (
        (topics.tool_call("forecast"), wrong),
        (topics.bound.call("forecast", "evil"), wrong),
        (topics.tool_cancel("forecast"), body(**own)),
        (topics.bound.cancel("forecast", "evil"), body(**own)),
        (topics.tool_stream("forecast", handle.call_id), body(**own, seq=1, type="partial", content="forged")),
        (topics.bound.stream("caller", handle.call_id, "evil:1"), body(**own, seq=1, content="forged")),
        (topics.server_input("weather:1"), body(**own, input_id="1", result={"action": "accept"})),
        (topics.bound.input("weather:1", "evil"), body(**own, input_id="1", result={"action": "accept"})),
        (
            topics.server_events("weather:1", "caller"),
            body(server="weather:1", method="notifications/tools/list_changed"),
        ),
        (topics.server_card("evil:1"), body(server="evil:1", status="online", tools=ansi)),
        (topics.tool_card("forecast"), body(tool="forecast", server="evil", status="online")),
    ):
        await stranger.send(topic, payload, to_caller)
    await until(lambda: len([each for each in stranger.heard if "/responses" in each.topic]) >= 1)
    await soon(tools.caller.list_tools())
    assert not handle.done
    tools.go.set()
    assert await soon(handle.result()) == "true"
    await soon(reading)
    assert (seen, tools.ran) == ([], ["caller"])
    assert "\x1b" not in caplog.text
    assert "\nWARNING forged" not in caplog.text
    assert call.topic


async def _read(parts: Any, seen: list[Any]) -> None:
    async for part in parts:
        seen.append(part)


@pytest.mark.rule("SIG-6", "SIG-7")
@pytest.mark.parametrize("bound", ["prefer", "off"])
async def test_a_task_of_a_stranger_with_the_id_of_another_task_ends_only_itself(
    bound: Any, stranger: Stranger, mosquitto: Mosquitto, namespace: str
) -> None:
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace, "store": None, "bound": bound}
    go, ran = asyncio.Event(), list[Any]()
    executor = Agent("agent-b", **where, identity=identity("agent-b"))

    @executor.on_task
    async def work(task: TaskContext) -> str:
        ran.append((task.sender, task.prompt))
        if task.sender == "agent-a":
            await go.wait()
            return "true"
        return "forged"

    async with executor, Agent("agent-a", **where, identity=identity("agent-a")) as requester:
        asked = asyncio.create_task(requester.request("agent-b", "work"))
        await until(lambda: ran)
        task = await stranger.first("/inbox")
        task_id, topics = json.loads(task.payload)["task_id"], stranger.topics
        own = body(task_id=task_id, **{"from": "evil"}, to="agent-b", prompt="own")
        bad = body(task_id=task_id, **{"from": "evil"}, to="agent-b", prompt=1)
        for reply_to in (topics.task_result(task_id), topics.results("agent-a"), topics.results("evil")):
            about = PublishProperties(reply_to, task_id.encode())
            for payload in (own, bad):
                await stranger.send(topics.inbox("agent-b"), payload, about)
                await stranger.send(topics.bound.inbox("agent-b", "evil"), payload, about)
        for action in ("get", "cancel", "input"):
            control = body(task_id=task_id, **{"from": "evil"}, action=action, input="forged")
            await stranger.send(topics.control("agent-b"), control)
            await stranger.send(topics.bound.control("agent-b", "evil"), control)
        await until(lambda: len([each for each in stranger.heard if "/result" in each.topic]) >= 4)
        await soon(requester.peers())
        assert not asked.done()
        go.set()
        assert await soon(asked) == "true"
        assert [prompt for sender, prompt in ran if sender == "agent-a"] == ["work"]
