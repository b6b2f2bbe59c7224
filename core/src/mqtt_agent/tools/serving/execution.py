"""Running calls: each once, at most so many at a time, and answered before it is acknowledged."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.handlers import describe, without_surprises
from mqtt_agent.errors import InvalidArguments, MQTTAgentError, PayloadTooLarge, ToolError, WireError
from mqtt_agent.tools.serving.context import CallStream, ToolContext, ToolResult
from mqtt_agent.tools.serving.function import ToolFunction
from mqtt_agent.tools.serving.replay import CallKey, ReplayStore
from mqtt_agent.tools.tracing import traced_handler
from mqtt_agent.transport import Connection, InboundMessage, PublishProperties
from mqtt_agent.wire import Call, CallFault, Response, encode, is_identifier, to_json

__all__ = ["Execution", "Executor", "ServedTool"]

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedTool:
    """A tool as the executor needs it.

    Attributes:
        function: The handler and its schema.
        timeout: Seconds that a handler may run; None for no limit.
        stream_topic: From a call id to the topic of its partials.
    """

    function: ToolFunction
    timeout: float | None
    stream_topic: Callable[[str], str]


@dataclass(eq=False)
class Execution:
    """One call on its way through the server.

    Attributes:
        tool: What it runs.
        call: The call.
        reply_to: The caller's responses topic, validated.
        messages: The call's message, and its repeats: all are acknowledged when the response is out.
        expires: ``time.monotonic()`` after which nobody waits for the result; None for never.
    """

    tool: ServedTool
    call: Call
    reply_to: str
    messages: list[InboundMessage]
    expires: float | None
    context: ToolContext | None = None
    task: asyncio.Task[None] | None = None
    stopped_for: CallFault | None = None
    """Set before the handler is canceled: the answer to give then; None means that nobody wants one."""
    canceled: bool = False

    @property
    def key(self) -> CallKey:
        """Who called, and with which id."""
        return self.call.client, self.call.call_id

    @property
    def tool_name(self) -> str:
        """What was called."""
        return self.tool.function.name

    @property
    def user_properties(self) -> tuple[tuple[str, str], ...]:
        """Those that the call came with."""
        return self.messages[0].user_properties


class Executor:
    """Runs the calls of one tool server.

    Args:
        connection: Where responses and partials go.
        server_id: Which replica this is; told in every response.
        max_concurrency: How many handlers run at once; further calls wait in order of arrival.
        replay: The responses that were given lately.
    """

    def __init__(self, connection: Connection, server_id: str, max_concurrency: int, replay: ReplayStore) -> None:
        self._connection = connection
        self._server_id = server_id
        self._max_concurrency = max_concurrency
        self._replay = replay
        self._known: dict[CallKey, Execution] = {}
        self._queue: deque[Execution] = deque()
        self._running = 0
        self._tasks = BackgroundTasks()
        self._threads: ThreadPoolExecutor | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()

    @property
    def active(self) -> int:
        """Calls that run or wait."""
        return len(self._known)

    def submit(self, tool: ServedTool, call: Call, reply_to: str, message: InboundMessage) -> None:
        """Run a call, unless it is known: then it joins the running one, or gets the stored response again."""
        key = (call.client, call.call_id)
        known = self._known.get(key)
        if known is not None:
            known.messages.append(message)
            if known.task is not None:
                message.work_started()
            return
        expires = None if message.message_expiry is None else time.monotonic() + message.message_expiry
        execution = Execution(tool, call, reply_to, [message], expires)
        stored = self._replay.get(key)
        if stored is not None:
            self._tasks.start(self._publish(execution.call.call_id, reply_to, execution.messages, stored))
            return
        self._known[key] = execution
        self._idle.clear()
        if self._running < self._max_concurrency:
            self._start(execution)
        else:
            self._queue.append(execution)

    def reject(self, call_id: str, reply_to: str, message: InboundMessage, error: CallFault) -> None:
        """Answer a message that is no acceptable call, and acknowledge it."""
        response = Response(call_id=call_id, status="error", error=error, server=self._server_id)
        self._tasks.start(self._publish(call_id, reply_to, [message], encode(response)))

    def known(self, client: str, call_ids: list[str], reply_to: str) -> list[str]:
        """Which of these calls run or wait here, or are over: the responses of those are sent again."""
        known: list[str] = []
        for call_id in call_ids:
            stored = self._replay.get((client, call_id))
            if stored is not None:
                self._tasks.start(self._publish(call_id, reply_to, [], stored))
            if stored is not None or (client, call_id) in self._known:
                known.append(call_id)
        return known

    def answer(self, call_id: str, reply_to: str, result: Any) -> None:
        """Answer something that is no call of a tool."""
        self._tasks.start(self._publish(call_id, reply_to, [], encode(Response(call_id=call_id, result=result))))

    def cancel(self, key: CallKey) -> bool:
        """Stop a call whose caller does not want the result any more; False when it is not here."""
        execution = self._known.get(key)
        if execution is None:
            return False
        self._stop(execution, None)
        return True

    async def drain(self, timeout: float) -> None:
        """Wait for all calls; those that still run after ``timeout`` seconds are canceled and answered."""
        waiting = [asyncio.ensure_future(self._idle.wait()), asyncio.ensure_future(self._hurry.wait())]
        await asyncio.wait(waiting, timeout=max(0.0, timeout), return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if not self._idle.is_set():
            for execution in list(self._known.values()):
                data = {"maybe_executed": execution.task is not None}
                error = CallFault(type="unavailable", message="the tool server stopped", retryable=True, data=data)
                self._stop(execution, error)
            try:
                await asyncio.wait_for(self._idle.wait(), 2)
            except asyncio.TimeoutError:
                running = len(self._known)
                logger.warning("%d calls ignore that they were canceled; the process ends when they do", running)
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    def hurry(self) -> None:
        """Make :meth:`drain` wait no longer."""
        self._hurry.set()

    def _start(self, execution: Execution) -> None:
        self._running += 1
        execution.task = self._tasks.start(self._run(execution))

    def _stop(self, execution: Execution, answer: CallFault | None) -> None:
        execution.stopped_for, execution.canceled = answer, True
        if execution.task is None:
            self._queue.remove(execution)
            self._start(execution)
        elif execution.context is not None:
            execution.context.canceled = True
            execution.task.cancel()

    async def _run(self, execution: Execution) -> None:
        try:
            if execution.expires is not None and time.monotonic() > execution.expires:
                logger.debug("call %s expired before it could run", execution.call.call_id)
                self._acknowledge(execution.messages)
            else:
                await self._answer(execution)
        finally:
            self._known.pop(execution.key, None)
            self._running -= 1
            while self._queue and self._running < self._max_concurrency:
                self._start(self._queue.popleft())
            if not self._known:
                self._idle.set()

    async def _answer(self, execution: Execution) -> None:
        for message in execution.messages:
            message.work_started()
        call_id = execution.call.call_id
        started = time.perf_counter()
        stream = self._stream(execution)
        response = Response(call_id=call_id, server=self._server_id)
        try:
            if execution.canceled:
                raise asyncio.CancelledError
            response.result, response.content = await self._call_handler(execution, stream)
        except asyncio.CancelledError as error:
            if not execution.canceled and _is_being_cancelled():
                raise
            if not execution.canceled:
                _fail(response, _describe(error))
            elif execution.stopped_for is not None:
                _uncancel()
                _fail(response, execution.stopped_for)
            else:
                self._acknowledge(execution.messages)
                return
        except (
            Exception,
            SystemExit,
            GeneratorExit,
        ) as error:  # a handler's exception is its caller's business, whatever it is
            _fail(response, _describe(error))
            if not isinstance(error, (MQTTAgentError, asyncio.TimeoutError)):
                logger.info("tool %s failed: %r", execution.tool.function.name, error, exc_info=error)
        execution.context = None  # from here on, a cancel comes too late
        response.elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
        await stream.close()
        response.seq = stream.seq or None
        try:
            payload = encode(response)
        except WireError as error:
            response.result = response.content = None
            _fail(response, CallFault(type="tool_error", code="RESULT_NOT_JSON", message=str(error)))
            payload = encode(response)
        if response.error is None or not response.error.retryable:
            self._replay.put(execution.key, payload)
        await self._publish(call_id, execution.reply_to, execution.messages, payload)

    @traced_handler
    async def _call_handler(self, execution: Execution, stream: CallStream) -> tuple[Any, list[dict[str, Any]] | None]:
        call, function = execution.call, execution.tool.function
        context = ToolContext(
            call_id=call.call_id, tool=function.name, client=call.client, server=self._server_id, stream=stream
        )
        execution.context = context
        if call.stream:
            await stream.publish("accepted", server=self._server_id)
        bound = function.bind(call.arguments, context, len(execution.messages[0].payload))
        timer = None
        if execution.tool.timeout is not None:
            answer = CallFault(type="timeout", message=f"the tool ran longer than {execution.tool.timeout:g} s")
            timer = asyncio.get_running_loop().call_later(execution.tool.timeout, self._stop, execution, answer)
        try:
            result = await (bound() if function.is_async else self._call_in_thread(bound))
            result = await result if inspect.isawaitable(result) else result
            if isinstance(result, ToolResult):
                return to_json(result.result), to_json(result.content)
            return to_json(result), None
        finally:
            if timer is not None:
                timer.cancel()

    def _call_in_thread(self, bound: Callable[[], Any]) -> asyncio.Future[Any]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._max_concurrency, thread_name_prefix="mqtt-agent-tool")
        return asyncio.get_running_loop().run_in_executor(self._threads, without_surprises(bound))

    def _stream(self, execution: Execution) -> CallStream:
        call_id, tool = execution.call.call_id, execution.tool
        if execution.call.stream is False or not tool.function.wants_context or not is_identifier(call_id):
            return CallStream(call_id, None)
        topic = tool.stream_topic(call_id)
        return CallStream(call_id, lambda payload: self._connection.publish_soon(topic, payload))

    async def _publish(self, call_id: str, reply_to: str, messages: list[InboundMessage], payload: bytes) -> None:
        """Send a response, then acknowledge the messages that asked for it."""
        properties = PublishProperties(correlation_data=messages[-1].correlation_data if messages else None)
        try:
            try:
                await self._connection.publish(reply_to, payload, properties=properties)
            except PayloadTooLarge as error:
                response = Response(call_id=call_id, server=self._server_id)
                _fail(response, CallFault(type="tool_error", code="RESULT_TOO_LARGE", message=str(error)))
                await self._connection.publish(reply_to, encode(response), properties=properties)
        except MQTTAgentError as error:
            logger.warning("the answer to call %.80s could not be sent: %s", call_id, error)
        self._acknowledge(messages)

    def _acknowledge(self, messages: list[InboundMessage]) -> None:
        for message in messages:
            message.acknowledge()


def _fail(response: Response, error: CallFault) -> None:
    response.status, response.error = "error", error


def _describe(error: BaseException) -> CallFault:
    """What a caller is told: whatever the exception is like, it can be sent."""
    kind, message = describe(error)
    if isinstance(error, InvalidArguments):
        return CallFault(type="invalid_arguments", message=message, data=error.data)
    if isinstance(error, WireError):
        return CallFault(type="tool_error", message=message, code="RESULT_NOT_JSON")
    if not isinstance(error, ToolError):
        return CallFault(type="tool_error", message=message or kind, code=kind)
    try:
        data = to_json(error.data)
    except WireError:
        data = repr(error.data)
    code = None if error.code is None else str(error.code)
    return CallFault(type="tool_error", message=message or kind, code=code, data=data, retryable=bool(error.retryable))


def _is_being_cancelled() -> bool:
    # Before Python 3.11 nobody counts; then it is taken for one that the handler raised, and answered.
    canceling = getattr(asyncio.current_task(), "cancelling", None)
    return canceling is not None and canceling() > 0


def _uncancel() -> None:
    # The cancellation was ours and ends here; Python 3.11 counts, and would cancel the publish that follows.
    uncancel = getattr(asyncio.current_task(), "uncancel", None)
    if uncancel is not None:
        uncancel()
