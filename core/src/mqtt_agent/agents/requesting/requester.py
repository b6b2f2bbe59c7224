"""What an agent can ask of its peers: who they are, and to do something."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pydantic import ValidationError

from mqtt_agent.agents.lists import PeerList
from mqtt_agent.agents.peers import PeerChange, Peers
from mqtt_agent.agents.requesting.delegations import Delegations
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.endpoints.retained import BARRIER
from mqtt_agent.endpoints.timeouts import TASK_TIMEOUT
from mqtt_agent.errors import ConnectionLost, InvalidIdentifier, PeerUnavailable, WireError
from mqtt_agent.wire import (
    AgentCard,
    Task,
    TaskEvent,
    TaskMessage,
    TaskState,
    new_task_id,
    read_time,
    to_json,
    utc_now,
    validate_identifier,
)

__all__ = ["Requester"]

logger: logging.Logger = logging.getLogger(__name__)


class Requester:
    """The half of an agent that finds peers and gives them tasks.

    Attributes:
        agent_id: The agent's name.
        namespace: The prefix of all topics, as it was given.
    """

    agent_id: str
    namespace: str
    _peers: Peers
    _delegations: Delegations
    _started: bool

    # Peers

    async def peers(
        self, capability: str | None = None, *, skill: str | None = None, online_only: bool = True
    ) -> list[AgentCard]:
        """The other agents of the namespace, by name. The list is kept up to date: asking makes no round trip.

        Args:
            capability: Only those with this capability.
            skill: Only those with a skill of this id or tag.
            online_only: Leave out those that are offline.

        Returns:
            Their cards, with the status that is true now.
        """
        self._check_started()
        await self._peers.complete()
        return PeerList(
            card
            for card in self._peers.cards()
            if card.name != self.agent_id
            and (card.status == "online" or not online_only)
            and (capability is None or capability in card.capabilities)
            and (skill is None or any(skill == each.id or skill in each.tags for each in card.skills or ()))
        )

    async def peer(self, name: str) -> AgentCard | None:
        """The card of one agent, or None when it has shown none."""
        self._check_started()
        validate_identifier(name, "agent id")
        if self._peers.card(name) is None:
            await self._peers.complete()
        return self._peers.card(name)

    def watch_peers(self) -> AsyncIterator[PeerChange]:
        """Tell what changes from now on: a peer that comes online, goes offline, or gets another card.

        Example:
            >>> async for change in agent.watch_peers():  # doctest: +SKIP
            ...     print(change.kind, change.name)
        """
        self._check_started()
        return self._peers.watch()

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
        expires_at: datetime | str | None = None,
        metadata: dict[str, Any] | None = None,
        wait_online: bool = False,
    ) -> TaskHandle:
        """Give a task to a peer. When this returns, the task is stored: it outlives this process.

        A peer that is offline gets the task when it comes back, see :attr:`TaskHandle.queued`.

        Args:
            peer: The agent that is to do it.
            prompt: What to do, as text.
            type: What kind of task it is; chooses the peer's handler.
            title: A line for people.
            messages: The conversation so far, ``{"role": "user" | "agent", "content": ...}`` each; the prompt alone
                by default.
            data: Structured input, any JSON value.
            task_id: An id of your own: the same id with the same content never runs twice. A fresh one by default.
            context_id: Tasks of one conversation share it.
            expires_at: When nobody needs the result any more: a ``datetime``, or ISO 8601. None for never.
            metadata: Anything else.
            wait_online: Take also a peer that has never been seen: the task waits for it.

        Raises:
            PeerUnavailable: There is no such agent.
            TaskRejected: The task id names another task already.
            InvalidIdentifier, WireError, ValueError: An argument cannot be sent.
            PayloadTooLarge: The task is larger than the broker takes.
            StoreError: It could not be stored.
            TransportError: The broker refuses it.
        """
        task = self._make_task(
            peer, prompt, type, title, messages, data, task_id, context_id, expires_at, metadata, stream=True
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
        expires_at: datetime | str | None = None,
        metadata: dict[str, Any] | None = None,
        wait_online: bool = False,
        timeout: float | None = TASK_TIMEOUT,
        on_event: Callable[[TaskEvent], Any] | None = None,
    ) -> Any:
        """Give a task to a peer and wait for its result. Canceling the task that waits cancels the peer's.

        Args:
            peer: The agent that is to do it.
            prompt: See :meth:`delegate`, also for the others.
            type: See there.
            title: See there.
            messages: See there.
            data: See there.
            task_id: See there.
            context_id: See there.
            expires_at: See there.
            metadata: See there.
            wait_online: Wait for a peer that is offline, or has never been seen, instead of failing at once.
            timeout: Seconds until :class:`TaskTimeout`; None waits for ever. The task goes on: :meth:`resume` it.
            on_event: Called, or awaited, with each event.

        Returns:
            The result, any JSON value.

        Raises:
            PeerUnavailable: There is no such agent, or it is offline.
            TaskFailed, TaskRejected, TaskCanceled, TaskExpired, TaskTimeout: See :meth:`TaskHandle.result`.
            InvalidIdentifier, WireError, ValueError, PayloadTooLarge, StoreError, TransportError: See
                :meth:`delegate`.
        """
        stream = on_event is not None
        task = self._make_task(
            peer, prompt, type, title, messages, data, task_id, context_id, expires_at, metadata, stream=stream
        )
        handle = await self._give(task, wait_online=wait_online, request=True)
        telling = asyncio.ensure_future(_tell(handle, on_event)) if on_event is not None else None
        try:
            value = await handle.result(timeout)
            if telling is not None:
                await telling
            return value
        except asyncio.CancelledError:
            await asyncio.shield(handle.cancel("the requester gave up"))
            raise
        finally:
            if telling is not None:
                telling.cancel()

    async def resume(self, task_id: str, *, peer: str | None = None) -> TaskHandle:
        """A handle on a task that was delegated before, in this process or another one with the same store.

        Args:
            task_id: Which task.
            peer: Who was to do it, for a task that this agent's store does not know: its peer is asked.

        Raises:
            TaskNotFound: The store does not know it, and no peer was named.
        """
        self._check_started()
        validate_identifier(task_id, "task id")
        return await self._delegations.resume(task_id, peer)

    async def delegations(self, state: TaskState | str | None = None) -> list[TaskHandle]:
        """Handles on what this agent has delegated and its store still keeps, oldest first.

        Args:
            state: Only the tasks in this state.
        """
        self._check_started()
        return await self._delegations.handles(None if state is None else frozenset((TaskState(state),)))

    def _make_task(
        self,
        peer: str,
        prompt: str | None,
        type: str | None,
        title: str | None,
        messages: Sequence[TaskMessage | Mapping[str, Any]] | None,
        data: Any,
        task_id: str | None,
        context_id: str | None,
        expires_at: datetime | str | None,
        metadata: dict[str, Any] | None,
        *,
        stream: bool,
    ) -> Task:
        if isinstance(expires_at, datetime):
            expires_at = expires_at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if expires_at is not None and read_time(expires_at) is None:
            raise ValueError(f"expires_at must be a datetime or ISO 8601, not {expires_at!r}")
        if task_id is not None and task_id.startswith(BARRIER):
            raise InvalidIdentifier(f"task id {task_id!r:.80}: those that begin with {BARRIER!r} are not free")
        try:
            if messages is not None:
                conversation = [TaskMessage.model_validate(to_json(each)) for each in messages]
            else:
                conversation = None if prompt is None else [TaskMessage(role="user", content=prompt)]
            return Task(
                task_id=validate_identifier(task_id or new_task_id(), "task id"),
                sender=self.agent_id,
                to=validate_identifier(peer, "agent id"),
                type=type,
                title=title,
                prompt=prompt,
                messages=conversation,
                context_id=context_id,
                data=to_json(data),
                created_at=utc_now(),
                expires_at=expires_at,
                metadata=None if metadata is None else to_json(metadata),
                stream=None if stream else False,
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = "/".join(str(part) for part in first["loc"])
            raise WireError(f"the task cannot be made: {where}: {first['msg']}") from error

    async def _give(self, task: Task, *, wait_online: bool, request: bool) -> TaskHandle:
        self._check_started()
        peer = task.to or ""
        if not self._peers.is_online(peer):
            await self._look_for(peer, task.task_id, wait_online=wait_online, request=request)
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
        """Wait until all peers have been seen, and raise when this one is not there and it matters."""
        is_there = self._peers.is_online if request else self._peers.is_known
        seen_all = await self._peers.complete()
        if wait_online or not seen_all or is_there(peer):
            return
        await self._peers.look_again()
        if is_there(peer):
            return
        if self._peers.is_known(peer):
            why = f"agent {peer!r} is offline; the task was not sent: delegate() it, or wait_online=True"
        else:
            why = (
                f"no agent {peer!r} has been seen in namespace {self.namespace!r}; the task was not sent: "
                "check the id with peers(), or wait_online=True"
            )
        raise PeerUnavailable(why, task_id=task_id, peer=peer)

    def _check_started(self) -> None:
        if not self._started:
            raise ConnectionLost(f"agent {self.agent_id} is not started: use 'async with', or await start()")


async def _tell(handle: TaskHandle, on_event: Callable[[TaskEvent], Any]) -> None:
    async for event in handle.events():
        awaitable = on_event(event)
        if asyncio.iscoroutine(awaitable):
            await awaitable
