"""Follows calls and tasks in steps, for a framework that handles events in its own thread or context.

The async methods are the steps: each runs on the event loop of the MQTT connection, and takes the agent or the tool
client there as its first argument, as :meth:`mqtt_agent.adapting.callers.Caller.on_loop` passes it. The properties and
the plain methods can be used anywhere between two steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from mqtt_agent.adapting.calling import tool_client_of
from mqtt_agent.adapting.delegating import begun
from mqtt_agent.adapting.following import is_question
from mqtt_agent.agents import Agent, TaskHandle
from mqtt_agent.errors import CallCanceled, CallTimeout, TaskTimeout
from mqtt_agent.tools import CallHandle, CallQuestion, ToolClient
from mqtt_agent.wire import TaskEvent

__all__ = ["CallSteps", "TaskSteps"]


class CallSteps:
    """A call of a tool.

    Example:
        >>> call = CallSteps("forecast", {"city": "Oslo"}, timeout=60)  # doctest: +SKIP
        >>> while not call.over:  # doctest: +SKIP
        ...     for partial in await caller.on_loop(call.advance):
        ...         print(partial)
        >>> call.handle.response.result  # doctest: +SKIP

    Args:
        tool: The tool's name.
        arguments: The arguments by name.
        timeout: Seconds that the call may take; None for no limit.
        idle_timeout: Seconds that may pass without a partial result; None for no limit.
        patience: Seconds that :meth:`advance` waits for news; None for no limit.
        call_id: The id of the call; None makes an id.
        resume: Whether an earlier process may have made this call; see :meth:`ToolClient.submit`.
        answers: Whether the caller answers what the tool asks; see :attr:`question`.

    Attributes:
        begun: Whether the first step was taken, so that there may be a call to cancel.
        over: Whether the call has its result.
    """

    def __init__(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float | None,
        idle_timeout: float | None = None,
        patience: float | None = None,
        call_id: str | None = None,
        resume: bool = False,
        meta: Mapping[str, Any] | None = None,
        answers: bool = False,
    ) -> None:
        self.begun: bool = False
        self.over: bool = False
        self._tool = tool
        self._arguments = arguments
        self._options: dict[str, Any] = {"timeout": timeout, "call_id": call_id, "resume": resume, "meta": meta}
        if answers:
            self._options["on_question"] = self._on_question
        self._questions: list[tuple[CallQuestion, asyncio.Future[Any]]] = []
        self._patience = patience
        self._idle = _Idle(idle_timeout)
        self._handle: CallHandle | None = None
        self._canceled = False

    @property
    def sent(self) -> bool:
        """Whether the call was made, so that there is a :attr:`handle`."""
        return self._handle is not None

    @property
    def handle(self) -> CallHandle:
        """The call, after the first step."""
        assert self._handle is not None
        return self._handle

    @property
    def question(self) -> CallQuestion | None:
        """What the tool asks, and waits for; None when it asks nothing. :meth:`answer` answers it."""
        return next((question for question, answered in self._questions if not answered.done()), None)

    async def _on_question(self, question: CallQuestion) -> Any:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._questions.append((question, answered))
        if self._handle is not None:
            self._handle.wake()
        return await answered

    async def answer(self, endpoint: Agent | ToolClient, question: CallQuestion, answer: Any) -> None:
        """Answer a question; see ``on_question`` of :meth:`ToolClient.call`."""
        for asked, answered in self._questions:
            if asked is question and not answered.done():
                answered.set_result(answer)
        self._idle.begin()

    async def leave(self, endpoint: Agent | ToolClient) -> None:
        """Wait for the call no longer. It goes on at its server, and :meth:`ToolClient.submit` finds it by its id."""
        if self._handle is not None:
            handle = self._handle
            handle.fail(CallCanceled(f"{self._tool}: the caller has left", tool=self._tool, call_id=handle.call_id))

    async def advance(self, endpoint: Agent | ToolClient) -> list[Any]:
        """Make the call, or wait for news of the call.

        Returns:
            The new partial results. The list is empty when the tool has asked a :attr:`question`, after ``patience``
            seconds without news, and when the call is over.

        Raises:
            CallError: The call ended without a result.
            CallTimeout: ``timeout`` seconds have passed, or ``idle_timeout`` seconds without a partial result.
            TransportError: The call could not be sent, or the connection has failed permanently.
        """
        self.begun = True
        if self._handle is None:
            self._handle = await tool_client_of(endpoint).submit(self._tool, self._arguments, **self._options)
            if self._canceled:  # `asyncio.wait_for` may have swallowed the cancellation of this step
                await self.cancel(endpoint)
            self._idle.begin()
        if self.question is not None:
            return []
        partials = await self._handle.news(_shortest(self._patience, self._idle.left))
        if partials or self.question is not None:
            self._idle.begin()
        elif not self._handle.over and self._idle.is_over:
            what = f"{self._tool}: no partial result within {self._idle.timeout:g} s; the call is canceled"
            raise CallTimeout(what, tool=self._tool, call_id=self._handle.call_id)
        if not partials and self._handle.over:
            await self._handle.result()
            self.over = True
        return partials

    async def cancel(self, endpoint: Agent | ToolClient) -> None:
        """Cancel the call, also while the first step makes the call, and also after the call's timeout."""
        self._canceled = True
        if self._handle is not None:
            await self._handle.cancel("the caller gave up")


class _Idle:
    """The time in which nothing is heard of a call or a task.

    Args:
        timeout: Seconds that this time may last; None for no limit.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._since = 0.0

    def begin(self) -> None:
        """Something was heard now."""
        self._since = asyncio.get_running_loop().time()

    @property
    def left(self) -> float | None:
        """Seconds until the time is over; None for no limit."""
        if self.timeout is None:
            return None
        return max(0.0, self._since + self.timeout - asyncio.get_running_loop().time())

    @property
    def is_over(self) -> bool:
        """Whether the time has lasted too long."""
        return self.left == 0.0


def _shortest(*waits: float | None) -> float | None:
    return min((seconds for seconds in waits if seconds is not None), default=None)


class TaskSteps:
    """A task at a peer.

    Example:
        >>> task = TaskSteps(lambda agent: agent.delegate("writer", "a poem"), timeout=None)  # doctest: +SKIP
        >>> await caller.on_loop(task.begin)  # doctest: +SKIP
        >>> while not task.over:  # doctest: +SKIP
        ...     event = await caller.on_loop(task.next)
        >>> print(await caller.on_loop(task.result))  # doctest: +SKIP

    Args:
        give: Gives the task, or resumes a task that was given before.
        timeout: Seconds to wait for the result; None for no limit.
        idle_timeout: Seconds to wait for the next event; None for no limit.
        patience: Seconds that :meth:`next` waits for an event; None for no limit.
        give_up: Called with a handle and a reason, to cancel a task that nobody waits for any more.
        cancel_late: Whether the caller cancels a task that took too long. It is only for the words of the error.

    Attributes:
        over: Whether the last event was read, so that :meth:`result` need not wait.
        cancel_late: See the argument.
    """

    def __init__(
        self,
        give: Callable[[Agent], Awaitable[TaskHandle]],
        *,
        timeout: float | None,
        idle_timeout: float | None = None,
        patience: float | None = None,
        give_up: Callable[[TaskHandle, str], Awaitable[object]] = TaskHandle.cancel,
        cancel_late: bool = False,
    ) -> None:
        self.over: bool = False
        self.cancel_late: bool = cancel_late
        self._idle = _Idle(idle_timeout)
        self._give = give
        self._timeout = timeout
        self._patience = patience
        self._give_up = give_up
        self._begun = False
        self._handle: TaskHandle | None = None
        self._events: AsyncIterator[TaskEvent] | None = None
        self._coming: asyncio.Future[TaskEvent | None] | None = None
        self._deadline: float | None = None
        self._asked: TaskEvent | None = None

    @property
    def given(self) -> bool:
        """Whether the task was given, so that there is a :attr:`handle`."""
        return self._handle is not None

    @property
    def handle(self) -> TaskHandle:
        """The task, after :meth:`begin`."""
        assert self._handle is not None
        return self._handle

    @property
    def under_way(self) -> bool:
        """Whether the task is being given, or is given and not over."""
        return self._begun and (self._handle is None or not self._handle.done)

    async def begin(self, agent: Agent) -> None:
        """Give the task. When this step is canceled, the task is canceled as soon as the task is given.

        Raises:
            BaseException: Any error of ``give``.
        """
        self._begun = True
        self._handle = await begun(lambda: self._give(agent), give_up=self._take_back)
        if self._timeout is not None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        self._idle.begin()
        self._events = self._handle.events()

    async def _take_back(self, handle: TaskHandle) -> None:
        await self._give_up(handle, "the requester gave up")

    async def next(self, agent: Agent) -> TaskEvent | None:
        """Wait for the next event.

        Returns:
            The event. None after ``patience`` seconds without an event, and when the task is over.

        Raises:
            TaskTimeout: ``timeout`` seconds have passed, or ``idle_timeout`` seconds without an event. The task itself
                goes on.
        """
        handle, left = self.handle, self._time_left()
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._next_event())
            await asyncio.sleep(0)
        question = handle.question
        if not self._coming.done() and question is not None and question is not self._asked:
            return question  # the peer asked before the events were read, and does not send the question again
        await asyncio.wait([self._coming], timeout=_shortest(self._patience, left))
        if not self._coming.done():
            return None
        self._idle.begin()
        event, self._coming = self._coming.result(), None
        self.over = event is None
        return None if event is self._asked else event

    def _time_left(self) -> float | None:
        left = None if self._deadline is None else max(0.0, self._deadline - asyncio.get_running_loop().time())
        if not self.handle.done:
            if left == 0.0:
                raise self._late(f"has no result from {self.handle.peer} after {self._timeout:g} s")
            if self._idle.is_over:
                raise self._late(f"has had no news from {self.handle.peer} for {self._idle.timeout:g} s")
        return _shortest(left, self._idle.left)

    def _late(self, what: str) -> TaskTimeout:
        now = "it is canceled" if self.cancel_late else "it goes on: resume() it"
        return TaskTimeout(
            f"task {self.handle.task_id} {what}; {now}", task_id=self.handle.task_id, peer=self.handle.peer
        )

    async def _next_event(self) -> TaskEvent | None:
        assert self._events is not None
        async for event in self._events:
            return event
        return None

    def asks(self, event: TaskEvent) -> bool:
        """Whether an event is a question that waits for an answer now."""
        if not is_question(event) or event is not self.handle.question:
            return False  # no question, a question that is answered already, or not the latest question
        self._asked = event
        return "fault" in event.data or not self.answered(event.data.get("input_id"))

    def answered(self, input_id: str | None) -> bool:
        """Whether a question has an answer, which may still be on its way, or needs no answer any more."""
        return self.handle.done or input_id in self.handle.answers

    async def send(self, agent: Agent, answer: Any, input_id: str | None) -> None:
        """Answer a question, unless the task is over."""
        if not self.handle.done:
            await self.handle.send(answer, input_id)
        self._idle.begin()

    async def result(self, agent: Agent) -> Any:
        """Wait for the result; see :meth:`TaskHandle.result`."""
        return await self.handle.result()

    async def leave(self, agent: Agent, reason: str | None = None) -> None:
        """Stop following the task. Code that resumes the task gets the later events.

        Args:
            agent: The agent that gave the task.
            reason: Why the task is canceled; None lets the task go on.
        """
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.cancel()
            await asyncio.wait([coming])
        if reason is not None and self._handle is not None and not self._handle.done:
            await self._give_up(self._handle, reason)
