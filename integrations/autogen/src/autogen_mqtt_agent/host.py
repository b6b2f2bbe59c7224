"""A host for an agent or a team that takes part in teams on other hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mqtt_agent import Agent
from mqtt_agent.adapting.instances import WHOLE_EVERY
from mqtt_agent.adapting.options import HostOptions
from mqtt_agent.adapting.serving import OnStarted, serve
from mqtt_agent.deprecation import renamed_arguments, warn_renamed
from typing_extensions import Self, Unpack

from autogen_mqtt_agent.instances import Factory
from autogen_mqtt_agent.messages import AnyMessage, Codec
from autogen_mqtt_agent.taking import Turns
from autogen_mqtt_agent.turns import AUTOGEN, CONTROL, MAX_PAYLOAD, TURN

__all__ = ["AgentHost", "aserve_agent", "aserve_team", "serve_agent", "serve_team"]

_WAITING_TURNS = 1000


class AgentHost(Agent):
    """Hosts an agent or a team for :class:`MQTTAgent` participants. Each conversation has an instance of its own.

    A host is a :class:`mqtt_agent.Agent`, so it is an async context manager. ``run()`` serves until SIGINT or SIGTERM.
    After each turn, the instance's state and its answer are stored together. A host that is killed in the middle of a
    turn takes that turn again after its restart, from the state before the turn. When an answered turn is given again,
    the host sends the stored answer.

    The host also takes other tasks, from agents that do not use AutoGen. The instance gets the task's prompt, its
    data and its pictures; any other file is named in the text. The result is the answer as text, or a message with
    pictures. Tasks with one context id are one conversation, as long as the host runs.

    Args:
        factory: Makes the instance of a conversation, a ``ChatAgent`` or a ``Team``; may be async. The function gets
            the conversation's id and, if it takes two arguments, also the roster of the caller's team: a dict with the
            names of the other participants and what each can do. The function must make a new instance each time, with
            new participants: a turn fails when the instance, or a part that remembers, belongs to another conversation.
        agent_id: The host's agent id. Only one process at a time can use it.
        message_types: Types of messages that callers may send besides AutoGen's own.
        max_conversations: How many instances are kept in memory between turns. For any other conversation, the next
            turn makes a new instance from the stored state.
        max_concurrency: How many turns run at once.
        retention: Seconds for which a conversation can continue from the state after a turn. After that, the
            conversation can continue only while its instance is in memory. The store keeps turns for up to twice this
            time, and for at most one day longer.
        options: See :class:`mqtt_agent.Agent`: ``broker``, ``namespace``, ``description``, ``capabilities``, ``store``
            (where turns are kept), ``credentials``, ``tls`` and so on. ``drain_timeout`` is how many seconds
            :meth:`stop` waits for turns that run; a turn that needs longer is taken again at the next start.

    Raises:
        TypeError: ``factory`` is an agent or a team, and not a function that makes one.
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL.
    """

    @renamed_arguments(max_concurrent="max_concurrency")
    def __init__(
        self,
        factory: Factory,
        *,
        agent_id: str,
        message_types: Sequence[type[AnyMessage]] = (),
        max_conversations: int = 100,
        max_concurrency: int = 8,
        retention: float = 30 * 24 * 3600,
        **options: Unpack[HostOptions],
    ) -> None:
        if not callable(factory):
            made = type(factory).__name__
            raise TypeError(f"give a function that makes a {made} for each conversation, not a {made}")
        options.setdefault("max_payload", MAX_PAYLOAD)
        options["meta"] = {AUTOGEN: 1, **(options.get("meta") or {})}
        # Turns that wait for an earlier turn of their conversation count too.
        # The change by a turn needs the states before it, back to a whole one. So all turns are kept a little longer.
        whole_every = min(retention, WHOLE_EVERY)
        retention += whole_every
        super().__init__(agent_id, max_concurrency=_WAITING_TURNS, retention=retention, **options)
        self._max_concurrency = max_concurrency  # turns that run may block threads; turns that wait do not
        self._turns = Turns(self, factory, Codec(message_types), max_conversations, max_concurrency, whole_every)
        self.on_task(TURN)(self._turns.on_turn)
        self.on_task(CONTROL)(self._turns.on_control)
        self.on_task(self._turns.on_plain_task)

    @property
    def agent(self) -> Self:
        """The old attribute for the agent: the host itself is the agent now."""
        warn_renamed("AgentHost.agent", "AgentHost")
        return self

    @property
    def live_conversations(self) -> int:
        """How many instances are in memory."""
        return self._turns.instances.count

    async def stop(self) -> None:
        """Finish the turns that run, disconnect, and close all instances. A second call changes nothing."""
        try:
            await super().stop()
        finally:
            await self._turns.instances.close()


def serve_agent(factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Any) -> None:
    """Host an agent until SIGINT or SIGTERM, and block. In async code, use :func:`aserve_agent`.

    Example:
        >>> serve_agent(make_writer, agent_id="writer", broker="mqtt://localhost:1883")  # doctest: +SKIP

    Args:
        factory: Called with a conversation's id; returns the agent that takes part in the conversation.
        agent_id: The host's agent id. Only one process at a time can use it.
        on_started: Called when the host serves. By default, a line on the standard error says what is served.
        options: See :class:`AgentHost`: ``broker``, ``namespace``, ``store``, ``credentials`` and so on.

    Raises:
        SystemExit: The broker cannot be reached or refuses, the store cannot be opened, or another process with the
            same agent id has taken over. With ``on_started``, the
            :class:`mqtt_agent.errors.MQTTAgentError` itself is raised.
    """
    return serve(AgentHost(factory, agent_id=agent_id, **options), "serve_agent", on_started)


async def aserve_agent(factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Any) -> None:
    """Host an agent until the task that awaits this function is canceled. For the arguments see :func:`serve_agent`.

    Raises:
        TransportError: The broker cannot be reached or refuses, or another process has taken over the agent id.
        StoreError: The store cannot be opened.
    """
    await AgentHost(factory, agent_id=agent_id, **options).serve_forever(on_started)


def serve_team(factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Any) -> None:
    """Host a team until SIGINT or SIGTERM, and block. In async code, use :func:`aserve_team`.

    The factory returns the team that takes part in a conversation. The team's last message is its answer, and the
    earlier messages are its inner messages. For the other arguments and the errors see :func:`serve_agent`.
    """
    return serve(AgentHost(factory, agent_id=agent_id, **options), "serve_team", on_started)


async def aserve_team(factory: Factory, *, agent_id: str, on_started: OnStarted | None = None, **options: Any) -> None:
    """Host a team until the task that awaits this function is canceled. See :func:`serve_team`."""
    await AgentHost(factory, agent_id=agent_id, **options).serve_forever(on_started)
