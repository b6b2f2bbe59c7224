"""The agent and the task handle, with methods that block."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, overload

from mqtt_agent.agents import agent as aio_agent
from mqtt_agent.agents.executing.router import TaskHandler
from mqtt_agent.agents.lists import PeerList
from mqtt_agent.agents.peers import PeerChange
from mqtt_agent.agents.requesting import handle as aio_handle
from mqtt_agent.agents.store import TaskStore
from mqtt_agent.aio.contexts import refuse_in_event_loop
from mqtt_agent.display import Screen, TaskList
from mqtt_agent.endpoints.timeouts import TASK_TIMEOUT
from mqtt_agent.sync.blocking import Endpoint, Wrapper, is_started, parameters_of
from mqtt_agent.sync.tool_client import ToolClient
from mqtt_agent.sync.tool_server import ToolServer
from mqtt_agent.transport import Connection
from mqtt_agent.wire import AgentCard, TaskEvent, TaskMessage, TaskResult, TaskState

__all__ = ["Agent", "TaskHandle"]

Handler = TypeVar("Handler", bound=TaskHandler)


class TaskHandle(Wrapper[aio_handle.TaskHandle]):
    """A task that was given to a peer; the blocking form of :class:`mqtt_agent.TaskHandle`."""

    @property
    def task_id(self) -> str:
        """The id of the task."""
        return self._async.task_id

    @property
    def peer(self) -> str:
        """The id of the agent that works on the task."""
        return self._async.peer

    @property
    def context_id(self) -> str | None:
        """The id of the conversation that the task belongs to; None when there is none."""
        return self._async.context_id

    @property
    def state(self) -> TaskState:
        """The latest state of the task that is known here."""
        return self._async.state

    @property
    def attempt(self) -> int | None:
        """The number of the attempt that the peer works on; None when unknown."""
        return self._async.attempt

    @property
    def queued(self) -> bool:
        """Whether the peer was offline when the task was sent."""
        return self._async.queued

    @property
    def bound(self) -> bool:
        """Whether the task was given on a sender-bound topic; see :attr:`mqtt_agent.TaskHandle.bound`."""
        return self._async.bound

    @property
    def question(self) -> TaskEvent | None:
        """The event with the latest question that has no answer yet; None when there is none."""
        return self._async.question

    @property
    def done(self) -> bool:
        """Whether the task has a result or an error, or cannot be followed any more."""
        return self._async.done

    @property
    def response(self) -> TaskResult | None:
        """The whole result message; None until the message arrives."""
        return self._async.response

    @property
    def dropped_events(self) -> int:
        """How many events were dropped because they were not read in time."""
        return self._async.dropped_events

    @property
    def saved(self) -> Any:
        """The value that :meth:`save` stored last; None when there is none."""
        return self._async.saved

    @property
    def created_at(self) -> float:
        """When the task was delegated, in seconds since the Unix epoch."""
        return self._async.created_at

    @property
    def progress(self) -> TaskEvent | None:
        """The latest progress event; None when there was none."""
        return self._async.progress

    @property
    def elapsed(self) -> float:
        """Seconds from the delegation to the end of the task, or to now while the task is not over."""
        return self._async.elapsed

    @property
    def message(self) -> str:
        """The error of the task, or the peer's latest question or progress message; empty when there is none."""
        return self._async.message

    @parameters_of(aio_handle.TaskHandle.result)
    def result(self, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`mqtt_agent.TaskHandle.result`."""
        return self._background.run(self._async.result, *args, **kwargs)

    @parameters_of(aio_handle.TaskHandle.save)
    def save(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.TaskHandle.save`."""
        self._background.run(self._async.save, *args, **kwargs)

    @parameters_of(aio_handle.TaskHandle.send)
    def send(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.TaskHandle.send`."""
        self._background.run(self._async.send, *args, **kwargs)

    @parameters_of(aio_handle.TaskHandle.cancel)
    def cancel(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.TaskHandle.cancel`."""
        self._background.run(self._async.cancel, *args, **kwargs)

    def events(self) -> Iterator[TaskEvent]:
        """See :meth:`mqtt_agent.TaskHandle.events`."""
        return self._iterate(self._async.events())

    def show(self) -> None:
        """See :meth:`mqtt_agent.TaskHandle.show`; the calling thread draws."""
        screen = Screen()
        for view in self._iterate(self._async.views()):
            screen.draw(view)

    def _repr_html_(self) -> str:
        return self._async._repr_html_()  # pyright: ignore[reportPrivateUsage]


class Agent(Endpoint[aio_agent.Agent]):
    """Takes tasks and gives tasks; the blocking form of :class:`mqtt_agent.Agent`, with the same arguments.

    An ``async`` handler runs on the background loop. A plain ``def`` runs in a thread.
    """

    @parameters_of(aio_agent.Agent.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(aio_agent.Agent(*args, **kwargs))

    @property
    def agent_id(self) -> str:
        """The name of the agent."""
        return self._async.agent_id

    @property
    def namespace(self) -> str:
        """The prefix of the agent's topics."""
        return self._async.namespace

    @property
    def connection(self) -> Connection:
        """The agent's connection to the broker."""
        return self._async.connection

    @property
    def store(self) -> TaskStore:
        """The store that keeps the agent's tasks."""
        return self._async.store

    @property
    def card(self) -> AgentCard:
        """The agent's card, which peers see."""
        return self._async.card

    @property
    def running_tasks(self) -> int:
        """How many handlers run now."""
        return self._async.running_tasks

    @overload
    def on_task(self, handler: Handler, /) -> Handler: ...

    @overload
    def on_task(self, type: str | None = None, /) -> Callable[[Handler], Handler]: ...

    def on_task(self, handler: Any = None, /) -> Any:
        """See :meth:`mqtt_agent.Agent.on_task`."""
        return self._async.on_task(handler)

    @parameters_of(aio_agent.Agent.peers)
    def peers(self, *args: Any, **kwargs: Any) -> PeerList:
        """See :meth:`mqtt_agent.Agent.peers`."""
        return self._background.run(self._async.peers, *args, **kwargs)

    @parameters_of(aio_agent.Agent.peer)
    def peer(self, *args: Any, **kwargs: Any) -> AgentCard | None:
        """See :meth:`mqtt_agent.Agent.peer`."""
        return self._background.run(self._async.peer, *args, **kwargs)

    @parameters_of(aio_agent.Agent.serve_forever)
    def serve_forever(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.Agent.serve_forever`."""
        self._background.run(self._async.serve_forever, *args, **kwargs)

    @parameters_of(aio_agent.Agent.delegate)
    def delegate(self, *args: Any, **kwargs: Any) -> TaskHandle:
        """See :meth:`mqtt_agent.Agent.delegate`."""
        return TaskHandle(self._background.run(self._async.delegate, *args, **kwargs), self._background)

    @parameters_of(aio_agent.Agent.resume)
    def resume(self, *args: Any, **kwargs: Any) -> TaskHandle:
        """See :meth:`mqtt_agent.Agent.resume`."""
        return TaskHandle(self._background.run(self._async.resume, *args, **kwargs), self._background)

    def watch_peers(self, name: str | None = None) -> Iterator[PeerChange]:
        """See :meth:`mqtt_agent.Agent.watch_peers`."""
        return self._watch(self._async.watch_peers, name)

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
        reference_task_ids: Sequence[str] | None = None,
        expires_at: datetime | str | float | None = None,
        metadata: dict[str, Any] | None = None,
        wait_online: bool = False,
        timeout: float | None = TASK_TIMEOUT,
        on_event: Callable[[TaskEvent], object] | None = None,
    ) -> Any:
        """See :meth:`mqtt_agent.Agent.request`; ``on_event`` is called in the calling thread."""
        task: dict[str, Any] = {
            "type": type,
            "title": title,
            "messages": messages,
            "data": data,
            "task_id": task_id,
            "context_id": context_id,
            "reference_task_ids": reference_task_ids,
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
        """See :meth:`mqtt_agent.Agent.serve_tools`; ``server`` is a :class:`mqtt_agent.sync.ToolServer`."""
        if is_started(server):
            raise RuntimeError(
                f"server {server.server_id} has started already, over its own connection: "
                "pass it to serve_tools() without starting it"
            )
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
        """See :attr:`mqtt_agent.Agent.tool_client`; the client works only while the agent runs."""
        return ToolClient.around(self._async.tool_client, self._background)

    def run(self) -> None:
        """See :meth:`mqtt_agent.Agent.run`. It starts the agent itself.

        Raises:
            RuntimeError: The agent has started already, or an event loop runs in this thread, as in a notebook.
        """
        if is_started(self):
            raise RuntimeError("run() starts the agent itself: call it instead of start(), and outside of 'with'")
        refuse_in_event_loop("run()", "start(), which serves in the background until stop()")
        self._async.run()
