"""A raw MQTT 5 client with a login of its own. It knows nothing of this package, so it can try everything."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from brokers.guarded import Guarded
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from typing_extensions import Self

PATIENCE = 10.0


@dataclass(frozen=True)
class Will:
    topic: str
    payload: bytes


class Raw:
    """A connection to a guarded broker.

    Args:
        broker: The broker.
        user: The login's user name, agent id or server id.
        client_id: The MQTT client id; None takes the login's own.
        will: The Last Will.
        username: Another user name than the login's, with the login's password.
        password: Another password or token than the login's.
        keep: Seconds for which the broker keeps the session.
    """

    def __init__(
        self,
        broker: Guarded,
        user: str,
        *,
        client_id: str | None = None,
        will: Will | None = None,
        username: str | None = None,
        password: str | None = None,
        keep: int = 0,
    ) -> None:
        self.login = broker.roster.login(user)
        self.connected: int | None = None
        self.lost = threading.Event()
        self.heard: list[paho.MQTTMessage] = []
        self._news = threading.Condition()
        self._codes: dict[int, int] = {}
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id or self.login.client_id,
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        client.username_pw_set(
            self.login.user if username is None else username,
            broker.password_of(self.login) if password is None else password,
        )
        if will is not None:
            client.will_set(will.topic, will.payload, 1)
        client.on_connect = self._on_connect
        client.on_message = lambda *args: self._tell(lambda: self.heard.append(args[2]))
        client.on_publish = lambda c, u, mid, code, props: self._answer(mid, code.value)
        client.on_subscribe = lambda c, u, mid, codes, props: self._answer(mid, codes[0].value)
        client.on_unsubscribe = self._on_unsubscribe
        client.on_disconnect = lambda *_: self._tell(self.lost.set)
        self._properties = Properties(PacketTypes.CONNECT)
        self._properties.SessionExpiryInterval = keep
        self._clean = keep == 0
        self._where = broker.port

    def connect(self) -> int:
        """Connect, and return the reason code; 0x80 when the broker only closed the connection."""
        self._client.connect("127.0.0.1", self._where, clean_start=self._clean, properties=self._properties)
        self._client.loop_start()
        self._wait(lambda: self.connected is not None or self.lost.is_set())
        return 0x80 if self.connected is None else self.connected

    def __enter__(self) -> Self:
        code = self.connect()
        assert code == 0, f"{self.login.user} was refused: {code:#x}"
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        self._client.disconnect()
        self._end()

    def drop(self) -> None:
        """End the connection without DISCONNECT, so that the broker publishes the Last Will."""
        self._client._sock_close()
        self._end()

    def _end(self) -> None:
        self._client.loop_stop()
        self._client._reset_sockets()  # paho leaves the sockets by which it wakes its thread open

    def subscribe(self, topic_filter: str) -> int:
        """Subscribe, and return the reason code."""
        _, mid = self._client.subscribe(topic_filter, options=SubscribeOptions(qos=1))
        assert mid is not None
        return self._code(mid)

    def unsubscribe(self, topic_filter: str) -> int:
        _, mid = self._client.unsubscribe(topic_filter)
        assert mid is not None
        return self._code(mid)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: str | None = None,
    ) -> int:
        """Publish at QoS 1, and return the reason code of the PUBACK; 0x80 when the broker closed the connection."""
        properties = Properties(PacketTypes.PUBLISH)
        if response_topic is not None:
            properties.ResponseTopic = response_topic
        if correlation is not None:
            properties.CorrelationData = correlation.encode()
        return self._code(self._client.publish(topic, payload, 1, retain, properties).mid)

    def payloads(self) -> list[bytes]:
        return [bytes(each.payload) for each in self.heard]

    def wait_for(self, payload: bytes) -> None:
        """Wait until a message with this payload has arrived."""
        self._wait(lambda: payload in self.payloads())
        assert payload in self.payloads(), f"{self.login.user} did not get {payload!r}"

    def settle(self, topic: str) -> None:
        """Wait until everything has arrived that the broker had queued for this client.

        Args:
            topic: A topic on which this login may publish, and to which this client is subscribed.
        """
        marker = f"marker {uuid.uuid4().hex}".encode()
        assert self.publish(topic, marker) < 0x80, f"{self.login.user} may not publish its own marker on {topic}"
        self.wait_for(marker)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._tell(lambda: setattr(self, "connected", reason.value))

    def _on_unsubscribe(self, client: Any, userdata: Any, mid: int, codes: Any, properties: Any) -> None:
        self._answer(mid, codes[0].value if codes else 0)

    def _answer(self, mid: int, code: int) -> None:
        self._tell(lambda: self._codes.__setitem__(mid, code))

    def _code(self, mid: int) -> int:
        self._wait(lambda: mid in self._codes or self.lost.is_set())
        return self._codes.pop(mid, 0x80)

    def _tell(self, change: Callable[[], object]) -> None:
        with self._news:
            change()
            self._news.notify_all()

    def _wait(self, condition: Callable[[], object]) -> None:
        with self._news:
            self._news.wait_for(condition, PATIENCE)
