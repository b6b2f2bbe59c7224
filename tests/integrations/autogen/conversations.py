"""Agents that several tests host, and the teams of these agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken
from autogen_mqtt_agent import AgentHost
from mqtt_agent import MemoryStore

from .models import says


class Counter(BaseChatAgent):
    """An agent that answers with the number of its turns and the messages that it has received."""

    def __init__(self, name: str = "counter") -> None:
        super().__init__(name, "Counts")
        self.turns = 0
        self.heard: list[str] = []

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        self.turns += 1
        self.heard += [message.to_text() for message in messages]
        return Response(chat_message=TextMessage(content=f"{self.turns}: {self.heard}", source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        self.turns, self.heard = 0, []

    async def save_state(self) -> dict[str, Any]:
        return {"turns": self.turns, "heard": self.heard}

    async def load_state(self, state: Any) -> None:
        self.turns, self.heard = state["turns"], list(state["heard"])


class Gate(Counter):
    """The same agent, but it waits until the test lets it continue, and stores how the wait ended."""

    def __init__(self, name: str = "counter") -> None:
        super().__init__(name)
        self.open = asyncio.Event()
        self.entered = asyncio.Event()
        self.told: list[str] = []

    async def on_messages(self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken) -> Response:
        self.entered.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.told.append("canceled")
            raise
        return await super().on_messages(messages, cancellation_token)

    async def on_pause(self, cancellation_token: CancellationToken) -> None:
        self.told.append("paused")

    async def on_resume(self, cancellation_token: CancellationToken) -> None:
        self.told.append("resumed")

    async def close(self) -> None:
        self.told.append("closed")


def talker(name: str, *answers: Any, **options: Any) -> AssistantAgent:
    """An assistant with these scripted answers."""
    return AssistantAgent(name, says(*answers), description=f"{name} talks", **options)


@asynccontextmanager
async def hosting(url: str, namespace: str, **factories: Callable[..., Any]) -> AsyncIterator[dict[str, AgentHost]]:
    """Run one host for each factory, with these names."""
    hosts = {
        name: AgentHost(factory, agent_id=name, broker=url, namespace=namespace, store=MemoryStore(), drain_timeout=0.5)
        for name, factory in factories.items()
    }
    try:
        for host in hosts.values():
            await host.start()
        yield hosts
    finally:
        for host in hosts.values():
            await host.stop()
