"""Calls, their answers, and what comes in between."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mqtt_agent.wire.messages import Message, utc_now

__all__ = ["Call", "CallFault", "Cancel", "ErrorType", "Query", "Response", "StreamMessage", "read_error_type"]

ErrorType = Literal["invalid_arguments", "unauthorized", "tool_error", "timeout", "unavailable"]

_ERROR_TYPES: frozenset[str] = frozenset(("invalid_arguments", "unauthorized", "tool_error", "timeout", "unavailable"))


class Call(Message):
    """A request to run a tool (spec).

    Attributes:
        call_id: Any string; with ``client`` it names the call, so that a repeat is not run again.
        arguments: What the tool takes.
        client: The caller's name, as it says itself.
        timestamp: When the call was made, ISO 8601 UTC.
        response_topic: Where the answer goes when the Response Topic property is missing (spec).
        stream: Whether the caller listens for partials (ours); None when a caller does not tell.
    """

    call_id: str = Field(min_length=1)
    arguments: dict[str, Any] = Field(default_factory=dict)
    client: str
    timestamp: str = Field(default_factory=utc_now)
    response_topic: str | None = None
    stream: bool | None = None


class CallFault(Message):
    """Why a call has no result.

    Attributes:
        type: One of the specified error types; read an unknown one with :func:`read_error_type` (spec).
        message: For people.
        code: For programs.
        data: Whatever helps the caller (ours).
        retryable: Whether the same call may succeed later (ours).
    """

    type: str = "tool_error"
    message: str = ""
    code: str | None = None
    data: Any = None
    retryable: bool | None = None


class Response(Message):
    """The one final answer to a call (spec).

    Attributes:
        call_id: Which call it answers.
        status: ``"error"``, or anything else for a success (ref).
        result: Any JSON value; absent means null (ref).
        error: Set when status is ``"error"``.
        elapsed_ms: How long the handler took, in milliseconds.
        server: Which replica answered (ours).
        seq: The ``seq`` of the call's last stream message, so that the caller can tell whether all have arrived (ours).
        content: MCP content blocks, when the tool returned more than plain JSON (ours).
    """

    call_id: str
    status: str = "ok"
    result: Any = None
    error: CallFault | None = None
    elapsed_ms: float | None = None
    server: str | None = None
    seq: int | None = None
    content: list[dict[str, Any]] | None = None


class StreamMessage(Message):
    """Something a tool tells before its answer (spec).

    Attributes:
        call_id: Which call it belongs to.
        seq: Grows with each message of a call; repeated and missing values occur (ref).
        type: ``partial``, ``done``, or ``accepted`` (ours).
        content: Text.
        data: Any other JSON value; progress is ``{"progress", "total"?, "message"?}`` (ours).
        server: Which replica runs the call (ours).
    """

    call_id: str
    seq: int = 0
    type: str = "partial"
    content: str | None = None
    data: Any = None
    server: str | None = None


class Cancel(Message):
    """Asks whichever replica runs a call to stop it (ours)."""

    call_id: str = Field(min_length=1)
    client: str
    reason: str | None = None


class Query(Message):
    """Asks one replica which calls it has; it sends again the responses that it still keeps (ours).

    The answer is a :class:`Response` to ``query_id`` with ``{"known": [call ids]}`` as its result.
    """

    query_id: str = Field(min_length=1)
    call_ids: list[str]
    client: str


def read_error_type(value: str) -> ErrorType:
    """The specified error type that ``value`` stands for; an unknown one is a ``tool_error`` (spec)."""
    return value if value in _ERROR_TYPES else "tool_error"  # type: ignore[return-value]
