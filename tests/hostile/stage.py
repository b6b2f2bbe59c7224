"""The parts of every stage: a hostile peer, an observer of all topics, and the log of our side."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent import Connection
from mqtt_agent.wire import Topics
from support import soon

from .peer import HungUp, Peer, Seen, Text

NOT_OURS = "elsewhere"
Payload = bytes | dict[str, Any]


class BaseStage(ABC):
    """``attack`` publishes as the hostile peer; the honest endpoints and the observer show the consequences."""

    def __init__(self, broker: Broker, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
        self.broker = broker
        self.namespace = namespace
        self.topics = Topics(namespace)
        self.runs: list[str] = []
        self.go_on = asyncio.Event()
        self.watcher: Peer | None = None
        self._attacker: Peer | None = None
        self._sent_to: set[str] = set()
        self._retained: set[Text] = set()
        self._epochs: list[int] = []
        self._caplog = caplog

    @property
    @abstractmethod
    def connections(self) -> Sequence[Connection]:
        """The connections of the honest endpoints."""

    @abstractmethod
    async def stop_the_honest(self) -> None:
        """Stop the honest endpoints, which the hostile peer attacks."""

    def remember(self) -> None:
        """Remember the current connections; they must not break."""
        self._epochs = [connection.epoch for connection in self.connections]

    def check_connections(self) -> None:
        """Check that the connections are the remembered ones."""
        for connection, epoch in zip(self.connections, self._epochs, strict=True):
            assert connection.connected, f"{connection.client_id} is not connected: {self.faults()[:3]}"
            assert connection.epoch == epoch, f"{connection.client_id} lost its connection: {self.faults()[:3]}"

    async def new_peer(self) -> Peer:
        name = f"peer-{uuid.uuid4().hex[:8]}"
        return await soon(Peer.connect(self.broker.port, name, login=self.broker.takes_unknown_logins))

    async def watch(self) -> Peer:
        """Observe all topics of the namespace from now on."""
        self.watcher = await self.new_peer()
        await self.watcher.subscribe(f"{self.namespace}/#")
        return self.watcher

    async def stop(self) -> None:
        self.go_on.set()
        for topic in list(self._retained):
            await self.attack(topic, b"", retain=True)
        for peer in (self._attacker, self.watcher):
            if peer is not None:
                await peer.close()
        await self.stop_the_honest()

    # Attacking

    async def attack(self, topic: Text, payload: Payload, packed: bytes = b"", *, retain: bool = False) -> bool:
        """Publish as the hostile peer; returns False when the broker itself refused the message and disconnected."""
        try:
            await (await self.attacker()).publish(topic, self._noting(topic, payload, retain), packed, retain=retain)
        except HungUp:
            return False
        return True

    async def attack_often(self, batch: Sequence[tuple[Text, Payload, bytes]]) -> None:
        """Publish many messages without waiting between them; all of them must reach the broker."""
        attacker = await self.attacker()
        sent = [attacker.send(topic, self._noting(topic, payload, False), packed) for topic, payload, packed in batch]
        await soon(asyncio.gather(*sent), 20)

    async def attacker(self) -> Peer:
        if self._attacker is None or self._attacker.hung_up:
            if self._attacker is not None:
                await self._attacker.close()
            self._attacker = await self.new_peer()
        return self._attacker

    def _noting(self, topic: Text, payload: Payload, retain: bool) -> bytes:
        if isinstance(topic, str):
            self._sent_to.add(topic)
        if retain:
            (self._retained.add if payload else self._retained.discard)(topic)
        return payload if isinstance(payload, bytes) else json.dumps(payload).encode()

    # Checking the consequences

    def messages(self, topic: str) -> list[Seen]:
        assert self.watcher is not None
        return [message for message in self.watcher.seen if message.topic == topic]

    def faults(self) -> list[str]:
        """The log records of our side with level warning or higher."""
        return [
            record.getMessage()
            for record in self._caplog.records
            if record.levelno >= logging.WARNING and record.name.startswith(("mqtt_agent", "langchain_mqtt_agent"))
        ]

    def errors(self) -> list[str]:
        """All log records with level error: most likely exceptions that no code handled."""
        return [record.getMessage() for record in self._caplog.records if record.levelno >= logging.ERROR]
