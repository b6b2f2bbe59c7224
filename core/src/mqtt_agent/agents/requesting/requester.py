"""The requesting half of an agent: ``peers()`` finds other agents, ``delegate()`` and ``request()`` give them tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from mqtt_agent.agents.dialect import AgentDialect
from mqtt_agent.agents.lists import PeerList
from mqtt_agent.agents.peers import PeerChange, Peers
from mqtt_agent.agents.requesting.delegations import Delegations
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.agents.requesting.new_task import new_task
from mqtt_agent.aio.lifecycle import Lifecycle
from mqtt_agent.display.lacking import AGENT, sentences
from mqtt_agent.display.suggestions import did_you_mean, hint_for
from mqtt_agent.endpoints.listing import NOT_ALL_CARDS, all_arrived
from mqtt_agent.endpoints.timeouts import TASK_TIMEOUT
from mqtt_agent.errors import ConnectionLost, PeerUnavailable
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import Connection
from mqtt_agent.wire import AgentCard, Task, TaskEvent, TaskMessage, TaskState, read_time, validate_identifier

__all__ = ["Requester"]

logger: logging.Logger = logger_of(__name__)


class Requester:
    """The methods with which an agent finds peers and gives them tasks.

    Attributes:
        agent_id: The agent's id.
        namespace: The prefix of all topics, as it was given to the agent's constructor.
    """

    agent_id: str
    namespace: str
    connection: Connection
    _dialect: AgentDialect
    _peers: Peers
    _delegations: Delegations
    _lifecycle: Lifecycle

    # Peers

    async def peers(
        self, capability: str | None = None, *, skill: str | None = None, online_only: bool = True
    ) -> PeerList:
        """List the other agents of the namespace, sorted by name.

        The first call waits until all cards have arrived. Then the agent keeps a copy of all cards up to date, and
        further calls make no round trip, until nobody has asked for a minute.

        Args:
            capability: Only agents with this capability.
            skill: Only agents with a skill that has this id or this tag.
            online_only: Leave out agents that are offline.

        Returns:
            The cards of the agents, each with the agent's present status. Until a card or a status changes, further
            listings return the same card objects. So copy a card before you change it. The list's ``incomplete`` says
            what the list lacks: agents that were lost, or the cards that the broker does not let this agent see.

        Raises:
            ConnectionLost: This agent is not started. Or the connection is away, and did not come back within 30 s.
        """
        self._check_usable()
        whole = await all_arrived(self._peers.complete, self.connection)

        def is_wanted(card: AgentCard) -> bool:
            return (
                card.name != self.agent_id
                and (card.status == "online" or not online_only)
                and (capability is None or capability in card.capabilities)
                and (skill is None or any(skill == each.id or skill in each.tags for each in card.skills or ()))
            )

        incomplete = [] if whole else [NOT_ALL_CARDS]
        lost = self._peers.lost(self.agent_id) if online_only else {}
        incomplete += sentences(AGENT, lost)
        return PeerList(await self._peers.cards(is_wanted), incomplete, lost)

    async def peer(self, name: str) -> AgentCard | None:
        """Look up one agent.

        Args:
            name: The id of the agent.

        Returns:
            The agent's card, with the agent's present status; None when the agent has published no card.

        Raises:
            InvalidIdentifier: ``name`` cannot be an agent id.
            ConnectionLost: This agent is not started.
        """
        self._check_usable()
        validate_identifier(name, "agent id")
        await self._peers.look_up(name)
        return self._peers.card(name)

    def watch_peers(self, name: str | None = None) -> AsyncIterator[PeerChange]:
        """Iterate over the changes from now on: a peer comes online, goes offline, or has another card.

        A peer that this agent has not followed yet may be told as online although it was online before.

        Args:
            name: The id of the agent to watch; None for all agents. While all agents are watched, the broker sends this
                agent each card and each status of the namespace.

        Example:
            >>> async for change in agent.watch_peers():  # doctest: +SKIP
            ...     print(change.kind, change.name)

        Raises:
            InvalidIdentifier: ``name`` cannot be an agent id.
            ConnectionLost: This agent is not started.
        """
        self._check_started()
        if name is not None:
            validate_identifier(name, "agent id")
        return self._peers.watch(name)

    # Giving tasks

    async def delegate(
        self,
        peer: str,
        prompt: str | None = None,
        *,
        type: str | None = None,
        title: str | None = None,
        messages: Sequence[TaskMessage | Mapping[str, Any]] | None = None,
        data: Any = None,
        task_id: str | None = None,
        context_id: str | None = None,
        reference_task_ids: Sequence[str] | None = None,
        expires_at: datetime | str | float | None = None,
        metadata: dict[str, Any] | None = None,
        wait_online: bool = False,
    ) -> TaskHandle:
        """Give a task to a peer, without waiting for the result.

        When this returns, the task is stored and outlives this process. A peer that is offline gets the task when it
        comes back; see :attr:`TaskHandle.queued`.

        Args:
            peer: The id of the agent that is to do the task.
            prompt: What to do, as text.
            type: The type of the task. It chooses the peer's handler.
            title: A short title for people.
            messages: The conversation so far: ``{"role": "user" | "agent", "content": ...}`` each, or with A2A's
                ``parts`` instead of ``content``. None means the prompt, as a message of the user.
            data: Structured input, any JSON value.
            task_id: An id of your own. Two tasks with the same id and the same content run once. None makes a new id.
            context_id: The conversation: all tasks of a conversation have the same ``context_id``.
            reference_task_ids: The ids of earlier tasks that the task refers to.
            expires_at: The time after which nobody needs the result: a ``datetime`` with a time zone, ISO 8601 text
                with a time zone such as ``2099-12-31T23:59:59Z``, or Unix seconds. None for never.
            metadata: Further information for the peer.
            wait_online: Whether to accept a peer that has never been seen: the task waits until the peer comes online.

        Returns:
            The handle of the task, which gives its state, its events and its result.

        Raises:
            PeerUnavailable: There is no such agent.
            TaskRejected: The task id names another task already.
            InvalidIdentifier, WireError, ValueError: An argument cannot be sent.
            PayloadTooLarge: The task is larger than the broker takes.
            StoreError: The task could not be stored, and was not sent.
            TransportError: The broker refuses the task, or this agent is not started.
        """
        task = new_task(
            self.agent_id,
            peer,
            prompt,
            type=type,
            title=title,
            messages=messages,
            data=data,
            task_id=task_id,
            context_id=context_id,
            reference_task_ids=reference_task_ids,
            expires_at=expires_at,
            metadata=metadata,
            stream=True,
        )
        return await self._give(task, wait_online=wait_online, request=False)

    async def request(
        self,
        peer: str,
        prompt: str | None = None,
        *,
        type: str | None = None,
        title: str | None = None,
        messages: Sequence[TaskMessage | Mapping[str, Any]] | None = None,
        data: Any = None,
        task_id: str | None = None,
        context_id: str | None = None,
        reference_task_ids: Sequence[str] | None = None,
        expires_at: datetime | str | float | None = None,
        metadata: dict[str, Any] | None = None,
        wait_online: bool = False,
        timeout: float | None = TASK_TIMEOUT,
        on_event: Callable[[TaskEvent], object] | None = None,
    ) -> Any:
        """Give a task to a peer, and wait for the result.

        When the asyncio task that waits here is canceled, the peer's task is canceled too, unless this agent has given
        the same task (``task_id``) in another place and still wants the result there.

        Args:
            peer: The id of the agent that is to do the task.
            prompt: What to do, as text.
            type: The type of the task. It chooses the peer's handler.
            title: A short title for people.
            messages: The conversation so far, as for :meth:`delegate`.
            data: Structured input, any JSON value.
            task_id: An id of your own, as for :meth:`delegate`.
            context_id: The conversation: all tasks of a conversation have the same ``context_id``.
            reference_task_ids: The ids of earlier tasks that the task refers to.
            expires_at: The time after which nobody needs the result: a ``datetime`` with a time zone, ISO 8601 text
                with a time zone such as ``2099-12-31T23:59:59Z``, or Unix seconds. None for never.
            metadata: Further information for the peer.
            wait_online: Whether to wait for a peer that is offline or has never been seen. By default this raises
                :class:`PeerUnavailable` at once.
            timeout: Seconds until :class:`TaskTimeout`; None for no limit. The task itself continues after a timeout:
                :meth:`resume` gives a new handle.
            on_event: Called with each event. An ``async`` function is awaited.

        Returns:
            The result, any JSON value.

        Raises:
            PeerUnavailable: There is no such agent, or the agent is offline.
            TaskFailed, TaskRejected, TaskCanceled, TaskExpired, TaskTimeout: See :meth:`TaskHandle.result`.
            InvalidIdentifier, WireError, ValueError, PayloadTooLarge, StoreError, TransportError: See
                :meth:`delegate`.
        """
        task = new_task(
            self.agent_id,
            peer,
            prompt,
            type=type,
            title=title,
            messages=messages,
            data=data,
            task_id=task_id,
            context_id=context_id,
            reference_task_ids=reference_task_ids,
            expires_at=expires_at,
            metadata=metadata,
            stream=on_event is not None,
        )
        handle = await self._give(task, wait_online=wait_online, request=True)
        telling = asyncio.ensure_future(_tell(handle, on_event)) if on_event is not None else None
        try:
            value = await handle.result(timeout)
            if telling is not None:
                await telling
            return value
        except asyncio.CancelledError:
            await asyncio.shield(self._delegations.leave(handle, "the requester gave up"))
            raise
        finally:
            if telling is not None:
                telling.cancel()

    async def resume(self, task_id: str, *, peer: str | None = None) -> TaskHandle:
        """Make a handle of a task that was delegated before, by this process or by another process with the same store.

        Args:
            task_id: The task's id.
            peer: The agent that the task was given to. Needed only for a task that the store does not know: then the
                peer is asked for the result.

        Raises:
            TaskNotFound: The store does not know the task, and ``peer`` is None.
            InvalidIdentifier: ``task_id`` cannot be a task id.
            ConnectionLost: This agent is not started.
        """
        self._check_usable()
        validate_identifier(task_id, "task id")
        return await self._delegations.resume(task_id, peer)

    async def delegations(self, state: TaskState | str | None = None) -> list[TaskHandle]:
        """List the tasks that this agent has delegated and that its store still keeps, oldest first.

        Args:
            state: Only tasks in this state; None means all states.

        Returns:
            The handles of the tasks.

        Raises:
            ValueError: ``state`` is not the name of a state.
            ConnectionLost: This agent is not started.
        """
        self._check_usable()
        return await self._delegations.handles(None if state is None else frozenset((TaskState(state),)))

    async def _give(self, task: Task, *, wait_online: bool, request: bool) -> TaskHandle:
        self._check_usable()
        peer = task.to or ""
        self._peers.want(peer)
        if not self._peers.is_online(peer) or self._dialect.says_bound(peer) is None:
            await self._look_for(peer, task.task_id, wait_online=wait_online, request=request)
        if self._dialect.required and self._dialect.says_bound(peer) is False:
            raise PeerUnavailable(
                f"agent {peer!r} takes tasks only on plain topics, and this agent has bound='require'; the task was "
                "not sent: upgrade the peer, or set its bound='prefer', or let this agent have bound='prefer'",
                task_id=task.task_id,
                peer=peer,
            )
        queued = not self._peers.is_online(peer)
        expires_at = None if task.expires_at is None else read_time(task.expires_at)
        handle = await self._delegations.open(
            task, synchronous=request, listen=task.stream is not False, expires_at=expires_at
        )
        if queued and not handle.done:
            handle.queued = True
            logger.info("agent %s is offline; task %s waits for it", peer, task.task_id)
        return handle

    async def _look_for(self, peer: str, task_id: str, *, wait_online: bool, request: bool) -> None:
        """Check that a peer can get a task, after the peer's card and status have arrived.

        Raises:
            PeerUnavailable: The peer is offline or was never seen, and the task must not wait for the peer.
        """
        is_there = self._peers.is_online if request else self._peers.is_known
        seen = await self._peers.follow(peer)
        if wait_online or not seen or is_there(peer):
            return
        await self._peers.look_again()
        if is_there(peer):
            return
        if self._peers.is_known(peer):
            why = f"agent {peer!r} is offline; the task was not sent: use delegate(), or pass wait_online=True"
        else:
            seen_all = await self._peers.complete()
            names = [name for name in self._peers.names() if name != self.agent_id]
            hint = hint_for(peer, names, "other agent") if seen_all else did_you_mean(peer, names)
            why = (
                f"no agent {peer!r} has been seen in namespace {self.namespace!r}; the task was not sent: "
                f"check the id with peers(), or pass wait_online=True{hint}"
            )
        raise PeerUnavailable(why, task_id=task_id, peer=peer)

    def _check_started(self) -> None:
        if not self._lifecycle.started:
            self.connection.check_process()
            raise ConnectionLost(f"agent {self.agent_id} is not started: use 'async with', or await start()")

    def _check_usable(self) -> None:
        self._check_started()
        self._lifecycle.check_loop()


async def _tell(handle: TaskHandle, on_event: Callable[[TaskEvent], object]) -> None:
    async for event in handle.events():
        awaitable = on_event(event)
        if asyncio.iscoroutine(awaitable):
            await awaitable
