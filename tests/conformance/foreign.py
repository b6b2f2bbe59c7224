"""An agent that does not use our code: only paho-mqtt and the rules of docs/wire-format.md."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from brokers.rough import around
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from support import until

NOW = "2026-04-21T10:00:05.123Z"


class Heard:
    """A received message, with the time of its arrival."""

    def __init__(self, message: paho.MQTTMessage, namespace: str) -> None:
        self.topic = message.topic.removeprefix(f"{namespace}/")
        self.payload = message.payload
        self.retain = message.retain
        self.qos = message.qos
        properties = message.properties
        self.response_topic: str | None = getattr(properties, "ResponseTopic", None)
        self.correlation: bytes | None = getattr(properties, "CorrelationData", None)
        self.content_type: str | None = getattr(properties, "ContentType", None)
        self.expiry: int | None = getattr(properties, "MessageExpiryInterval", None)
        self.at = time.monotonic()

    def __repr__(self) -> str:
        return f"<{self.topic} {self.payload[:200]!r}>"

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.payload)


class Foreign:
    """An agent whose messages are written by hand. ``heard`` contains all received messages, in order.

    Topics are below ``{ns}``. paho's own thread fills the list; the tests only read it.
    """

    def __init__(self, url: str, namespace: str, name: str) -> None:
        self.name = name
        self.namespace = namespace
        self.heard: list[Heard] = []
        self._where = urlsplit(around(url))
        self._retained: set[str] = set()
        self._subscribed: set[int | None] = set()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{name}-{uuid.uuid4().hex[:8]}", protocol=paho.MQTTv5
        )
        self._client.on_message = lambda client, data, message: self.heard.append(Heard(message, namespace))
        self._client.on_subscribe = lambda client, data, mid, codes, properties: self._subscribed.add(mid)
        if self._where.username:
            self._client.username_pw_set(self._where.username, self._where.password)

    async def start(self, *topics: str) -> None:
        self._client.connect(self._where.hostname or "", self._where.port or 1883)
        self._client.loop_start()
        await until(self._client.is_connected)
        await self.listen(*topics)

    async def stop(self) -> None:
        for topic in list(self._retained):
            await self.say(topic, b"", retain=True)
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    async def listen(self, *topics: str) -> None:
        for topic in topics:
            mid = self._client.subscribe(f"{self.namespace}/{topic}", qos=1)[1]
            await until(lambda mid=mid: mid in self._subscribed)

    async def say(
        self,
        topic: str,
        message: dict[str, Any] | bytes,
        *,
        reply_to: str | None = None,
        correlation: bytes | None = None,
        retain: bool = False,
    ) -> None:
        """Publish below ``{ns}``, and return when the broker has acknowledged the message."""
        properties = Properties(PacketTypes.PUBLISH)
        if reply_to is not None:
            properties.ResponseTopic = f"{self.namespace}/{reply_to}"
        if correlation is not None:
            properties.CorrelationData = correlation
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        if retain:
            (self._retained.add if payload else self._retained.discard)(topic)
        info = self._client.publish(f"{self.namespace}/{topic}", payload, 1, retain, properties)
        await until(info.is_published)

    def on(self, topic: str) -> list[dict[str, Any]]:
        """The messages received on a topic."""
        return [heard.json for heard in list(self.heard) if heard.topic == topic and heard.payload]

    def raw(self, topic: str) -> list[Heard]:
        return [heard for heard in list(self.heard) if heard.topic == topic and heard.payload]

    async def next_on(self, topic: str, count: int = 1, seconds: float = 10.0) -> dict[str, Any]:
        """Wait for message number ``count`` on a topic."""
        await until(lambda: len(self.on(topic)) >= count, seconds)
        return self.on(topic)[count - 1]


class ForeignRequester(Foreign):
    """Gives tasks to our agent ``writer``."""

    async def start(self, *topics: str) -> None:
        await super().start(f"tasks/{self.name}/results", *topics)

    async def give(self, task_id: str, *, reply_to: str | None = "", inbox: str = "tasks/writer/inbox", **fields: Any):
        """Give a task with these fields; None removes one. ``reply_to`` "" is the own results topic, None no topic."""
        task = {"task_id": task_id, "from": self.name, "to": "writer", "created_at": NOW, "prompt": "write", **fields}
        where = f"tasks/{self.name}/results" if reply_to == "" else reply_to
        task = {name: value for name, value in task.items() if value is not None}
        await self.say(inbox, task, reply_to=where, correlation=task_id.encode())

    async def word(self, task_id: str, action: str, *, reply_to: str | None = None, **fields: Any) -> None:
        """Send a control message about a task."""
        word = {"task_id": task_id, "action": action, "from": self.name, "timestamp": NOW, **fields}
        word = {name: value for name, value in word.items() if value is not None}
        await self.say("tasks/writer/control", word, reply_to=reply_to, correlation=task_id.encode())

    def results(self, task_id: str, topic: str | None = None) -> list[dict[str, Any]]:
        return [result for result in self.on(topic or f"tasks/{self.name}/results") if result["task_id"] == task_id]

    async def result(self, task_id: str, count: int = 1) -> dict[str, Any]:
        """Wait for a result on the own results topic."""
        await until(lambda: len(self.results(task_id)) >= count)
        return self.results(task_id)[count - 1]


class ForeignExecutor(Foreign):
    """Receives tasks under its own name, and sends the answers that the test chooses."""

    async def start(self, *topics: str) -> None:
        own = (f"tasks/{self.name}/inbox", f"tasks/{self.name}/control", f"agents/{self.name}/inbox")
        await super().start(*own, *topics)
        await self.show()

    async def show(self, status: str = "online", **fields: Any) -> None:
        """Publish the card, then the status."""
        await self.say(f"agents/{self.name}/card", {"name": self.name, "status": status}, retain=True)
        await self.say(
            f"agents/{self.name}/status", {"name": self.name, "status": status, "timestamp": NOW, **fields}, retain=True
        )

    def tasks(self) -> list[Heard]:
        return self.raw(f"tasks/{self.name}/inbox")

    def words(self, action: str) -> list[dict[str, Any]]:
        return [word for word in self.on(f"tasks/{self.name}/control") if word["action"] == action]

    async def next_task(self, count: int = 1, seconds: float = 10.0) -> Heard:
        await until(lambda: len(self.tasks()) >= count, seconds)
        return self.tasks()[count - 1]

    async def answer(self, task: Heard, **fields: Any) -> None:
        """Send a result to the Response Topic of the task."""
        assert task.response_topic is not None
        result = {"task_id": task.json["task_id"], "status": "completed", **fields}
        where = task.response_topic.removeprefix(f"{self.namespace}/")
        await self.say(where, result, correlation=task.correlation)

    async def event(self, task: Heard, seq: int, type: str = "partial", **fields: Any) -> None:
        task_id = task.json["task_id"]
        event = {"task_id": task_id, "seq": seq, "type": type, **fields}
        await self.say(f"tasks/{task_id}/events", event)
