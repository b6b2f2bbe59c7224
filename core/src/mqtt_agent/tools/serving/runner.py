"""Runs a call's handler, and makes the response from the handler's result or exception."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from mqtt_agent.aio.daemon_threads import DaemonThreads
from mqtt_agent.aio.handlers import describe, mark_handler, raised_by, without_surprises
from mqtt_agent.display.failures import log_failure
from mqtt_agent.errors import CallTimeout, InvalidArguments, ToolError, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.answers import fail
from mqtt_agent.tools.serving.contents import Contents
from mqtt_agent.tools.serving.context import CallStream, ToolContext
from mqtt_agent.tools.serving.execution import Execution
from mqtt_agent.tools.serving.inputs import Inputs
from mqtt_agent.tools.serving.replay import ReplayStore
from mqtt_agent.tools.serving.results import ToolResult
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.tools.tracing import traced_handler
from mqtt_agent.transport import tell_if_denied
from mqtt_agent.wire import CallFault, Response, checked_json, encode, is_identifier, mended_text, to_json
from mqtt_agent.wire.calls import DOES_NOT_FIT, INPUT, read_error_type

__all__ = ["CallRunner"]

logger: logging.Logger = logger_of(__name__)


class CallRunner:
    """Runs the handlers of one tool server, and makes the responses to their calls.

    Args:
        scope: What all parts of the server share.
        inputs: Asks the callers for input.
        replay: Keeps the responses for repeated calls.
        max_threads: How many plain ``def`` handlers run at once. The executor never starts more, so no
            handler waits for a thread.
        contents: Keeps what handlers share with their callers.
    """

    def __init__(
        self,
        scope: Scope,
        inputs: Inputs,
        replay: ReplayStore,
        max_threads: int,
        contents: Contents | None = None,
    ) -> None:
        self._connection = scope.connection
        self._topics = scope.topics
        self._server_id = scope.server_id
        self._inputs = inputs
        self._replay = replay
        self._max_threads = max_threads
        self._contents = contents
        self._threads: DaemonThreads | None = None

    def close(self) -> None:
        """Let the threads of plain ``def`` handlers end, without waiting for them."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    async def run(self, execution: Execution) -> bytes:
        """Run the handler of a call.

        Returns:
            The response.
        """
        mark_handler()
        for message in execution.messages:
            message.work_started()
        call_id = execution.call.call_id
        started = time.perf_counter()
        stream = self._stream(execution)
        answer, error, content = _NO_ANSWER, None, None
        try:
            if execution.stopped_for is not None:
                raise asyncio.CancelledError
            answer = await self._call_handler(execution, stream)
        except asyncio.CancelledError as raised:
            error = execution.stopped_for
            if error is None and _is_being_cancelled():
                raise
            if error is None:
                error = _fault(raised, execution)
                _log_failure(execution, raised)
            else:
                _uncancel()
                if error.type == "timeout":
                    _log_failure(execution, CallTimeout(error.message or ""))
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # every exception of a handler goes to the caller
            cause = raised_by(raised)
            error, content = _fault(cause, execution), _content(cause, execution)
            _log_failure(execution, cause)
        execution.context = None  # from here on, a cancel comes too late
        elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
        await stream.close()
        response = Response(
            call_id=call_id, server=self._server_id, result=answer.result, elapsed_ms=elapsed_ms, seq=stream.seq or None
        )
        if error is not None:
            fail(response, error)
            response.content = content
        else:
            _add_more(response, answer)
        payload = self._encode(response, execution)
        if error is None or not error.retryable:
            self._replay.put(execution.key, payload, execution.request)
        elif execution.messages[0].must_be_proven:
            self._replay.note_forgotten(execution.messages[0].proof.signed_at / 1000)
        return payload

    @traced_handler
    async def _call_handler(self, execution: Execution, stream: CallStream) -> ToolResult:
        call, function = execution.call, execution.tool.function
        context = ToolContext(
            call_id=call.call_id,
            tool=function.name,
            client=call.client,
            server=self._server_id,
            stream=stream,
            meta=call.meta,
            log_level=call.log_level,
            bound=execution.bound,
            verified=call.client if execution.messages[0].proves(call.client) else None,
            request=partial(self._inputs.request, execution, stream) if INPUT in (call.accepts or ()) else None,
            contents=self._contents,
        )
        execution.context = context
        bound = function.bind(call.arguments, context, len(execution.messages[0].payload))
        execution.fits = True
        if call.stream:
            await stream.publish("accepted", server=self._server_id)
        timer = None
        if execution.tool.timeout is not None:
            answer = CallFault(type="timeout", message=f"the tool ran longer than {execution.tool.timeout:g} s")
            timer = asyncio.get_running_loop().call_later(execution.tool.timeout, execution.stop, answer)
        try:
            result = await (bound() if function.is_async else self._call_in_thread(execution, bound))
            result = await result if inspect.isawaitable(result) else result
            answer = _plain(result, function.name)
            if answer.structured:
                function.check_result(answer.result)
            return answer
        finally:
            if timer is not None:
                timer.cancel()

    def _encode(self, response: Response, execution: Execution) -> bytes:
        """The payload of a response. A result that JSON cannot carry makes the response an error."""
        try:
            return encode(response, execution.tool_name)
        except WireError as cause:
            error = _ResultNotJSON(cause)
            _log_failure(execution, error)
            response.result = response.content = response.structured = response.meta = None
            fail(response, _fault(error, execution))
            return encode(response, execution.tool_name)

    def _call_in_thread(self, execution: Execution, bound: Callable[[], Any]) -> asyncio.Future[Any]:
        if self._threads is None:
            self._threads = DaemonThreads(self._max_threads, "mqtt-agent-tool")
        execution.thread = self._threads.submit(without_surprises(bound))
        return asyncio.wrap_future(execution.thread)

    def _stream(self, execution: Execution) -> CallStream:
        call, tool = execution.call, execution.tool
        call_id = call.call_id
        if call.stream is False or not tool.function.wants_context or not is_identifier(call_id):
            return CallStream(call_id, None)
        bound, name, publish = execution.bound, tool.function.name, self._connection.publish_soon
        topic = (
            self._topics.bound.stream(call.client, call_id, self._server_id) if bound else tool.stream_topic(call_id)
        )
        # A signature proves only a name that the message has.
        server = self._server_id if self._connection.identity is not None and not bound else None
        readers = (call.client,)
        on_trouble = partial(tell_if_denied, topic, f"the partial results of tool {name!r:.80}")
        return CallStream(
            call_id, lambda payload: publish(topic, payload, on_trouble=on_trouble, readers=readers), name, server
        )


_NO_ANSWER = ToolResult(None)


class _ResultNotJSON(Exception):
    """JSON cannot carry the result of a handler. The handler has run.

    Args:
        cause: Says why, and names the place in the result.
    """

    def __init__(self, cause: WireError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _plain(result: Any, tool: str) -> ToolResult:
    """What a handler returned, as plain JSON."""
    try:
        if not isinstance(result, ToolResult):
            return ToolResult(to_json(result, "result", tool))
        plain = {name: to_json(getattr(result, name), name, tool) for name in ("result", "content", "meta")}
        return ToolResult(**plain, structured=result.structured)
    except WireError as error:
        raise _ResultNotJSON(error) from error


def _add_more(response: Response, answer: ToolResult) -> None:
    """Add to a response what few answers have. Each assignment to a field of a model takes time."""
    if answer.content is not None or answer.meta is not None:
        response.content, response.meta = answer.content, answer.meta
    if not answer.structured:
        response.structured = False


def _content(error: BaseException, execution: Execution) -> list[dict[str, Any]] | None:
    """The content blocks of a handler's error. Blocks that JSON cannot carry are left out."""
    content = error.content if isinstance(error, ToolError) else None
    try:
        return None if content is None else checked_json(content, "content", execution.tool_name)
    except WireError as refused:
        logger.warning("an error of tool %s is sent without its content: %s", execution.tool_name, refused)
        return None


def _fault(error: BaseException, execution: Execution) -> CallFault:
    """The error for the caller, from a handler's exception. Every exception gives an error that can be sent."""
    kind, message = describe(error)
    message = mended_text(message)
    if isinstance(error, InvalidArguments):
        code = None if execution.fits else DOES_NOT_FIT
        return CallFault(type="invalid_arguments", message=message, code=code, data=error.data)
    if isinstance(error, _ResultNotJSON):
        message = f"the tool ran, but its result cannot be sent: {message}"
        return CallFault(type="tool_error", message=message, code="RESULT_NOT_JSON")
    if not isinstance(error, ToolError):
        return CallFault(type="tool_error", message=message or kind, code=kind)
    try:
        data = checked_json(error.data, "data", kind)
    except WireError:
        data = repr(error.data)
    code = None if error.code is None else mended_text(str(error.code))
    answer = CallFault(type=read_error_type(error.type), message=message or kind, code=code, data=data)
    answer.retryable = bool(error.retryable)
    return answer


def _log_failure(execution: Execution, error: BaseException) -> None:
    # An error about a call has the call's id when the handler itself made that call, as a client of another server.
    refused = isinstance(error, InvalidArguments) and error.call_id is None
    log_failure(
        logger,
        f"tool {execution.tool_name} failed in call {execution.call.call_id:.80} of {execution.call.client:.80}",
        error.cause if isinstance(error, _ResultNotJSON) else error,
        on_purpose=refused or isinstance(error, ToolError),
        handler=execution.tool.function.handler,
    )


def _is_being_cancelled() -> bool:
    """Whether the asyncio task that runs the call is being canceled. If not, the handler raised CancelledError."""
    # Before Python 3.11, asyncio tasks do not count cancellations. There, the exception counts as the handler's own.
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is not None and cancelling() > 0


def _uncancel() -> None:
    """End the cancellation of the running asyncio task, because only the handler should be canceled."""
    # Python 3.11 and later count cancellations, and would cancel the publish that follows.
    uncancel = getattr(asyncio.current_task(), "uncancel", None)
    if uncancel is not None:
        uncancel()
