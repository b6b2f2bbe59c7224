"""The agent in whose name tasks are given away: one for all that use the same name in a process."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Awaitable, Callable
from os import PathLike
from typing import Any, TypeVar

from mqtt_agent import TLS, MemoryStore, Password, TaskStore, Token
from mqtt_agent import Agent as AsyncAgent
from mqtt_agent.sync import Agent

__all__ = ["AgentToolClient", "Requester"]

_EPHEMERAL_SESSION = 60
T = TypeVar("T")

_lock = threading.Lock()
_shared: dict[tuple[Any, ...], Agent] = {}
_users: dict[tuple[Any, ...], set[int]] = {}


class Requester:
    """A lease on the agent with a name; it connects on first use, and the last lease that is closed stops it.

    Args:
        agent_id: The agent's name; None for one that this program always has on this machine.
        broker: See :class:`mqtt_agent.Agent`, also for the others.
        namespace: See there.
        store: See there.
        credentials: See there.
        tls: See there.
        agent: Use this agent instead, and leave its life to its owner.
    """

    def __init__(
        self,
        agent_id: str | None,
        *,
        broker: str | None,
        namespace: str,
        store: TaskStore | str | PathLike[str] | None,
        credentials: Password | Token | None,
        tls: ssl.SSLContext | TLS | None,
        agent: Agent | None = None,
    ) -> None:
        self._key: tuple[Any, ...] | None = None
        if agent is not None:
            self.agent: Agent = agent
            return
        url = broker or os.environ.get("MQTT_AGENT_BROKER")
        self._key = (url, namespace, agent_id, _same(store), id(credentials), id(tls))
        with _lock:
            known = _shared.get(self._key)
            if known is None:
                options: dict[str, Any] = {"broker": broker, "namespace": namespace, "store": store}
                name = agent_id
                if name is None:
                    from mqtt_agent.adapting.identity import default_agent_id

                    name, lasting = default_agent_id(namespace)
                    if not lasting:
                        options |= {"session_expiry": _EPHEMERAL_SESSION}
                        options["store"] = MemoryStore() if store is None else store
                known = _shared[self._key] = Agent(
                    name,
                    description="Gives tasks to others",
                    meta={"requester": True},
                    credentials=credentials,
                    tls=tls,
                    **options,
                )
            self.agent = known
            _users.setdefault(self._key, set()).add(id(self))

    def close(self) -> None:
        """Give the lease back."""
        if self._key is None:
            return
        with _lock:
            users = _users.get(self._key, set())
            users.discard(id(self))
            last = not users and _shared.get(self._key) is self.agent
            if last:
                _shared.pop(self._key)
                _users.pop(self._key, None)
        if last:
            self.agent.stop()


class AgentToolClient:
    """The tool client of an agent, for callers on any thread and loop; both connect on first use.

    Args:
        agent: Whose connection and name it uses.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def run_on_loop(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Block for ``function(tool_client, *arguments)``."""
        return self._agent.run_on_loop(_with_tool_client, function, arguments)

    async def await_on_loop(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """The same, awaited."""
        return await self._agent.await_on_loop(_with_tool_client, function, arguments)


async def _with_tool_client(agent: AsyncAgent, function: Callable[..., Awaitable[T]], arguments: tuple[Any, ...]) -> T:
    return await function(agent.tool_client, *arguments)


def _same(store: TaskStore | str | PathLike[str] | None) -> Any:
    return id(store) if isinstance(store, TaskStore) else None if store is None else os.fspath(store)
