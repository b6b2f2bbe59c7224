"""The base of objects that own or share a connection, and that users close: directly, or with ``with``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from typing_extensions import Self

from mqtt_agent.aio.handlers import run_in_thread
from mqtt_agent.display import end_quietly
from mqtt_agent.errors import MQTTAgentError

__all__ = ["Closing"]


class Closing(ABC):
    """An object with a method ``close`` that blocks. It is also a context manager, sync and async."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect, unless others use the same connection. A later use connects again."""

    async def aclose(self) -> None:
        """Call :meth:`close` in a thread, and await its end."""
        await run_in_thread(self.close, "mqtt-agent-close")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for each in error:
            end_quietly(each, MQTTAgentError)
        await self.aclose()
