"""An independent client that records messages, and can publish them again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from brokers.rough import around
from mqtt_agent.transport.url import BrokerURL
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from support import until
from typing_extensions import Self


class Recorder:
    """A paho-mqtt client with its own thread.

    Args:
        url: The broker's URL.
        topic_filter: The topics to record.
    """

    def __init__(self, url: str, topic_filter: str) -> None:
        where = BrokerURL.parse(around(url))
        self._ready = threading.Event()
        self._heard: list[paho.MQTTMessage] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = self._on_connect
        self._topic_filter = topic_filter
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect(where.host, where.port)

    def _on_connect(self, client: paho.Client, *args: Any) -> None:
        client.subscribe(self._topic_filter, 1)

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        self._heard.append(message)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: Any) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    async def heard(self, enough: Callable[[list[str]], object], within: float = 20) -> list[paho.MQTTMessage]:
        """Wait until the topics of the recorded messages are sufficient, and return the messages."""
        await until(lambda: enough([message.topic for message in self._heard]), within)
        return list(self._heard)

    def say(self, message: paho.MQTTMessage, payload: bytes | None = None) -> None:
        """Publish a message again, with its properties, or with another payload."""
        properties = None
        if message.properties is not None:
            properties = Properties(PacketTypes.PUBLISH)
            for name in ("ResponseTopic", "CorrelationData", "ContentType"):
                if hasattr(message.properties, name):
                    setattr(properties, name, getattr(message.properties, name))
        self._client.publish(message.topic, message.payload if payload is None else payload, 1, False, properties)
