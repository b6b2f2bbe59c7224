"""The handle on one call, with which the caller waits for the result, reads partial results, and cancels the call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from mqtt_agent.aio.latest import Latest
from mqtt_agent.display import card, duration, escaped
from mqtt_agent.errors import (
    CallCanceled,
    CallerNotAuthorized,
    CallError,
    CallTimeout,
    InvalidArguments,
    MQTTAgentError,
    ToolFailed,
    ToolUnavailable,
)
from mqtt_agent.logs import logger_of
from mqtt_agent.wire import CallFault, Response, StreamMessage, read_error_type
from mqtt_agent.wire.calls import CANCELED, INPUT

__all__ = ["CallHandle", "error_of"]

logger: logging.Logger = logger_of(__name__)

_LATE_PARTIALS = 1.0  # seconds


class CallHandle:
    """A handle on a call. :meth:`ToolClient.submit` returns it.

    Attributes:
        call_id: The id of the call. Submit with the same id again to attach to the same call.
        tool: The tool's name.
        server: The id of the replica that runs or ran the call; None while the replica is not known.
        bound: Whether the call was sent on a sender-bound topic, so that only a server of the tool can answer where the
            broker checks who writes to such topics.
        attempt: 1 at first. The number grows by 1 each time that the server of the call is lost, and another server or
            the server's next process takes up the call. A response that arrives before the client knows of the loss
            does not change the number.
        elapsed_ms: How long the handler took, in milliseconds. None until the response has arrived.
    """

    def __init__(self, tool: str, call_id: str, cancel: Callable[[CallHandle, str | None], None]) -> None:
        self.tool: str = tool
        self.call_id: str = call_id
        self.server: str | None = None
        self.bound: bool = False
        self.attempt: int = 1
        self.elapsed_ms: float | None = None
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[Response] = self._loop.create_future()
        self._waiting: set[asyncio.Future[None]] = set()
        self._partials: Latest[Any] = Latest()
        self._streaming = False
        self._last: StreamMessage | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._on_end: list[Callable[[], None]] = []
        self._on_log: Callable[[StreamMessage], None] | None = None
        self._on_request: Callable[[StreamMessage], None] | None = None

    @property
    def dropped_partials(self) -> int:
        """How many partial results were dropped because nobody read them. The latest 1,000 are kept, up to 64 MiB."""
        return self._partials.dropped

    def __repr__(self) -> str:
        return f"<CallHandle {self.tool} {self.call_id} {'done' if self.done else 'running'}>"

    def _repr_html_(self) -> str:
        error = self.failure() if self.done else None
        ended = "canceled" if isinstance(error, CallCanceled) else "failed" if error else "completed"
        hints = [
            *([duration(self.elapsed_ms / 1000)] if self.elapsed_ms is not None else []),
            *([f"by {escaped(self.server)}"] if self.server else []),
            f"attempt {self.attempt}",
            f"<code>{escaped(self.call_id)}</code>",
        ]
        return card(self.tool, ended if self.done else "working", str(error or ""), hints)

    @property
    def done(self) -> bool:
        """Whether the call has ended: with a result, or with an error."""
        return self._outcome.done()

    @property
    def timed_out(self) -> bool:
        """Whether the call failed with :class:`CallTimeout`. Such a call may still run at its server."""
        return self.done and isinstance(self._outcome.exception(), CallTimeout)

    @property
    def response(self) -> Response | None:
        """The response as it arrived; None when no response has arrived yet, or the call ended without a response."""
        failed = not self._outcome.done() or self._outcome.cancelled() or self._outcome.exception() is not None
        return None if failed else self._outcome.result()

    async def result(self) -> Any:
        """Wait for the result: any JSON value.

        Canceling the asyncio task that waits here does not cancel the call; :meth:`cancel` does.

        Raises:
            InvalidArguments: The arguments do not fit the tool's schema.
            CallerNotAuthorized: The server refuses this caller.
            ToolFailed: The tool ran and failed.
            CallTimeout: No response arrived in time.
            CallCanceled: The call was canceled by :meth:`cancel` or by another message at its server, or the client was
                stopped.
            ToolUnavailable: No server serves the tool, or the server that had the call is lost.
            TransportError: The broker refused the call, or the connection is lost for good.
        """
        while not self._outcome.done():
            await self._change()
        response = self._outcome.result()
        if response.status == "error":
            raise error_of(self.tool, response)
        return response.result

    async def partials(self) -> AsyncIterator[Any]:
        """Iterate over the partial results, in order: each is a text as ``str``, or another JSON value.

        A progress report is ``{"progress": 3, "total": 10, "message": "page 3"}``. The iteration ends when the call has
        ended, with a result or with an error.
        """
        while True:
            while self._partials:
                yield self._partials.take()
            if not self._streaming:
                return
            await self._change()

    async def cancel(self, reason: str | None = None) -> None:
        """Cancel the call, also at its server if the server can cancel calls.

        After :class:`CallTimeout`, the server gets the cancel too, because the call may still run. Any other call that
        is over does not change.

        Args:
            reason: Why, as text for the server.
        """
        self._cancel(self, reason)

    # For adapters

    async def news(self, patience: float | None = None) -> list[Any]:
        """Wait for partial results, and return all that have arrived.

        Args:
            patience: Seconds to wait; None means no limit.

        Returns:
            The partial results. The list is empty when the call is over, or when none arrived within ``patience``.
        """
        if not self._partials and (self._streaming or not self.done):
            await self._change(patience)
        return self._partials.take_all()

    def wake(self) -> None:
        """Let :meth:`news` return now, though there may be none."""
        self._wake()

    @property
    def over(self) -> bool:
        """Whether the call has ended and no partial result can arrive any more."""
        return self.done and not self._streaming

    # For the client

    @property
    def streaming(self) -> bool:
        """Whether partial results are expected."""
        return self._streaming

    def open_stream(self) -> None:
        """Expect partial results from now on."""
        self._streaming = True

    def follow_log(self, on_log: Callable[[StreamMessage], None]) -> None:
        """Call ``on_log`` with each log message from now on."""
        self._on_log = on_log

    def follow_requests(self, on_request: Callable[[StreamMessage], None]) -> None:
        """Call ``on_request`` with each request for input from now on. A request may come again."""
        self._on_request = on_request

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, as soon as the call is :attr:`over`; at once if it is over already."""
        if self.over:
            callback()
        else:
            self._on_end.append(callback)

    def failure(self) -> BaseException | None:
        """The error that :meth:`result` raises; None when the call has a result. Only for a call that has ended."""
        response = self.response
        if response is None:
            return self._outcome.exception()
        return error_of(self.tool, response) if response.status == "error" else None

    def take_partial(self, message: StreamMessage, qos: int, size: int = 0) -> None:
        """Keep a stream message, unless it is late or a repeat.

        Args:
            message: The message.
            qos: The QoS with which it arrived. At QoS 0 there are no repeats.
            size: About how many bytes of memory it takes.
        """
        last = self._last
        if not self._streaming:
            return
        if message.type == INPUT and self._on_request is not None and not self.done:
            self._on_request(message)  # another replica that has the call now counts from 1 again
        if last is not None and (message.seq < last.seq or (qos > 0 and message == last)):
            return
        self._last = message
        if message.server:
            self.server = message.server
        if message.type == "log" and self._on_log is not None:
            try:
                self._on_log(message)
            except Exception:
                logger.exception("on_log of call %s failed", self.call_id)
        if message.type == "partial":
            self._partials.put(message.content if message.content is not None else message.data, size)
            self._wake()
        if self._outcome.done() and self._all_partials_here():
            self._end()

    def settle(self, response: Response) -> None:
        """End the call with its response."""
        if self._outcome.done():
            return
        self.server = response.server or self.server
        self.elapsed_ms = response.elapsed_ms
        self._outcome.set_result(response)
        if not self._streaming or self._all_partials_here():
            self._end()
        else:  # brokers keep the order of messages within a topic, and not across topics
            self._end_timer = self._loop.call_later(_LATE_PARTIALS, self._end)
            self._wake()

    def end_if_done(self) -> None:
        """Wait for no partial results after the response, because a server that has kept an answer sends it alone."""
        if self._outcome.done() and not self.over:
            self._end()

    def fail(self, error: MQTTAgentError) -> None:
        """End the call with an error, without a response."""
        if not self._outcome.done():
            self._outcome.set_exception(error)
            self._outcome.exception()  # so that asyncio logs nothing when nobody asks for the result
            self._end()

    def leave_to_parent(self, error: MQTTAgentError) -> None:
        """Let :meth:`result` raise an error in a forked process. The event loop of the handle does not run there."""
        if not self._outcome.done():
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._outcome.set_exception(error)
            self._outcome.exception()

    async def _change(self, patience: float | None = None) -> None:
        """Wait until the call has ended, or a partial result has arrived."""
        # Each waiting asyncio task has its own future, so that canceling the task does not cancel the outcome. With
        # asyncio.shield() instead, the task would wake one turn of the event loop later.
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(waiting)
        timer = None if patience is None else self._loop.call_later(patience, _resolve, waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        for waiting in self._waiting:
            _resolve(waiting)

    def _all_partials_here(self) -> bool:
        response = self.response
        expected = response.seq if response is not None else None
        return not expected or (self._last is not None and self._last.seq >= expected)

    def _end(self) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._streaming = False
        self._wake()
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            callback()


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def error_of(tool: str, response: Response) -> CallError:
    """The error of a response that has one."""
    error = response.error or CallFault(message="the tool failed without a reason")
    text, call_id = f"{tool}: {error.message}", response.call_id
    kind = read_error_type(error.type)
    if error.code == CANCELED:
        return CallCanceled(text, tool=tool, call_id=call_id)
    if kind == "invalid_arguments":
        return InvalidArguments(text, tool=tool, call_id=call_id, data=error.data)
    if kind == "unauthorized":
        return CallerNotAuthorized(text, tool=tool, call_id=call_id)
    if kind == "timeout":
        return CallTimeout(text, tool=tool, call_id=call_id)
    if kind == "unavailable":
        never_ran = error.data == {"maybe_executed": False}
        return ToolUnavailable(text, tool=tool, call_id=call_id, maybe_executed=not never_ran)
    about: dict[str, Any] = {"code": error.code, "data": error.data, "retryable": error.retryable}
    about["content"] = response.content
    return ToolFailed(text, tool=tool, call_id=call_id, server=response.server, **about)
