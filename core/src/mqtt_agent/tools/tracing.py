"""Traces and durations of tool calls with OpenTelemetry, when OpenTelemetry's API is installed.

A call has a CLIENT span at its caller, and a SERVER span around its handler. The trace context travels as MQTT user
properties, with the names that the application's propagators use: by default ``traceparent``, ``tracestate`` and
``baggage``. The attributes follow OpenTelemetry's semantic conventions for MCP. The same decorators record how long
calls take (:mod:`mqtt_agent.tools.measuring`), so that a call costs one more function and not two.

The module checks only once, when it is imported, whether the API is installed.
"""

# pyright: reportPossiblyUnboundVariable=false
# The names of OpenTelemetry are unbound when the API is not installed. They are used only where ENABLED is true.

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Protocol, TypeVar

from typing_extensions import ParamSpec

from mqtt_agent.errors import (
    CallCanceled,
    CallerNotAuthorized,
    CallTimeout,
    InvalidArguments,
    ToolFailed,
    ToolUnavailable,
)
from mqtt_agent.logs import logger_of
from mqtt_agent.metering import harmless
from mqtt_agent.tools.measuring import AT_CALLER, AT_SERVER
from mqtt_agent.version import __version__
from mqtt_agent.wire import Call, CallFault, mended_text
from mqtt_agent.wire.calls import CANCELED

__all__ = ["ENABLED", "trace_context", "traced_call", "traced_handler"]

logger: logging.Logger = logger_of(__name__)

try:
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context, attach, detach, get_current
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode

    _tracer = trace.get_tracer("mqtt_agent", __version__)
    _enabled = True
except ImportError:
    _enabled = False
except Exception as _error:  # for example, $OTEL_PROPAGATORS names a propagator that is not installed
    logger.warning("calls are not traced: OpenTelemetry cannot be used: %r", _error)
    _enabled = False

ENABLED: bool = _enabled
"""Whether calls are traced, because OpenTelemetry's API is installed."""

UserProperties = tuple[tuple[str, str], ...]
"""MQTT user properties: pairs of name and value."""


class Pending(Protocol):
    """The part of :class:`CallHandle` that a CLIENT span uses."""

    call_id: str
    server: str | None

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the call is over."""
        ...

    def failure(self) -> BaseException | None:
        """The error with which the call ended, if any."""
        ...


class Handled(Protocol):
    """The part of :class:`Execution` that a SERVER span uses."""

    call: Call
    stopped_for: CallFault | None

    @property
    def tool_name(self) -> str:
        """The name of the tool that is called."""
        ...

    @property
    def user_properties(self) -> UserProperties:
        """The MQTT user properties of the call's message."""
        ...


P = ParamSpec("P")
S = TypeVar("S")
Sent = TypeVar("Sent", bound=Pending)
Run = TypeVar("Run", bound=Handled)

_MAX_TEXT = 1000
"""The length of the longest text in a span, in characters."""
_MAX_PROPERTY = 8192
"""The length of the longest user property that carries trace context, in characters."""
_OURS = "mqtt-agent-"
"""Begins the names of this project's own user properties, such as a signature, which carry no trace context."""
_LACKS = "the span of a call lacks something"
_ERROR_TYPES: dict[type[BaseException], str] = {
    ToolFailed: "tool_error",
    InvalidArguments: "invalid_arguments",
    CallerNotAuthorized: "unauthorized",
    CallTimeout: "timeout",
    ToolUnavailable: "unavailable",
    CallCanceled: "canceled",
    asyncio.CancelledError: "canceled",
}


def traced_call(
    submit: Callable[Concatenate[S, str, P], Coroutine[Any, Any, Sent]],
) -> Callable[Concatenate[S, str, P], Coroutine[Any, Any, Sent]]:
    """Decorate a method that sends a call and returns the call's handle.

    The CLIENT span starts when the method is called, is the current span inside the method, and ends when the call is
    over.
    """
    if not ENABLED:
        return submit

    @functools.wraps(submit)
    async def traced(self: S, tool: str, *args: P.args, **kwargs: P.kwargs) -> Sent:
        if not (_provided() or AT_CALLER.wanted):  # a span would only repeat the current context
            return await submit(self, tool, *args, **kwargs)
        span = _started(tool, SpanKind.CLIENT, _attributes(tool))
        traced, begun = span.get_span_context().is_valid, time.perf_counter() if AT_CALLER.wanted else None
        if not traced and begun is None:
            return await submit(self, tool, *args, **kwargs)
        token = attach(trace.set_span_in_context(span)) if traced else None
        try:
            handle = await submit(self, tool, *args, **kwargs)
        except BaseException as error:
            _end_call(span, begun, tool, error)
            raise
        finally:
            if token is not None:
                detach(token)
        with harmless(_LACKS):
            span.set_attribute("messaging.message.conversation_id", _clean(handle.call_id))
        handle.when_over(lambda: _end_call(span, begun, tool, handle.failure(), handle.server))
        return handle

    return traced


def trace_context() -> UserProperties:
    """The MQTT user properties that carry the current trace context to the server."""
    if not ENABLED:
        return ()
    carrier: dict[str, str] = {}
    try:
        propagate.inject(carrier)
        return tuple((name, value) for name, value in carrier.items() if _can_travel(name) and _can_travel(value))
    except Exception as error:  # an application's own propagator may raise anything
        logger.debug("a call is sent without its trace context: %r", error)
        return ()


def traced_handler(
    run: Callable[Concatenate[S, Run, P], Coroutine[Any, Any, Any]],
) -> Callable[Concatenate[S, Run, P], Coroutine[Any, Any, Any]]:
    """Decorate a method that runs the handler of a call. The handler runs in a SERVER span of the caller's trace."""
    if not ENABLED:
        return run

    @functools.wraps(run)
    async def traced(self: S, execution: Run, *args: P.args, **kwargs: P.kwargs) -> Any:
        if not (_may_have_context(execution.user_properties) or _provided() or AT_SERVER.wanted or get_current()):
            return await run(self, execution, *args, **kwargs)  # there is no context to replace
        # The current context belongs to the code that started the server, not to the caller.
        context = _context_of(execution.user_properties)
        tool, call = execution.tool_name, execution.call
        attributes = _attributes(tool)
        attributes["messaging.message.conversation_id"] = _clean(call.call_id)
        attributes["mqtt_agent.client"] = call.client
        span = _started(tool, SpanKind.SERVER, attributes, context)
        token = attach(trace.set_span_in_context(span, context))
        begun, kind = time.perf_counter() if AT_SERVER.wanted else None, None
        try:
            return await run(self, execution, *args, **kwargs)
        except BaseException as error:
            kind = _handler_error_type(execution, error)
            with harmless(_LACKS):
                _fail_handler(span, execution, error, kind)
            raise
        finally:
            detach(token)
            _end(span)
            if begun is not None:
                AT_SERVER.record(time.perf_counter() - begun, tool, kind)

    return traced


def _provided() -> bool:
    """Whether the application has set a tracer provider. What cannot be known counts as set."""
    # Until then, the API's stand-in has no real tracer. It looks for one only when a span starts.
    return (
        getattr(trace, "_TRACER_PROVIDER", _tracer) is not None or getattr(_tracer, "_real_tracer", _tracer) is not None
    )


def _started(tool: str, kind: SpanKind, attributes: dict[str, str], context: Context | None = None) -> Span:
    with harmless("a call has no span"):
        return _tracer.start_span(f"tools/call {tool}", context, kind, attributes)
    return trace.NonRecordingSpan(trace.get_current_span(context).get_span_context())  # the trace goes on


def _end(span: Span) -> None:
    with harmless("the span of a call may be lost"):
        span.end()


def _attributes(tool: str) -> dict[str, str]:
    return {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
        "messaging.system": "mqtt",
        "network.protocol.name": "mqtt",
        "network.protocol.version": "5",
    }


def _end_call(
    span: Span, begun: float | None, tool: str, error: BaseException | None, server: str | None = None
) -> None:
    kind = None if error is None else _error_type(error)
    with harmless(_LACKS):
        if error is not None and kind is not None:
            _fail(span, kind, error)
        if server is not None:
            span.set_attribute("mqtt_agent.server", _clean(server))
    _end(span)
    if begun is not None:
        AT_CALLER.record(time.perf_counter() - begun, tool, kind)


def _fail_handler(span: Span, execution: Handled, error: BaseException, kind: str) -> None:
    if not span.is_recording():
        return
    answer = execution.stopped_for
    if answer is not None and isinstance(error, asyncio.CancelledError):
        _fail(span, kind, "the caller canceled the call" if answer.code == CANCELED else answer.message)
        return
    _fail(span, kind, error)
    event = {"exception.type": type(error).__qualname__, "exception.message": _clean(error)}
    with contextlib.suppress(Exception):  # the code of the exception's own class runs, and may raise anything
        event["exception.stacktrace"] = _clean("".join(traceback.format_exception(error)), 20 * _MAX_TEXT)
    span.add_event("exception", event)


def _fail(span: Span, kind: str, message: object) -> None:
    span.set_attribute("error.type", _clean(kind))
    span.set_status(Status(StatusCode.ERROR, _clean(message)))


def _handler_error_type(execution: Handled, error: BaseException) -> str:
    """The kind of the error with which the handler of a call has ended."""
    answer = execution.stopped_for
    if answer is not None and isinstance(error, asyncio.CancelledError):
        return "canceled" if answer.code == CANCELED else answer.type
    return "invalid_arguments" if isinstance(error, InvalidArguments) else "tool_error"


def _error_type(error: BaseException) -> str:
    """The kind of the error with which a call has ended for its caller."""
    return _ERROR_TYPES.get(type(error), type(error).__name__)


def _clean(text: object, most: int = _MAX_TEXT) -> str:
    """Make a text that every exporter can encode. The text may come from a peer or a handler."""
    try:
        return mended_text(str(text)[:most])
    except Exception:
        return type(text).__name__


def _can_travel(text: object) -> bool:
    return isinstance(text, str) and text.isascii() and text.isprintable() and len(text) <= _MAX_PROPERTY


def _may_have_context(properties: UserProperties) -> bool:
    return any(not name.startswith(_OURS) for name, _ in properties)


def _context_of(properties: UserProperties) -> Context:
    carrier: dict[str, list[str]] = {}
    for name, value in properties:
        if not name.startswith(_OURS) and _can_travel(value):
            carrier.setdefault(name, []).append(value)
    if carrier:
        try:
            return propagate.extract(carrier, Context())
        except Exception as error:
            logger.debug("a call arrived with an unreadable trace context: %r", error)
    return Context()
