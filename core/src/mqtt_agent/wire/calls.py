"""The messages of a tool call: call, stream messages, input, response, cancel, and the query for lost calls."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mqtt_agent.wire.messages import Message, utc_now

__all__ = [
    "CANCELED",
    "DOES_NOT_FIT",
    "INPUT",
    "LOG_LEVELS",
    "MAX_QUERIED",
    "Call",
    "CallFault",
    "Cancel",
    "ErrorType",
    "InputAnswer",
    "Query",
    "Request",
    "Response",
    "StreamMessage",
    "read_error_type",
]

ErrorType = Literal["invalid_arguments", "unauthorized", "tool_error", "timeout", "unavailable"]
"""Why a call failed (spec)."""

MAX_QUERIED: int = 1000
"""How many calls one query may ask for."""

DOES_NOT_FIT: str = "ARGUMENTS_DO_NOT_FIT"
"""The code of the error that refuses a call before it runs, because its arguments do not fit the input schema."""

LOG_LEVELS: tuple[str, ...] = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""The levels of log messages, from the least to the most important; MCP's names."""

INPUT: str = "input"
"""The entry in the ``accepts`` of a call that says: the caller answers requests for input."""

CANCELED: str = "CANCELED"
"""The code of the error that answers a call which was canceled."""

OVERLOADED: str = "OVERLOADED"
"""The code of the error that answers a call for which its server has no room."""

_ERROR_TYPES: frozenset[str] = frozenset(("invalid_arguments", "unauthorized", "tool_error", "timeout", "unavailable"))


class Call(Message):
    """A request to run a tool (spec).

    Attributes:
        call_id: Any string. Together with ``client`` it identifies the call. A repeated call is not run again.
        arguments: The arguments of the tool, by name.
        client: The caller's name. The caller chooses it, and nothing proves it, except the name of a sender-bound topic
            whose writers the broker checks.
        timestamp: When the call was made, ISO 8601 UTC.
        response_topic: The topic for the response when the MQTT property Response Topic is missing (spec).
        stream: Whether the caller listens for partial results (ours). None: the caller does not say.
        meta: Any other information from the caller, which nothing proves (ours).
        log_level: The least level of the log messages that the caller wants, with MCP's names (ours). None: no log
            messages.
        accepts: The kinds of messages that the caller understands beyond partial results: ``input`` (ours).
    """

    call_id: str = Field(min_length=1)
    arguments: dict[str, Any] = Field(default_factory=dict)
    client: str
    timestamp: str = Field(default_factory=utc_now)
    response_topic: str | None = None
    stream: bool | None = None
    meta: dict[str, Any] | None = None
    log_level: str | None = None
    accepts: list[str] | None = None


class CallFault(Message):
    """Why a call has no result.

    Attributes:
        type: One of the specified error types (spec). :func:`read_error_type` reads unknown types.
        message: A text for people.
        code: A short code for programs.
        data: Any JSON value that helps the caller (ours).
        retryable: Whether the same call may succeed later (ours).
    """

    type: str = "tool_error"
    message: str = ""
    code: str | None = None
    data: Any = None
    retryable: bool | None = None


class Response(Message):
    """The final answer to a call; each call has one (spec).

    Attributes:
        call_id: The id of the call.
        status: ``"error"``, or anything else for a success (ref).
        result: Any JSON value; absent means null (ref).
        error: Why the call failed, when status is ``"error"``.
        elapsed_ms: How long the handler took, in milliseconds.
        server: The id of the replica that answered (ours).
        seq: The ``seq`` of the call's last stream message. It tells the caller whether all stream messages have arrived
            (ours).
        content: MCP content blocks, when the tool returned more than plain JSON (ours). An error may have blocks too.
        structured: False when ``result`` is only the text of ``content``, and no value of its own (ours).
        meta: Any other information from the tool (ours).
    """

    call_id: str
    status: str = "ok"
    result: Any = None
    error: CallFault | None = None
    elapsed_ms: float | None = None
    server: str | None = None
    seq: int | None = None
    content: list[dict[str, Any]] | None = None
    structured: bool | None = None
    meta: dict[str, Any] | None = None


class StreamMessage(Message):
    """A message that a tool sends before its response, such as a partial result (spec).

    Attributes:
        call_id: The id of the call.
        seq: A number that grows with each message of a call. Values may be repeated or missing (ref).
        type: ``partial``, ``done``, ``accepted`` (ours), ``log`` (ours) or ``input`` (ours).
        content: A text.
        data: Any other JSON value; progress is ``{"progress", "total"?, "message"?}`` (ours).
        server: The id of the replica that runs the call (ours).
        level: The level of a log message, one of :data:`LOG_LEVELS` (ours).
        logger: The name of the logger of a log message (ours).
        input_id: The id of a request for input (ours).
        method: What a request for input asks for, as a method of MCP such as ``elicitation/create`` (ours).
        params: The parameters of this method (ours).
        number: Counts the requests for input of a call, from 1 (ours).
    """

    call_id: str
    seq: int = 0
    type: str = "partial"
    content: str | None = None
    data: Any = None
    server: str | None = None
    level: str | None = None
    logger: str | None = None
    input_id: str | None = None
    method: str | None = None
    params: dict[str, Any] | None = None
    number: int | None = None


class InputAnswer(Message):
    """Answers a request for input, which arrived as a stream message of type ``input`` (ours).

    Attributes:
        call_id: The id of the call.
        input_id: The id of the request, as in the stream message.
        client: The caller's name, as in the call.
        result: The result of the method, such as ``{"action": "accept", "content": {...}}``.
        error: Why there is no result.
    """

    call_id: str = Field(min_length=1)
    input_id: str = Field(min_length=1)
    client: str
    result: Any = None
    error: CallFault | None = None


class Cancel(Message):
    """Asks the replica that runs a call to stop the call. The message goes to all replicas (ours).

    Attributes:
        call_id: The id of the call.
        client: The caller's name, as in the call.
        reason: Why the call is canceled, for people.
    """

    call_id: str = Field(min_length=1)
    client: str
    reason: str | None = None


class Query(Message):
    """Asks one replica which of the named calls it knows (ours).

    The replica also sends the responses to these calls again, if it still keeps them. The answer to the query is a
    :class:`Response` whose ``call_id`` is the ``query_id``, with ``{"known": [call ids]}`` as its result.

    Attributes:
        query_id: The id of the query.
        call_ids: The ids of the calls.
        client: The name of the caller that made the calls.
        tool: The tool that ``call`` is for.
        call: A call for this replica alone, as in a :class:`Call`. A query with a call is not answered: the replica
            answers the call.
    """

    query_id: str = Field(min_length=1)
    call_ids: list[str]
    client: str
    tool: str | None = None
    call: dict[str, Any] | None = None


class Request(Message):
    """Asks one replica of a server for something that is no call of a tool (ours).

    The answer is a :class:`Response` whose ``call_id`` is the ``request_id``.

    Attributes:
        request_id: The id of the request.
        method: What is asked for, as a method of MCP such as ``resources/read``.
        params: The parameters of this method.
        client: The name of the client that asks.
    """

    request_id: str = Field(min_length=1)
    method: str
    params: dict[str, Any] | None = None
    client: str


def read_error_type(value: str) -> ErrorType:
    """The specified error type for ``value``. An unknown type counts as ``tool_error`` (spec)."""
    return value if value in _ERROR_TYPES else "tool_error"  # type: ignore[return-value]
