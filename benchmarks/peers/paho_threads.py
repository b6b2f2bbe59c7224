"""Bare paho-mqtt with its own network thread: JSON in both directions, and nothing else.

This subject validates nothing, acknowledges before the work is done, and does not detect repeats. ``floor`` sets
TCP_NODELAY, and TCP_QUICKACK again after each read. ``plain`` is paho-mqtt with default settings.

    python -m peers.paho_threads serve|call plain|floor mqtt://host:port
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from peers import load

CALLS, ANSWERS = "bench/echo/call", "bench/client/answers"


class Quick(paho.Client):
    """paho-mqtt with the fast socket options, and a window of unacknowledged messages that is never the limit."""

    def __init__(self) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.max_inflight_messages_set(1000)

    def _create_socket(self) -> Any:
        sock = super()._create_socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def loop_read(self, max_packets: int = 1) -> Any:
        code = super().loop_read(max_packets)
        with contextlib.suppress(OSError, AttributeError):
            self.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return code


@contextlib.contextmanager
def connected(url: str, quick: bool, topic: str, on_message: Any) -> Iterator[paho.Client]:
    parts = urlsplit(url)
    client = Quick() if quick else paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    subscribed: Future[None] = Future()
    client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
    client.on_subscribe = lambda *_: subscribed.set_result(None)
    client.on_message = on_message
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = 1000
    client.connect(parts.hostname, parts.port, properties=properties if quick else None)
    client.loop_start()
    subscribed.result(10)
    yield client
    client.disconnect()
    client.loop_stop()


def serve(url: str, quick: bool) -> None:
    def on_message(client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        call = json.loads(message.payload)
        answer = {"call_id": call["call_id"], "status": "ok", "result": {"text": call["arguments"]["text"]}}
        properties = Properties(PacketTypes.PUBLISH)
        properties.CorrelationData = message.properties.CorrelationData
        client.publish(message.properties.ResponseTopic, json.dumps(answer), qos=1, properties=properties)

    with connected(url, quick, CALLS, on_message):
        load.ready()
        load.wait_for_the_end()


@contextlib.contextmanager
def client(url: str, quick: bool) -> Iterator[load.SyncCall]:
    numbers = itertools.count()
    waiting: dict[str, Future[Any]] = {}

    def on_message(client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        answer = json.loads(message.payload)
        waiting.pop(answer["call_id"]).set_result(answer["result"])

    with connected(url, quick, ANSWERS, on_message) as mqtt:

        def call(text: str) -> str:
            call_id = str(next(numbers))
            future = waiting[call_id] = Future()
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic = ANSWERS
            properties.CorrelationData = call_id.encode()
            payload = json.dumps({"call_id": call_id, "arguments": {"text": text}, "client": "bench"})
            mqtt.publish(CALLS, payload, qos=1, properties=properties)
            return future.result(load.LONGEST_CALL)["text"]

        yield call


if __name__ == "__main__":
    role, way, url = sys.argv[1:4]
    quick = way == "floor"
    if role == "serve":
        serve(url, quick)
    else:
        load.run_threads(client(url, quick))
