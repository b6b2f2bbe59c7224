"""One delegated task, from its requester's side."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from mqtt_agent.agents.outcome import error_of
from mqtt_agent.agents.store import TaskRecord
from mqtt_agent.aio.feed import Feed
from mqtt_agent.display import Screen, TaskView
from mqtt_agent.errors import MQTTAgentError, TaskTimeout
from mqtt_agent.wire import TaskEvent, TaskResult, TaskState, read_result_state

__all__ = ["TaskHandle", "input_id_of"]

_LATE_EVENTS = 1.0
_DRAWN_EVERY = 0.1
_CLOCK_TICKS = 1.0


class _Requester(Protocol):
    """What a handle needs of the agent that delegated its task."""

    async def cancel(self, handle: TaskHandle, reason: str | None) -> None: ...

    async def send_input(self, handle: TaskHandle, value: Any, input_id: str | None) -> None: ...

    async def save(self, handle: TaskHandle, value: Any) -> None: ...

    async def listen(self, handle: TaskHandle) -> None: ...


def input_id_of(event: TaskEvent) -> str | None:
    """Which question an event asks; None when it asks none in a way that can be answered."""
    input_id: Any = event.data.get("input_id") if isinstance(event.data, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return input_id if isinstance(input_id, str) else None


class TaskHandle:
    """A task that was given to a peer. :meth:`Agent.delegate` and :meth:`Agent.resume` make it.

    Attributes:
        task_id: Names the task; :meth:`Agent.resume` finds it again by this, also in another process.
        peer: The agent that is to do it.
        context_id: Tasks of one conversation share it.
        state: Where it stands, as far as it is known here.
        attempt: Which attempt its peer is at, when known.
        queued: Whether the peer was offline when the task was sent: it waits for the peer to come back.
        question: The event with the latest question that has no answer yet, or None.
        saved: What :meth:`save` stored last, in this process or in one before; None when nothing was.
        created_at: When it was delegated, Unix seconds.
        progress: The latest event that told how far it is, or None.
    """

    def __init__(self, record: TaskRecord, requester: _Requester) -> None:
        self.task_id: str = record.task_id
        self.peer: str = record.peer or ""
        self.context_id: str | None = record.task.get("context_id")
        self.state: TaskState = record.state
        self.attempt: int | None = record.attempt or None
        self.queued = False
        self.question: TaskEvent | None = None
        self.saved: Any = record.saved
        self.created_at: float = record.created_at
        self.progress: TaskEvent | None = None
        self._ended_at = record.updated_at if record.state.terminal else None
        self._viewers: list[asyncio.Event] = []
        self.answers: dict[str, Any] = {given["input_id"]: given["answer"] for given in record.inputs}
        self.answered: dict[str, tuple[int | None, float]] = {}
        """During which attempt, and when in loop time, this process has sent the answers that it did."""
        self._requester = requester
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[TaskResult] = self._loop.create_future()
        self._events: Feed[TaskEvent] = Feed()
        self._seq = 0
        self._end_timer: asyncio.TimerHandle | None = None
        self._over = False
        self._on_end: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<TaskHandle {self.task_id} at {self.peer}, {self.state}>"

    @property
    def done(self) -> bool:
        """Whether the task is over, one way or another, or cannot be followed any more."""
        return self._outcome.done()

    @property
    def response(self) -> TaskResult | None:
        """The whole result message, with ``artifacts`` and ``elapsed_ms``, once there is one."""
        if not self._outcome.done() or self._outcome.exception() is not None:
            return None
        return self._outcome.result()

    @property
    def elapsed(self) -> float:
        """Seconds since it was delegated, until it was over."""
        return max(0.0, (self._ended_at or time.time()) - self.created_at)

    @property
    def message(self) -> str:
        """What its peer says: what it does now, what it asks, or why there is no result."""
        if self.done:
            error = self._outcome.exception() or error_of(self._outcome.result(), self.peer)
            return "" if error is None else str(error)
        event = self.question or self.progress
        return "" if event is None else event.content or ""

    @property
    def dropped_events(self) -> int:
        """How many events were dropped because nobody read them: at most the latest 1,000 wait."""
        return self._events.dropped

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the result: any JSON value.

        Canceling the task that waits here leaves the delegated one running; :meth:`cancel` stops it.

        Args:
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            TaskFailed: The peer tried and failed.
            TaskRejected: The peer does not take the task.
            TaskCanceled: It was canceled.
            TaskExpired: It was not done by its ``expires_at``.
            TaskTimeout: The result did not come in time; the task goes on.
            ConnectionLost: This agent was stopped; the task goes on, :meth:`Agent.resume` it.
            TransportError: The broker refused the task, or is gone for good.
        """
        if not self._outcome.done():
            await asyncio.wait([self._outcome], timeout=timeout)
            if not self._outcome.done():
                raise TaskTimeout(
                    f"task {self.task_id} has no result from {self.peer} after {timeout:g} s; it goes on: resume() it",
                    task_id=self.task_id,
                    peer=self.peer,
                )
        result = self._outcome.result()
        error = error_of(result, self.peer)
        if error is not None:
            raise error
        return result.result

    async def events(self) -> AsyncIterator[TaskEvent]:
        """What happens to the task, in order, until it is over: the last event tells its terminal state.

        Example:
            >>> async for event in handle.events():  # doctest: +SKIP
            ...     print(event.type, event.status or event.content or event.data)
        """
        await self._requester.listen(self)
        async for event in self._events:
            yield event

    async def show(self) -> None:
        """Show state and progress while they change, until the task is over or asks something.

        In a notebook it draws a bar in one place, elsewhere it prints lines. It takes nothing from :meth:`events`.
        """
        screen = Screen()
        async for view in self.views():
            screen.draw(view)

    def _repr_html_(self) -> str:
        return TaskView.of(self)._repr_html_()  # pyright: ignore[reportPrivateUsage]

    async def send(self, value: Any, input_id: str | None = None) -> None:
        """Answer the peer's question.

        The answer is stored before it is sent, and sent again should it get lost.

        Args:
            value: Any JSON value.
            input_id: Which question; None for the latest.

        Raises:
            WireError: The value has no JSON form.
            TaskError: The task is over.
        """
        await self._requester.send_input(self, value, input_id)

    async def cancel(self, reason: str | None = None) -> None:
        """Ask the peer to stop; :meth:`result` raises :class:`TaskCanceled` when it has. Nothing when it is over.

        Args:
            reason: Told to the peer.
        """
        await self._requester.cancel(self, reason)

    async def save(self, value: Any) -> None:
        """Store something of the requester's own with the task, for whoever resumes it; the peer is not told.

        Nothing is stored when the task is over.

        Args:
            value: Any JSON value.

        Raises:
            WireError: The value has no JSON form.
            StoreError: The store cannot be written.
        """
        await self._requester.save(self, value)

    # For the agent

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when neither the result nor events can come any more; at once if that is so."""
        if self._over:
            callback()
        else:
            self._on_end.append(callback)

    async def views(self) -> AsyncIterator[TaskView]:
        """What :meth:`show` draws: the task as it is, when something changes, and for the clock's sake."""
        await self._requester.listen(self)
        changed = asyncio.Event()
        self._viewers.append(changed)
        try:
            while True:
                changed.clear()
                view = TaskView.of(self)
                yield view
                if view.over or view.asks:
                    return
                await asyncio.sleep(_DRAWN_EVERY)  # however much is told, a screen need not be drawn more often
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), _CLOCK_TICKS - _DRAWN_EVERY)
        finally:
            self._viewers.remove(changed)

    def _changed(self) -> None:
        for viewer in self._viewers:
            viewer.set()

    def take_event(self, event: TaskEvent) -> bool:
        """One event came.

        Returns:
            Whether it was news.
        """
        numbered = event.seq > 0
        if self._over or (numbered and event.seq <= self._seq):
            return False
        if numbered:
            self._seq = event.seq
        if event.type == "status" and not self._take_status(event) and not numbered:
            return False
        if event.type == "progress":
            self.progress = event
        self._events.put(event)
        self._changed()
        self._end_if_complete()
        return True

    def _take_status(self, event: TaskEvent) -> bool:
        try:
            state = TaskState(event.status)
        except ValueError:
            return False
        news = (state, event.attempt) != (self.state, self.attempt)
        if not state.terminal and not self.done:
            self.state, self.attempt = state, event.attempt or self.attempt
        asked = event if state is TaskState.INPUT_REQUIRED and input_id_of(event) is not None else None
        news = news or (asked is not None and self.question is None)
        self.question = asked
        return news and not state.terminal

    def settle(self, result: TaskResult) -> None:
        """The result came."""
        if self._outcome.done():
            return
        self.state = read_result_state(result)
        self._outcome.set_result(result)
        self._ended_at = self._ended_at or time.time()
        self._changed()
        if not self._end_if_complete():  # brokers keep the order within a topic, not across topics
            self._end_timer = self._loop.call_later(_LATE_EVENTS, self._end)

    def fail(self, error: MQTTAgentError) -> None:
        """It cannot be followed any more."""
        if not self._outcome.done():
            self._outcome.set_exception(error)
            self._outcome.exception()  # it is no fault when nobody asks
            self._changed()
            self._end()

    def raise_failure(self) -> None:
        """Raise what :meth:`fail` was told, if anything."""
        error = self._outcome.exception() if self._outcome.done() else None
        if error is not None:
            raise error

    def _end_if_complete(self) -> bool:
        result = self.response
        if result is None or (result.seq or 0) > self._seq:
            return False
        self._end()
        return True

    def _end(self) -> None:
        if self._over:
            return
        if self._end_timer is not None:
            self._end_timer.cancel()
        result = self.response
        if result is not None and (result.seq is None or self._seq < result.seq):
            self._events.put(
                TaskEvent(task_id=self.task_id, type="status", status=self.state.value, timestamp=result.timestamp)
            )
        self._events.close()
        self._over = True
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            callback()
