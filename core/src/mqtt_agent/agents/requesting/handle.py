"""The handle of one delegated task: its state, events and result, and the methods to answer, cancel and save."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, Protocol

from mqtt_agent.agents.outcome import error_of
from mqtt_agent.agents.store import TaskRecord
from mqtt_agent.aio.feed import Feed
from mqtt_agent.aio.waiting import release, within
from mqtt_agent.display import Screen, TaskView
from mqtt_agent.endpoints.timeouts import checked_seconds
from mqtt_agent.errors import MQTTAgentError, TaskTimeout
from mqtt_agent.wire import ASKING, TaskEvent, TaskResult, TaskState, read_result_state
from mqtt_agent.wire.tasks import state_of

__all__ = ["SentAnswer", "TaskHandle", "input_id_of"]

_LATE_EVENTS = 1.0
"""Seconds to wait for events that arrive after the result."""
_DRAWN_EVERY = 0.1
"""The shortest time between two views, in seconds."""
_CLOCK_TICKS = 1.0
"""The longest time between two views, in seconds, so that the shown elapsed time changes."""


class _Requester(Protocol):
    """The part of the delegating agent that a handle uses."""

    async def cancel(self, handle: TaskHandle, reason: str | None) -> None: ...

    async def send_input(self, handle: TaskHandle, value: Any, input_id: str | None) -> None: ...

    async def save(self, handle: TaskHandle, value: Any) -> None: ...

    async def listen(self, handle: TaskHandle) -> None: ...


class SentAnswer(NamedTuple):
    """An answer that this process has sent to a peer.

    Attributes:
        attempt: The peer's attempt that asked; None when unknown.
        at: When the answer was sent, in loop time.
    """

    attempt: int | None
    at: float


def input_id_of(event: TaskEvent) -> str | None:
    """The id of the question that an event asks; None when the event asks no question that can be answered."""
    input_id: Any = event.data.get("input_id") if isinstance(event.data, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return input_id if isinstance(input_id, str) else None


class _Untold(NamedTuple):
    """A status event that the executor has not sent, because the result says the same. It is made when it is read."""

    state: TaskState
    seq: int
    result: TaskResult

    def event(self) -> TaskEvent:
        about: dict[str, Any] = {"status": self.state.value, "attempt": self.result.attempt}
        at = self.result.timestamp
        return TaskEvent(task_id=self.result.task_id, seq=self.seq, type="status", timestamp=at, **about)


class TaskHandle:
    """A task that was given to a peer. :meth:`Agent.delegate` and :meth:`Agent.resume` return handles.

    Attributes:
        task_id: The task's id. :meth:`Agent.resume` finds the task again by its id, also in another process.
        peer: The id of the agent that is to do the task.
        context_id: The conversation: all tasks of a conversation have the same ``context_id``.
        state: The latest state that this agent knows.
        attempt: The number of the peer's present attempt; None when unknown.
        queued: Whether the peer was offline when the task was sent. The task then waits until the peer comes back.
        question: The event of the latest question that has no answer yet, or None.
        bound: Whether the task was given on a sender-bound topic. Then only the peer can send its result and its
            events, if the broker lets each login write only the topics with its own name.
        saved: The value that :meth:`save` stored last, in this process or in an earlier one; None when there is none.
        created_at: When the task was delegated, Unix seconds.
        progress: The latest event of type ``progress``, or None.
        answers: The answers that this agent has given, by the id of the question.
        sent_answers: The answers that this process has sent, by the id of the question.
    """

    def __init__(self, record: TaskRecord, requester: _Requester) -> None:
        self.task_id: str = record.task_id
        self.peer: str = record.peer or ""
        self.context_id: str | None = record.task.get("context_id")
        self.state: TaskState = record.state
        self.attempt: int | None = record.attempt or None
        self.queued: bool = False
        self.question: TaskEvent | None = None
        self.bound: bool = record.reply_to is not None
        self.saved: Any = record.saved
        self.created_at: float = record.created_at
        self.progress: TaskEvent | None = None
        self.answers: dict[str, Any] = {given["input_id"]: given["answer"] for given in record.inputs}
        self.sent_answers: dict[str, SentAnswer] = {}
        self._requester = requester
        self._ended_at = record.updated_at if record.state.terminal else None
        self._viewers: list[asyncio.Event] = []
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[TaskResult] = self._loop.create_future()
        self._waiting: set[asyncio.Future[bool]] = set()
        self._events: Feed[TaskEvent | _Untold] = Feed()
        self._seq = 0
        self._told_begun = False
        self._end_timer: asyncio.TimerHandle | None = None
        self._over = False  # whether no event can arrive any more; the task may have ended earlier
        self._on_end: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<TaskHandle {self.task_id} at {self.peer}, {self.state}>"

    @property
    def done(self) -> bool:
        """Whether the task is over, or cannot be followed any more."""
        return self._outcome.done()

    @property
    def response(self) -> TaskResult | None:
        """The whole result message, with ``artifacts`` and ``elapsed_ms``; None before the result has arrived."""
        if not self._outcome.done() or self._outcome.exception() is not None:
            return None
        return self._outcome.result()

    @property
    def elapsed(self) -> float:
        """Seconds from the delegation to the task's end, or to now."""
        return max(0.0, (self._ended_at or time.time()) - self.created_at)

    @property
    def message(self) -> str:
        """The latest text for people: the open question, the latest progress, or why there is no result."""
        if self.done:
            error = self._outcome.exception() or error_of(self._outcome.result(), self.peer)
            return "" if error is None else str(error)
        event = self.question or self.progress
        return "" if event is None else event.content or ""

    @property
    def dropped_events(self) -> int:
        """How many events were dropped because nobody read them. The latest 1,000 are kept, up to 64 MiB."""
        return self._events.dropped

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the result.

        Canceling the asyncio task that waits here does not cancel the peer's task; :meth:`cancel` does.

        Args:
            timeout: Seconds; None for no limit.

        Returns:
            The result, any JSON value.

        Raises:
            TaskFailed: The peer's handler failed.
            TaskRejected: The peer does not take the task.
            TaskCanceled: The task was canceled.
            TaskExpired: The task was not finished before its ``expires_at``.
            TaskTimeout: The result did not arrive within ``timeout`` seconds. The task itself continues.
            ValueError: ``timeout`` is NaN.
            ConnectionLost: This agent was stopped. The task itself continues; :meth:`Agent.resume` finds it again.
            StoreError: The result arrived, but the store can never take it (:attr:`StoreError.permanent`).
            TransportError: The broker refused the task, or the connection has ended for good.
        """
        timeout = checked_seconds(timeout)
        if not self._outcome.done() and not await self._over_within(timeout):
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

    async def _over_within(self, timeout: float | None) -> bool:
        # Each asyncio task that waits has its own future, so that canceling the task does not cancel the outcome. This
        # wakes the task one turn of the event loop earlier than asyncio.wait().
        waiting: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.add(waiting)
        timer = None if timeout is None else self._loop.call_later(timeout, release, waiting, False)
        try:
            return await waiting
        finally:
            self._waiting.discard(waiting)
            if timer is not None:
                timer.cancel()

    async def events(self) -> AsyncIterator[TaskEvent]:
        """Iterate over the task's events, in order, until the task is over. The last event has the terminal state.

        Example:
            >>> async for event in handle.events():  # doctest: +SKIP
            ...     print(event.type, event.status or event.content or event.data)
        """
        await self._requester.listen(self)
        async for event in self._events:
            yield event.event() if isinstance(event, _Untold) else event

    async def show(self) -> None:
        """Show the task's state and progress, until the task is over or asks a question.

        A notebook shows a bar that changes in its place. Anywhere else, lines are printed. :meth:`events` still gives
        every event.
        """
        screen = Screen()
        async for view in self.views():
            screen.draw(view)

    def _repr_html_(self) -> str:
        return TaskView.of(self)._repr_html_()  # pyright: ignore[reportPrivateUsage]

    async def send(self, value: Any, input_id: str | None = None) -> None:
        """Answer a question of the peer.

        The answer is stored before it is sent, and is sent again when it gets lost.

        Args:
            value: The answer, any JSON value.
            input_id: The id of the question; None means the latest question.

        Raises:
            WireError, PayloadTooLarge: JSON or MQTT cannot carry the value. The question still waits for an answer.
            TaskError: The task is over.
            StoreError: The answer could not be stored, and was not sent.
            TransportError: The broker refused the answer.
        """
        await self._requester.send_input(self, value, input_id)

    async def cancel(self, reason: str | None = None) -> None:
        """Ask the peer to cancel the task. Nothing happens when the task is over.

        :meth:`result` raises :class:`TaskCanceled` when the peer has canceled the task.

        Args:
            reason: Why, as text for the peer.

        Raises:
            StoreError: The cancel could not be stored, and was not sent.
            TransportError: The broker refused the cancel.
        """
        await self._requester.cancel(self, reason)

    async def save(self, value: Any) -> None:
        """Store a value with the task, for a process that resumes the task later. The peer does not get the value.

        Nothing is stored when the task is over.

        Args:
            value: Any JSON value. The value replaces the earlier value.

        Raises:
            WireError: The value has no JSON form.
            StoreError: The store cannot be written.
        """
        await self._requester.save(self, value)

    # For the agent

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when neither a result nor events can arrive any more. This may be at once."""
        if self._over:
            callback()
        else:
            self._on_end.append(callback)

    async def views(self) -> AsyncIterator[TaskView]:
        """Iterate over what :meth:`show` draws: a new view after each change, and once a second."""
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
                await asyncio.sleep(_DRAWN_EVERY)
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(changed.wait(), _CLOCK_TICKS - _DRAWN_EVERY)
        finally:
            self._viewers.remove(changed)

    def _wake(self) -> None:
        for waiting in self._waiting:
            release(waiting, True)

    def _changed(self) -> None:
        for viewer in self._viewers:
            viewer.set()

    def take_event(self, event: TaskEvent, size: int = 0) -> bool:
        """Take an event of the task.

        Args:
            event: The event.
            size: About how many bytes of memory it takes.

        Returns:
            Whether the event says something new. Repeated and outdated events do not.
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
        self._events.put(event, size)
        self._changed()
        self._end_if_complete()
        return True

    def _take_status(self, event: TaskEvent) -> bool:
        """Take over the state of a status event. Returns whether the state or the question is new."""
        try:
            state = state_of(event.status or "")
        except ValueError:
            return False
        news = (state, event.attempt) != (self.state, self.attempt)
        if not state.terminal and not self.done:
            self.state, self.attempt = state, event.attempt or self.attempt
        asked = event if state in ASKING and input_id_of(event) is not None else None
        news = news or (asked is not None and self.question is None)
        self.question = asked
        return news and not state.terminal

    def settle(self, result: TaskResult, *, stored: bool = False) -> None:
        """Take the result of the task. A second result changes nothing.

        Args:
            result: The result.
            stored: Whether the result arrived earlier, so that no events come after it.
        """
        if self._outcome.done():
            return
        self.state = read_result_state(result)
        self._told_begun = self.attempt is not None
        self.attempt = result.attempt or self.attempt
        self._outcome.set_result(result)
        self._wake()
        self._ended_at = self._ended_at or time.time()
        self._changed()
        if stored:
            self._end()
        elif not self._end_if_complete():  # events may come later: brokers keep the order only within a topic
            self._end_timer = self._loop.call_later(_LATE_EVENTS, self._end)

    def fail(self, error: MQTTAgentError) -> None:
        """End the handle with an error, because the task cannot be followed any more."""
        if not self._outcome.done():
            self._outcome.set_exception(error)
            self._outcome.exception()  # so that asyncio does not log an error that nobody awaits
            self._wake()
            self._changed()
            self._end()

    def leave_to_parent(self, error: MQTTAgentError) -> None:
        """Let :meth:`result` raise an error in a forked process. The event loop of the handle does not run there."""
        if not self._outcome.done():
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._outcome.set_exception(error)
                self._wake()
            self._outcome.exception()

    def raise_failure(self) -> None:
        """Raise the error of :meth:`fail`, if :meth:`fail` was called."""
        error = self._outcome.exception() if self._outcome.done() else None
        if error is not None:
            raise error

    def _end_if_complete(self) -> bool:
        result = self.response
        if result is None or (result.seq is not None and self._seq < result.seq - 1):
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
            if result.attempt is not None and not self._seq and not self._told_begun:  # the task was short
                self._events.put(_Untold(TaskState.WORKING, 0, result))
            self._events.put(_Untold(self.state, result.seq or 0, result))
        self._events.close()
        self._over = True
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            callback()
