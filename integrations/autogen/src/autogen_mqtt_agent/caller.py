"""The agents under whose names a process gives turns to others: one connection each, however many participants."""

from __future__ import annotations

import asyncio
import ssl
import threading
import uuid
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

from mqtt_agent import TLS, MemoryStore, Password, TaskStore, Token
from mqtt_agent.sync import Agent

from autogen_mqtt_agent.turns import MAX_PAYLOAD

__all__ = ["Caller", "CallerSettings"]

_FORGET_AFTER, _KEEP_FOR = 600.0, 7 * 24 * 3600.0  # seconds; what is in memory dies with the process anyway


@dataclass(frozen=True)
class CallerSettings:
    """How to be an agent; see :class:`mqtt_agent.Agent`.

    Without ``agent_id`` it is one that all of the process share, and that keeps nothing.
    """

    broker: str | None = None
    agent_id: str | None = None
    namespace: str = "a2a/v1"
    store: TaskStore | str | PathLike[str] | None = None
    credentials: Password | Token | None = None
    tls: ssl.SSLContext | TLS | None = None


class Caller:
    """A shared agent; :meth:`shared` finds or makes it. It connects on first use, and ends with its last user."""

    _all: ClassVar[dict[tuple[Any, ...], Caller]] = {}
    _lock: ClassVar = threading.Lock()

    def __init__(self, settings: CallerSettings) -> None:
        self.settings = settings
        self.agent_id: str = settings.agent_id or f"autogen-{uuid.uuid4().hex[:12]}"
        forgets = settings.agent_id is None and settings.store is None
        self.agent: Agent = Agent(
            self.agent_id,
            broker=settings.broker,
            namespace=settings.namespace,
            store=MemoryStore() if forgets else settings.store,
            retention=_FORGET_AFTER if forgets else _KEEP_FOR,
            max_payload=MAX_PAYLOAD,
            credentials=settings.credentials,
            tls=settings.tls,
        )
        self._users: set[int] = set()

    @classmethod
    def shared(cls, settings: CallerSettings) -> Caller:
        """The agent with this id.

        Raises:
            ValueError: The process uses the id with other settings already.
        """
        key = (settings.broker, settings.namespace, settings.agent_id)
        with cls._lock:
            caller = cls._all.get(key)
            if caller is not None and caller.settings != settings and not caller._users:
                caller = None
            if caller is None:
                caller = cls._all[key] = cls(settings)
            elif caller.settings != settings:
                raise ValueError(f"agent id {settings.agent_id!r} is used with another store or other credentials here")
            return caller

    def use(self, user: object) -> Agent:
        """The agent, which stays connected until all that use it have released it."""
        with self._lock:
            self._users.add(id(user))
        return self.agent

    async def release(self, user: object) -> None:
        """Use it no more, for now."""
        with self._lock:
            self._users.discard(id(user))
            last = not self._users
        if last:
            await asyncio.to_thread(self.agent.stop)
