"""The stage: an honest server, an honest client, a hostile peer, and an observer of all topics."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from brokers import Broker, Embedded
from mqtt_agent import Connection, ToolClient, ToolContext, ToolServer
from mqtt_agent.errors import CallTimeout
from support import soon, until

from .peer import Seen, properties
from .stage import NOT_OURS, BaseStage


class Stage(BaseStage):
    """The participants that every test of this folder needs.

    ``attack`` publishes as the hostile peer ``peer``. ``check`` checks the consequences: no connection broke, an
    ordinary call works, nothing was published on a wrong topic, and each fault was logged once.
    """

    def __init__(self, broker: Broker, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
        super().__init__(broker, namespace, caplog)
        self.server = ToolServer("honest", broker=broker.url, namespace=namespace, will_delay=1)
        self.client = ToolClient("friend", broker=broker.url, namespace=namespace)
        self.fake: FakeServer | None = None
        self.inbox = self.topics.client_responses("peer")
        self.call_topic = self.topics.tool_call("echo")
        self.server.add_tool("echo", self._echo, idempotent=True)
        self.server.add_tool("chatter", self._chatter)
        self.server.add_tool("wait", self._wait)

    async def _echo(self, text: str) -> str:
        self.runs.append(text)
        return text

    async def _chatter(self, ctx: ToolContext, text: str = "word") -> str:
        self.runs.append(text)
        await ctx.stream(text)
        return text

    async def _wait(self, text: str = "waited") -> str:
        self.runs.append(text)
        await self.go_on.wait()
        return "waited"

    async def start(self, *, watch: bool = True) -> None:
        await soon(asyncio.gather(self.server.start(), self.client.start()), DEADLINE)
        await soon(self.client.list_tools())
        if watch:
            watcher = await self.watch()
            await until(lambda: len(watcher.seen) >= 4)  # the existing cards
        self.remember()

    @property
    def connections(self) -> tuple[Connection, ...]:
        return self.server.connection, self.client.connection

    async def stop_the_honest(self) -> None:
        stopping = asyncio.gather(self.client.stop(), self.server.stop())
        await asyncio.wait([stopping], timeout=DEADLINE)
        if not stopping.done() and isinstance(self.broker, Embedded):
            self.broker.kill()  # the server no longer answers, and stop() would wait for it
            await soon(stopping)
            pytest.fail("stop() waits without end for a broker that does not answer")
        await soon(stopping, 20)

    # Attacking

    def call(self, call_id: str = "call-1", client: str = "peer", **fields: Any) -> dict[str, Any]:
        """A valid call. Fields replace its fields, None removes a field."""
        call = {"call_id": call_id, "arguments": {"text": "hi"}, "client": client, "timestamp": "2026-01-01T00:00:00Z"}
        call["response_topic"] = self.topics.client_responses("peer")
        call.update(fields)
        return {name: value for name, value in call.items() if value is not None}

    def properties(self, **changes: Any) -> bytes:
        """The MQTT properties of a valid call."""
        return properties(**{"response_topic": self.inbox, "correlation": b"correlation-1", **changes})

    # Checking the consequences

    def faults(self) -> list[str]:
        return [fault for fault in super().faults() if "has no shared subscriptions" not in fault]  # not a fault

    def answers(self, inbox: str | None = None) -> list[dict[str, Any]]:
        """The messages on the responses topic of the peer, or of another client."""
        return [json.loads(message.payload) for message in self.messages(inbox or self.inbox)]

    def told(self, topic: str) -> list[str]:
        """All faults on a topic, including repeats, in order."""
        mark = f" on {topic[:300]}: "
        return [record.getMessage() for record in self._caplog.records if mark in record.getMessage()]

    def check_each_was_told(self, topic: str, reasons: Iterable[str]) -> None:
        """Check that the faults on ``topic`` were logged in this order, each with a matching reason."""
        for told, reason in zip(self.told(topic), reasons, strict=True):
            assert re.search(reason, told), f"{told!r} does not say {reason!r}"

    async def settle(self) -> None:
        """Wait until all sent messages have been processed: an ordinary call works, and all messages were seen."""
        for _ in range(2):
            assert await soon(self.client.call("echo", {"text": "fine"}, timeout=DEADLINE), DEADLINE + 1) == "fine"
        if self.watcher is not None:
            await self.watcher.barrier(f"{self.namespace}/{NOT_OURS}/barrier")

    async def fill_the_window(self) -> None:
        """Make more calls than a broker sends while one message stays unacknowledged; each call must be answered."""
        window, at_once = 1200, 60
        for start in range(0, window, at_once):
            calls = (self.client.call("echo", {"text": "fine"}, timeout=DEADLINE) for _ in range(at_once))
            try:
                await soon(asyncio.gather(*calls), 2 * DEADLINE)
            except CallTimeout:
                pytest.fail(f"after {start} calls the server gets no more: an old one was never acknowledged")

    async def check(self, *faults: tuple[str, str], strays: bool = True) -> None:
        """Check that all works, and that exactly these ``faults`` (topic, reason's pattern) were logged, once each."""
        await self.settle()
        self.check_connections()
        told = self.faults()
        assert len(told) == len(faults), told
        for (topic, reason), message in zip(faults, told, strict=True):
            assert topic[:300] in message
            assert re.search(reason, message), message
            assert message.isprintable(), "a peer must not write lines of its own into our log"
        assert self.errors() == []
        if strays and self.watcher is not None:
            assert self.strays() == set()

    def strays(self) -> set[str]:
        """Topics on which only the hostile peer should publish, and on which another client published nevertheless."""
        assert self.watcher is not None
        business = {self.inbox, self.topics.client_responses("friend"), f"{self.namespace}/{NOT_OURS}/barrier"}
        business |= {self.topics.tool_call(card.tool) for card in self.server.tools}
        business |= {self.topics.tool_cancel(card.tool) for card in self.server.tools}
        business |= {self.topics.tool_card(card.tool) for card in self.server.tools}
        business |= {self.topics.server_card(self.server.server_id), self.topics.server_query(self.server.server_id)}
        bound, server = self.topics.bound, self.server.server_id
        business |= {bound.responses("friend", "friend"), bound.responses("friend", server)}
        business |= {bound.query(server, server), bound.query(server, "friend")}
        business |= {bound.call(card.tool, "friend") for card in self.server.tools}
        business |= {bound.cancel(card.tool, "friend") for card in self.server.tools}
        if self.fake is not None:
            business |= {self.topics.tool_call(self.fake.tool), self.topics.tool_cancel(self.fake.tool)}
        if not self.broker.shared_subscriptions:  # then clients and servers ask each other for their cards
            cards = [self.topics.server_card(server), *(self.topics.tool_card(card.tool) for card in self.server.tools)]
            for asker in ("friend", "small", server):  # "small" is another client of ours
                business |= {self.topics.client_query(asker), *(self.topics.copy(card, asker) for card in cards)}
        return {message.topic for message in self.watcher.seen} - business - self._sent_to


DEADLINE = 5.0


class FakeServer:
    """The hostile peer as a tool server; the test chooses its answers."""

    def __init__(self, stage: Stage, tool: str) -> None:
        self.stage = stage
        self.tool = tool
        self.inbox = stage.topics.client_responses("friend")
        self._calls: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def start(self, **card: Any) -> None:
        stage = self.stage
        assert stage.watcher is not None
        stage.watcher.on_message = self._on_message
        await stage.attack(
            stage.topics.tool_card(self.tool), {"tool": self.tool, "server": "fake", **card}, retain=True
        )
        server = {"server": "fake", "tools": [self.tool], "status": "online"}
        await stage.attack(stage.topics.server_card("fake"), server, retain=True)
        changes = stage.client.watch_tools()
        if not any(found.tool == self.tool for found in await stage.client.list_tools()):
            await soon(anext(changes))

    def _on_message(self, message: Seen) -> None:
        if message.topic == self.stage.topics.tool_call(self.tool) and message.payload:
            self._calls.put_nowait(json.loads(message.payload))

    async def next_call(self) -> dict[str, Any]:
        return await soon(self._calls.get())

    async def answer(self, payload: bytes | dict[str, Any], correlation: bytes | None = None) -> None:
        await self.stage.attack(self.inbox, payload, properties(correlation=correlation))


@pytest.fixture
async def silent_stage(broker: Broker, namespace: str, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Stage]:
    """A stage that the test starts itself."""
    caplog.set_level(logging.DEBUG, "mqtt_agent")
    stage = Stage(broker, namespace, caplog)
    yield stage
    await stage.stop()


@pytest.fixture
async def stage(silent_stage: Stage) -> Stage:
    """A started stage."""
    await silent_stage.start()
    return silent_stage


@pytest.fixture
async def fake(stage: Stage) -> FakeServer:
    """A hostile tool server with the tool ``fake``, which the honest client knows."""
    stage.fake = FakeServer(stage, "fake")
    await stage.fake.start(supports_streaming=True)
    return stage.fake
