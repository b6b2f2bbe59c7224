"""The identity under which a program's crews give tasks to remote members."""

from __future__ import annotations

import ssl
import threading
import uuid
from os import PathLike
from typing import Any

from mqtt_agent import TLS, MemoryStore, Password, TaskStore, Token
from mqtt_agent.sync import Agent

__all__ = ["requester"]

_agents: dict[Any, Agent] = {}
_lock = threading.Lock()


def requester(
    broker: str | None,
    namespace: str,
    agent_id: str | None,
    store: TaskStore | str | PathLike[str] | None,
    credentials: Password | Token | None,
    tls: ssl.SSLContext | TLS | None,
) -> Agent:
    """The agent that gives the tasks. Members with the same settings share one, and so one connection.

    Without ``agent_id`` it has a name of its own and keeps its tasks in memory: nobody could take them up again.
    """
    where = store if store is None or isinstance(store, TaskStore) else str(store)
    key = (broker, namespace, agent_id, where, id(credentials), id(tls))
    with _lock:
        agent = _agents.get(key)
        if agent is None:
            agent = _agents[key] = Agent(
                agent_id or f"crew-{uuid.uuid4().hex[:8]}",
                broker=broker,
                namespace=namespace,
                description="Gives the tasks of a CrewAI crew to its remote members.",
                store=MemoryStore() if store is None and agent_id is None else store,
                credentials=credentials,
                tls=tls,
            )
        return agent
