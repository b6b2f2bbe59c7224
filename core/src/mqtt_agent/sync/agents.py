"""Agents without asyncio."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from mqtt_agent.agents import agent as aio_agent
from mqtt_agent.agents.peers import PeerChange
from mqtt_agent.agents.requesting import handle as aio_handle
from mqtt_agent.agents.store import TaskStore
from mqtt_agent.display import Screen, TaskList
from mqtt_agent.endpoints.timeouts import TASK_TIMEOUT
from mqtt_agent.sync.face import Endpoint, Face, blocking, blocking_handle, constructor, is_started
from mqtt_agent.sync.tools import ToolClient, ToolServer
from mqtt_agent.transport import Connection
from mqtt_agent.wire import AgentCard, TaskEvent, TaskMessage, TaskResult, TaskState

__all__ = ["Agent", "TaskHandle"]


class TaskHandle(Face[aio_handle.TaskHandle]):
    """See :class:`mqtt_agent.TaskHandle`."""

    @property
    def task_id(self) -> str:
        """Names the task."""
        return self._async.task_id

    @property
    def peer(self) -> str:
        """The agent that is to do it."""
        return self._async.peer

    @property
    def context_id(self) -> str | None:
        """Tasks of one conversation share it."""
        return self._async.context_id

    @property
    def state(self) -> TaskState:
        """Where it stands, as far as it is known here."""
        return self._async.state

    @property
    def attempt(self) -> int | None:
        """Which attempt its peer is at, when known."""
        return self._async.attempt

    @property
    def queued(self) -> bool:
        """Whether the peer was offline when the task was sent."""
        return self._async.queued

    @property
    def question(self) -> TaskEvent | None:
        """The event with the latest question that has no answer yet."""
        return self._async.question

    @property
    def done(self) -> bool:
        """Whether the task is over, or cannot be followed any more."""
        return self._async.done

    @property
    def response(self) -> TaskResult | None:
        """The whole result message, once there is one."""
        return self._async.response

    @property
    def dropped_events(self) -> int:
        """How many events were dropped because nobody read them."""
        return self._async.dropped_events

    @property
    def saved(self) -> Any:
        """What :meth:`save` stored last."""
        return self._async.saved

    @property
    def created_at(self) -> float:
        """When it was delegated, Unix seconds."""
        return self._async.created_at

    @property
    def progress(self) -> TaskEvent | None:
        """The latest event that told how far it is."""
        return self._async.progress

    @property
    def elapsed(self) -> float:
        """Seconds since it was delegated, until it was over."""
        return self._async.elapsed

    @property
    def message(self) -> str:
        """What its peer says."""
        return self._async.message

    result = blocking(aio_handle.TaskHandle.result)
    save = blocking(aio_handle.TaskHandle.save)
    send = blocking(aio_handle.TaskHandle.send)
    cancel = blocking(aio_handle.TaskHandle.cancel)

    def events(self) -> Iterator[TaskEvent]:
        """See :meth:`mqtt_agent.TaskHandle.events`."""
        return self._iterate(self._async.events())

    def show(self) -> None:
        """See :meth:`mqtt_agent.TaskHandle.show`; it draws in the calling thread."""
        screen = Screen()
        for view in self._iterate(self._async.views()):
            screen.draw(view)

    def _repr_html_(self) -> str:
        return self._async._repr_html_()  # pyright: ignore[reportPrivateUsage]


class Agent(Endpoint[aio_agent.Agent]):
    """See :class:`mqtt_agent.Agent`. Handlers are called on the background loop, or in threads of their own."""

    __init__ = constructor(aio_agent.Agent)  # pyright: ignore[reportAssignmentType]

    @property
    def agent_id(self) -> str:
        """Its name."""
        return self._async.agent_id

    @property
    def namespace(self) -> str:
        """The prefix of its topics."""
        return self._async.namespace

    @property
    def connection(self) -> Connection:
        """Its connection to the broker."""
        return self._async.connection

    @property
    def store(self) -> TaskStore:
        """Where its tasks are kept."""
        return self._async.store

    @property
    def card(self) -> AgentCard:
        """The card that peers see."""
        return self._async.card

    @property
    def running_tasks(self) -> int:
        """How many handlers are at work."""
        return self._async.running_tasks

    @property
    def on_task(self) -> Any:
        """See :meth:`mqtt_agent.Agent.on_task`."""
        return self._async.on_task

    peers = blocking(aio_agent.Agent.peers)
    peer = blocking(aio_agent.Agent.peer)
    serve_forever = blocking(aio_agent.Agent.serve_forever)
    delegate = blocking_handle(aio_agent.Agent.delegate, TaskHandle)
    resume = blocking_handle(aio_agent.Agent.resume, TaskHandle)

    def watch_peers(self) -> Iterator[PeerChange]:
        """See :meth:`mqtt_agent.Agent.watch_peers`."""
        return self._iterate(self._async.watch_peers())

    def request(
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
        """See :meth:`mqtt_agent.Agent.request`; ``on_event`` is called in the calling thread."""
        task: dict[str, Any] = {
            "type": type,
            "title": title,
            "messages": messages,
            "data": data,
            "task_id": task_id,
            "context_id": context_id,
            "expires_at": expires_at,
            "metadata": metadata,
            "wait_online": wait_online,
            "timeout": timeout,
        }
        if on_event is None:
            return self._background.run(self._async.request, peer, prompt, **task)
        events: queue.SimpleQueue[TaskEvent | None] = queue.SimpleQueue()
        future = self._background.start(self._async.request, peer, prompt, on_event=events.put, **task)
        future.add_done_callback(lambda _: events.put(None))
        try:
            while (event := events.get()) is not None:
                on_event(event)
            return future.result()
        finally:
            future.cancel()

    def delegations(self, state: TaskState | str | None = None) -> list[TaskHandle]:
        """See :meth:`mqtt_agent.Agent.delegations`."""
        handles = self._background.run(self._async.delegations, state)
        return TaskList(TaskHandle(handle, self._background) for handle in handles)

    def serve_tools(self, server: ToolServer) -> None:
        """See :meth:`mqtt_agent.Agent.serve_tools`; the server is a blocking one."""
        if is_started(server):
            raise RuntimeError(f"server {server.server_id} has started already, over a connection of its own")
        target = server._async  # pyright: ignore[reportPrivateUsage]
        if is_started(self):
            self._background.run(self._async.serve_tools, target)
        else:
            self._async.add_server(target)

    def add_server(self, server: ToolServer) -> None:
        """See :meth:`mqtt_agent.Agent.add_server`."""
        self.serve_tools(server)

    @property
    def tool_client(self) -> ToolClient:
        """See :attr:`mqtt_agent.Agent.tool_client`; only while the agent runs."""
        return ToolClient.around(self._async.tool_client, self._background)

    def run(self) -> None:
        """See :meth:`mqtt_agent.Agent.run`. It starts the agent itself.

        Raises:
            RuntimeError: The agent has started already.
        """
        if is_started(self):
            raise RuntimeError("run() starts the agent itself: call it instead of start(), and outside of 'with'")
        self._async.run()
