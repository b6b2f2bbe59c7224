"""The agents in whose names a process gives tasks. Equal settings share one agent and one connection."""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, TypeVar

from mqtt_agent.adapting.closing import Closing
from mqtt_agent.adapting.identity import default_agent_id
from mqtt_agent.agents import MemoryStore, TaskStore
from mqtt_agent.aio.forks import in_child
from mqtt_agent.sync import Agent
from mqtt_agent.transport import BrokerSettings

__all__ = ["Requester", "RequesterSettings"]

T = TypeVar("T")

_FRESH_SESSION_EXPIRY = 60
"""Seconds. A generated agent id is never used again, so the broker need not keep the agent's session for long."""

Store = TaskStore | str | PathLike[str] | None


@dataclass(frozen=True, eq=False)
class RequesterSettings:
    """The settings of an agent that gives tasks.

    Attributes:
        broker: How to reach the broker.
        agent_id: The agent's name; None lets the process choose a name.
        store: Where the given tasks are kept; see :class:`mqtt_agent.Agent`.
        prefix: The first part of a generated name.
        lasting: Whether the generated name is the same each time the program runs on this machine. Otherwise the name
            is new in each process, and the given tasks are kept in memory unless ``store`` is given.
        options: Further arguments of :class:`mqtt_agent.Agent`, such as ``max_payload`` in bytes.
    """

    broker: BrokerSettings
    agent_id: str | None = None
    store: Store = field(default=None, repr=False)
    prefix: str = "requester"
    lasting: bool = False
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def same_agent(self, other: RequesterSettings) -> bool:
        """Whether both settings mean the same agent."""
        return self._identity() == other._identity() and self.broker == other.broker and self._where() == other._where()

    def same_name(self, other: RequesterSettings) -> bool:
        """Whether both settings name the same agent id at the same broker, even with another login or store."""
        mine, theirs = self.broker, other.broker
        place, other_place = (
            BrokerSettings(mine.broker, mine.namespace),
            BrokerSettings(theirs.broker, theirs.namespace),
        )
        return self.agent_id is not None and self.agent_id == other.agent_id and place == other_place

    def _identity(self) -> tuple[str | None, str, bool]:
        return (self.agent_id, "", False) if self.agent_id is not None else (None, self.prefix, self.lasting)

    def _where(self) -> Any:
        return self.store if self.store is None or isinstance(self.store, TaskStore) else os.fspath(self.store)


class _Shared:
    """An agent of this process, and the requesters that use the agent now."""

    def __init__(self, settings: RequesterSettings) -> None:
        self.settings = settings
        self.users: weakref.WeakSet[Requester] = weakref.WeakSet()
        self._agent: Agent | None = _make(settings)
        in_child(self._after_fork)

    @property
    def agent(self) -> Agent:
        if self._agent is None:
            self._agent = _make(self.settings)
        return self._agent

    def has_name(self, name: str) -> bool:
        """Whether the agent has this name; an agent that was not made yet has no name."""
        return self._agent is not None and self._agent.agent_id == name

    @property
    def inherited(self) -> bool:
        """Whether the agent was connected before ``os.fork()``, and this is the child process."""
        return self._agent is not None and self._agent.inherited

    def _after_fork(self) -> None:
        if not self.inherited:
            self._agent = None  # the child makes an agent of its own, so a generated name is new


_lock = threading.Lock()
_all: list[_Shared] = []


@in_child
def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


class Requester(Closing):
    """A lease on the agent in whose name tasks are given.

    All requesters of a process with equal settings share one agent, and so one connection. The agent connects on its
    first use. The agent disconnects when the last requester that has used the agent is closed; a later use connects
    again.

    Example:
        >>> requester = Requester(RequesterSettings(BrokerSettings(), agent_id="planner"))  # doctest: +SKIP
        >>> requester.agent.run_on_loop(work)  # doctest: +SKIP
        >>> requester.close()  # doctest: +SKIP

    Args:
        settings: The settings of the agent.
        agent: An agent to use instead. Its owner starts and stops this agent.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL, or this process uses the agent id with another login or store.
    """

    def __init__(self, settings: RequesterSettings, *, agent: Agent | None = None) -> None:
        self._settings = settings
        self._agent = agent
        self._shared: _Shared | None = None
        if agent is None:
            with _lock:
                self._shared = _find_or_make(settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> Requester:
        """Another lease on the same agent."""
        return Requester(self._settings, agent=self._agent)

    def __reduce__(self) -> tuple[Any, ...]:
        """The settings can be pickled, with the credentials in them. The connection cannot.

        Raises:
            TypeError: The agent, or a store in memory, belongs to this process.
        """
        if self._agent is not None:
            raise TypeError("agent= belongs to this process and cannot be pickled: give agent_id= and broker= instead")
        if isinstance(self._settings.store, TaskStore):
            raise TypeError("a store object belongs to this process and cannot be pickled: give a path as store=")
        return Requester, (self._settings,)

    @property
    def agent_id(self) -> str:
        """The name in which tasks are given."""
        return self._peek().agent_id

    @property
    def agent(self) -> Agent:
        """The agent, which stays connected until every requester that has used the agent is closed."""
        if self._shared is not None:
            with _lock:
                if self._shared not in _all:
                    again = _Shared(self._shared.settings) if self._shared.inherited else self._shared
                    self._shared = _known(self._shared.settings) or _add(again)
                self._shared.users.add(self)
        return self._peek()

    def _peek(self) -> Agent:
        agent = self._agent if self._shared is None else self._shared.agent
        assert agent is not None
        return agent

    def run_on_loop(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run ``function(agent, *arguments)`` on the agent's event loop, and block for the result."""
        return self.agent.run_on_loop(function, *arguments)

    async def await_on_loop(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run ``function(agent, *arguments)`` on the agent's event loop, and await the result on any loop."""
        return await self.agent.await_on_loop(function, *arguments)

    def close(self) -> None:
        """Give the lease back. Peers continue to work on their tasks."""
        shared = self._shared
        if shared is None:
            return
        with _lock:
            shared.users.discard(self)
            last = not shared.users
            if last and shared in _all:
                _all.remove(shared)
        if last:
            shared.agent.stop_unless(lambda: bool(shared.users))  # another thread may use the agent again meanwhile


def _known(settings: RequesterSettings) -> _Shared | None:
    return next((shared for shared in _usable() if shared.settings.same_agent(settings)), None)


def _usable() -> list[_Shared]:
    return [shared for shared in _all if not shared.inherited]


def _add(shared: _Shared) -> _Shared:
    _all.append(shared)
    return shared


def _find_or_make(settings: RequesterSettings) -> _Shared:
    known = _known(settings)
    if known is not None:
        return known
    for shared in [each for each in _usable() if each.settings.same_name(settings)]:
        if shared.users:
            raise ValueError(
                f"agent id {settings.agent_id!r} is used in this process with another store or other credentials: "
                "use the same settings at both places, or another agent id at one of them"
            )
        _all.remove(shared)
    return _add(_Shared(settings))


def _make(settings: RequesterSettings) -> Agent:
    options: dict[str, Any] = {"store": settings.store, **settings.options}
    name, kept = settings.agent_id, True
    if name is None:
        name, kept = f"{settings.prefix}-{uuid.uuid4().hex[:12]}", False
        if settings.lasting:
            name, kept = default_agent_id(settings.broker.namespace)
            if any(shared.has_name(name) for shared in _all):
                name, kept = f"{name}-{uuid.uuid4().hex[:6]}", False
    if not kept:
        options.setdefault("session_expiry", _FRESH_SESSION_EXPIRY)
        options["store"] = MemoryStore() if settings.store is None else settings.store
    about: dict[str, Any] = {"description": "Gives tasks to others", "meta": {"requester": True}}
    return Agent(name, **{**about, **options}, **settings.broker.as_arguments())
