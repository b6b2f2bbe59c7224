"""Peers written only from docs/wire-format.md: they build topics and payloads by hand."""

from __future__ import annotations

import json
from typing import Any

from brokers.rough import around
from mqtt_agent.transport import Connection, InboundMessage, PublishProperties
from support import soon, until

NOW = "2026-04-21T10:00:05.123Z"


class Stranger:
    """A caller. ``seen`` contains all received messages, in order."""

    def __init__(self, url: str, namespace: str, name: str) -> None:
        self.name = name
        self.mcp = f"{namespace}/mcp"
        self.inbox = f"{self.mcp}/clients/{name}/responses"
        self.connection = Connection(around(url))
        self.seen: list[InboundMessage] = []
        self._retained: set[str] = set()

    async def start(self) -> None:
        await self.connection.start()
        await self.connection.subscribe(self.inbox, self.seen.append)

    async def stop(self) -> None:
        for topic in self._retained:
            await self.connection.publish(topic, b"", retain=True)
        await self.connection.stop(end_session=True)

    async def listen(self, topic: str) -> None:
        """Also receive the messages of a topic below ``{ns}/mcp/``, including retained ones."""
        await self.connection.subscribe(f"{self.mcp}/{topic}", self.seen.append, snapshot=True)

    async def tell(
        self, topic: str, message: dict[str, Any], properties: PublishProperties | None = None, *, retain: bool = False
    ) -> None:
        """Publish below ``{ns}/mcp/``."""
        if retain:
            self._retained.add(f"{self.mcp}/{topic}")
        properties = properties or PublishProperties(content_type=None)
        payload = json.dumps(message).encode()
        await soon(self.connection.publish(f"{self.mcp}/{topic}", payload, retain=retain, properties=properties))

    async def call(self, tool: str, call_id: str, expiry: int | None = None, **fields: Any) -> None:
        """Call a tool as the specification says. Fields replace fields of the payload, None removes a field."""
        call = {"call_id": call_id, "arguments": {}, "client": self.name, "timestamp": NOW, **fields}
        properties = PublishProperties(
            content_type="application/json",
            response_topic=self.inbox,
            correlation_data=call_id.encode(),
            message_expiry=expiry,
        )
        call = {name: value for name, value in call.items() if value is not None}
        await self.tell(f"tools/{tool}/call", call, properties)

    def on(self, topic: str) -> list[InboundMessage]:
        """The messages received on a topic below ``{ns}/mcp/``."""
        return [message for message in self.seen if message.topic == f"{self.mcp}/{topic}" and message.payload]

    def read(self, topic: str) -> list[dict[str, Any]]:
        """The same messages, as JSON."""
        return [json.loads(message.payload) for message in self.on(topic)]

    def answers(self, call_id: str) -> list[dict[str, Any]]:
        """The responses to one call."""
        answers = [json.loads(message.payload) for message in self.seen if message.topic == self.inbox]
        return [answer for answer in answers if answer["call_id"] == call_id]

    async def answer(self, call_id: str) -> dict[str, Any]:
        """Wait for a response."""
        await until(lambda: self.answers(call_id))
        return self.answers(call_id)[-1]


class StrangeServer(Stranger):
    """A tool server with the tool ``strange``.

    ``calls`` and ``queries`` contain the received messages. ``has`` contains the call ids for the answers to queries;
    while the server is ``silent``, it answers none. The server subscribes without a share group, because it has no
    replicas.
    """

    def __init__(self, url: str, namespace: str, name: str) -> None:
        super().__init__(url, namespace, name)
        self.calls: list[dict[str, Any]] = []
        self.queries: list[dict[str, Any]] = []
        self.has: set[str] = set()
        self.silent = False
        self.partials_at_once: list[dict[str, Any]] = []
        self.answer_at_once: dict[str, Any] | None = None

    async def start(self) -> None:
        await self.connection.start()
        await self.connection.subscribe(f"{self.mcp}/tools/strange/call", self._on_call)
        await self.connection.subscribe(f"{self.mcp}/servers/{self.name}/query", self._on_query)

    async def show(self, **card: Any) -> None:
        """Publish the server card."""
        online = {"server": self.name, "tools": ["strange"], "status": "online"}
        await self.tell(f"servers/{self.name}/card", {**online, **card}, retain=True)

    async def show_tool(self, **card: Any) -> None:
        """Publish the tool card."""
        await self.tell("tools/strange/card", {"tool": "strange", "server": self.name, **card}, retain=True)

    async def next_call(self, count: int = 1) -> dict[str, Any]:
        """Wait for a call, by default the first one."""
        await until(lambda: len(self.calls) >= count)
        return self.calls[count - 1]

    async def reply(self, call: dict[str, Any], **response: Any) -> None:
        """Answer a call."""
        await self.tell(f"clients/{call['client']}/responses", {"call_id": call["call_id"], **response})

    def _on_call(self, message: InboundMessage) -> None:
        call = json.loads(message.payload)
        self.calls.append(call)
        for partial in self.partials_at_once:
            self._send(f"tools/strange/stream/{call['call_id']}", {"call_id": call["call_id"], **partial})
        if self.answer_at_once is not None:
            self._send(f"clients/{call['client']}/responses", {"call_id": call["call_id"], **self.answer_at_once})

    def _on_query(self, message: InboundMessage) -> None:
        query = json.loads(message.payload)
        self.queries.append(query)
        if self.silent:
            return
        known = [call_id for call_id in query["call_ids"] if call_id in self.has]
        response = {"call_id": query["query_id"], "status": "ok", "result": {"known": known}}
        self._send(f"clients/{query['client']}/responses", response)

    def _send(self, topic: str, message: dict[str, Any]) -> None:
        self.connection.publish_soon(f"{self.mcp}/{topic}", json.dumps(message).encode())
