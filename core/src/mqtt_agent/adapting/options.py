"""The options that an adapter's host passes on to its agent, as types: type checkers refuse a misspelled option."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from typing_extensions import TypedDict

from mqtt_agent.agents import TaskStore
from mqtt_agent.transport import TLS, Bound, Connection, Credentials, MessageAudit, MessageIdentity
from mqtt_agent.wire import AgentSkill

__all__ = ["AgentOptions", "HostOptions"]


class HostOptions(TypedDict, total=False):
    """The arguments of :class:`mqtt_agent.Agent` that a host passes on when it sets the other arguments itself.

    These are all arguments except ``agent_id``, ``max_concurrency`` and ``retention``.
    """

    broker: str | Sequence[str] | None
    namespace: str
    description: str
    capabilities: Sequence[str]
    skills: Sequence[AgentSkill | Mapping[str, Any]]
    input_modes: Sequence[str] | None
    output_modes: Sequence[str] | None
    meta: dict[str, Any] | None
    store: TaskStore | str | PathLike[str] | None
    credentials: Credentials | None
    tls: ssl.SSLContext | TLS | None
    bound: Bound
    identity: MessageIdentity | None
    client_id: str | None
    audit: MessageAudit | None
    connection: Connection | None
    max_waiting_tasks: int
    max_attempts: int | None
    drain_timeout: float
    will_delay: int
    session_expiry: int
    max_payload: int
    max_peers: int
    allowed_requesters: Sequence[str] | None
    pool: bool
    contexts: Literal["free", "ordered"]


class AgentOptions(HostOptions, total=False):
    """The arguments of :class:`mqtt_agent.Agent` except ``agent_id``."""

    max_concurrency: int
    retention: float
