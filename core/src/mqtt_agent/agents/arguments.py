"""Checks the arguments of an agent, and makes the card, the store and the client id from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from mqtt_agent.agents.store import PostgresStore, TaskStore, default_store_path
from mqtt_agent.agents.store.choosing import store_at
from mqtt_agent.transport import Connection
from mqtt_agent.version import __version__
from mqtt_agent.wire import (
    AGENT_FEATURES,
    DEFAULT_NAMESPACE,
    AgentCard,
    AgentSkill,
    Topics,
    VersionInfo,
    validate_identifier,
)
from mqtt_agent.wire.messages import checked_card

__all__ = [
    "check_client_id",
    "check_limits",
    "check_pool",
    "checked_names",
    "client_id_of",
    "make_card",
    "make_store",
]


def make_card(
    agent_id: str,
    namespace: str,
    description: str,
    capabilities: Sequence[str],
    skills: Sequence[AgentSkill | Mapping[str, Any]],
    input_modes: Sequence[str] | None,
    output_modes: Sequence[str] | None,
    meta: dict[str, Any] | None,
) -> AgentCard:
    """Make the card of an agent; see :class:`Agent` for the arguments.

    Raises:
        ValueError: ``capabilities`` is a text, or a value has no JSON form.
    """
    if isinstance(capabilities, str):
        raise ValueError(f"capabilities is a list of words: write [{capabilities!r}]")
    card = AgentCard(
        name=agent_id,
        namespace=namespace,
        description=description,
        capabilities=list(capabilities),
        version_info=VersionInfo(sdk=__version__),
        skills=[AgentSkill.model_validate(skill) for skill in skills] or None,
        input_modes=list(input_modes) if input_modes is not None else None,
        output_modes=list(output_modes) if output_modes is not None else None,
        features=list(AGENT_FEATURES),
        meta=meta,
    )
    return checked_card(card, f"the card of agent {agent_id}")


def checked_names(names: Sequence[str] | None) -> frozenset[str] | None:
    """The allowed requesters as a set; None when all are allowed.

    Raises:
        ValueError: ``names`` is a text.
        InvalidIdentifier: A name cannot be an agent id.
    """
    if isinstance(names, str):
        raise ValueError(f"allowed_requesters is a list of agent ids: write [{names!r}]")
    return None if names is None else frozenset(validate_identifier(name, "agent id") for name in names)


def make_store(store: TaskStore | str | PathLike[str] | None, topics: Topics, agent_id: str) -> TaskStore:
    """The store of an agent; None means a file in the user's state directory."""
    if isinstance(store, TaskStore):
        return store
    if not isinstance(store, (str, PathLike)) and store is not None:
        kinds = "a path, the URL of a PostgreSQL database, or a TaskStore such as MemoryStore()"
        raise TypeError(f"store must be {kinds}, and not a value of type {type(store).__name__}")
    return store_at(default_store_path(topics.namespace, agent_id) if store is None else store)


def check_limits(max_concurrency: int, max_waiting_tasks: int, max_attempts: int | None) -> None:
    """Raise :class:`ValueError` if a limit is too small."""
    if max_concurrency < 1 or max_waiting_tasks < 1:
        raise ValueError("max_concurrency and max_waiting_tasks must be 1 or more")
    if max_attempts is not None and max_attempts < 1:
        raise ValueError(f"max_attempts must be 1 or more, or None for no limit, not {max_attempts!r}")


def check_client_id(client_id: str | None, connection: Connection | None, begins: str) -> None:
    """Raise :class:`ValueError` if a client id does not fit the other arguments, or does not begin with this text."""
    if client_id is not None and connection is not None:
        raise ValueError("client_id is for a connection of the agent's own: give it to the Connection instead")
    if client_id is not None and not client_id.startswith(begins):
        raise ValueError(f"the client id of a member begins with {begins!r}, not {client_id!r}; None makes a new one")


def check_pool(pool: bool, contexts: str, store: TaskStore, connection: Connection | None) -> None:
    """Raise :class:`ValueError` if the arguments for a pool do not fit each other."""
    if pool and (connection is not None or not isinstance(store, PostgresStore)):
        raise ValueError(
            "pool=True needs a store in PostgreSQL, such as store='postgresql://agents@db.example/agents', and no "
            "connection=, because each member has a connection of its own"
        )
    if contexts not in ("free", "ordered") or (contexts == "ordered" and not pool):
        raise ValueError(f"contexts must be 'free', or 'ordered' together with pool=True, not {contexts!r}")


def client_id_of(topics: Topics, agent_id: str) -> str:
    """The MQTT client id, which names the session: one for each agent id and namespace."""
    if topics.namespace == DEFAULT_NAMESPACE:
        return agent_id
    return f"{agent_id}@{topics.namespace.replace('/', '.')}"
