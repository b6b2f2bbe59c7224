"""The errors of tool calls."""

from __future__ import annotations

from typing import Any

from mqtt_agent.errors.base import MQTTAgentError

__all__ = [
    "CallCanceled",
    "CallError",
    "CallTimeout",
    "CallerNotAuthorized",
    "ContentLost",
    "InputNotGiven",
    "InvalidArguments",
    "ToolError",
    "ToolFailed",
    "ToolUnavailable",
]


class CallError(MQTTAgentError):
    """A tool call ended without a result.

    It is the base class of the errors that ``client.call()`` and ``handle.result()`` raise. The subclasses say what to
    do.

    Attributes:
        tool: The name of the tool.
        call_id: The id of the call, or None when the call was never sent.
    """

    def __init__(self, message: str, *, tool: str = "", call_id: str | None = None) -> None:
        super().__init__(message)
        self.tool: str = tool
        self.call_id: str | None = call_id


class InvalidArguments(CallError):
    """The arguments do not fit the tool's schema, or the call id belongs to another call. The tool was not run.

    ``client.call()`` and ``handle.result()`` raise it after the tool server has checked the arguments. The message
    names the path of the wrong value. ``await client.get_tool(name)`` shows what the tool takes.

    Attributes:
        data: A list such as ``[{"path": "/days", "message": "..."}]`` when the server sends such a list, else None.
    """

    def __init__(self, message: str, *, tool: str = "", call_id: str | None = None, data: Any = None) -> None:
        super().__init__(message, tool=tool, call_id=call_id)
        self.data: Any = data


class CallerNotAuthorized(CallError):
    """The tool server refuses this caller, so the tool was not run.

    ``client.call()`` and ``handle.result()`` raise it. Ask the operator of the tool server to let this caller in.
    """


class ToolFailed(CallError):
    """The tool ran and failed.

    ``client.call()`` and ``handle.result()`` raise it after the tool's handler has raised an exception. The log of the
    tool server names the line that failed.

    Attributes:
        code: The code that the tool chose with :class:`ToolError`, or the class name of the handler's exception.
        data: The JSON value that the tool attached to its error, if any.
        server: The id of the replica that answered, if it is known.
        retryable: Whether the same call may succeed later, as the tool says; None when the tool does not say it.
        content: The MCP content blocks of the error, for a model to read; None when there are none.
    """

    def __init__(
        self,
        message: str,
        *,
        tool: str = "",
        call_id: str | None = None,
        code: str | None = None,
        data: Any = None,
        server: str | None = None,
        retryable: bool | None = None,
        content: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message, tool=tool, call_id=call_id)
        self.code: str | None = code
        self.data: Any = data
        self.server: str | None = server
        self.retryable: bool | None = retryable
        self.content: list[dict[str, Any]] | None = content


class CallTimeout(CallError, TimeoutError):
    """No answer arrived in time, or the handler ran longer than its server allows.

    ``client.call()`` and ``handle.result()`` raise it after the caller's ``timeout``, or when the server reports that
    its own limit is over. The call may still run: ``client.submit(..., call_id=error.call_id)`` attaches to it.
    """


class CallCanceled(CallError):
    """The caller canceled the call, or stopped the client, before the answer arrived.

    ``handle.result()`` raises it after ``handle.cancel()``, and when the call could not be sent. Make the call again if
    its result is still wanted.
    """


class ToolUnavailable(CallError):
    """No server offers the tool now, or the replica that had the call is gone.

    ``client.call()`` and ``client.submit()`` raise it before sending when no server of the tool is online. It is raised
    later when the replica with the call went offline and the call must not run twice. Start a server of the tool, or
    call with ``wait_online=True``.

    Attributes:
        maybe_executed: True when a server had received the call, so that the tool may have run partly or completely.
    """

    def __init__(
        self, message: str, *, tool: str = "", call_id: str | None = None, maybe_executed: bool = False
    ) -> None:
        super().__init__(message, tool=tool, call_id=call_id)
        self.maybe_executed: bool = maybe_executed


class ContentLost(CallError):
    """A content that a tool has shared cannot be read any more.

    The methods of :class:`mqtt_agent.tools.Content` raise it: the server has dropped the content, was restarted without
    it, or keeps it for another client; or the bytes are not the ones that were shared. Call the tool again.
    """


class ToolError(MQTTAgentError):
    """Raise this error in a tool handler to fail the call with a code of your choice. The caller gets ToolFailed.

    A handler that works for another program chooses the ``type`` too. With ``type="unavailable"``, the caller gets
    ToolUnavailable. Its ``maybe_executed`` is true unless ``data`` is ``{"maybe_executed": False}``.

    Example:
        >>> raise ToolError("the database is down", code="E_DB", retryable=True)  # doctest: +SKIP
        >>> raise ToolError("the child process ended", type="unavailable")  # doctest: +SKIP

    Attributes:
        code: A short code that callers can test for.
        data: Any JSON value that helps the caller.
        retryable: Whether the same call may succeed later; None means unknown.
        type: The error type of the response: ``tool_error``, ``invalid_arguments``, ``unauthorized``, ``timeout`` or
            ``unavailable``. Any other word counts as ``tool_error``.
        content: MCP content blocks, for a model to read.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        data: Any = None,
        retryable: bool | None = None,
        type: str = "tool_error",
        content: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.code: str | None = code
        self.data: Any = data
        self.retryable: bool | None = retryable
        self.type: str = type
        self.content: list[dict[str, Any]] | None = content


class InputNotGiven(ToolError):
    """The caller has not answered what the tool asked in the middle of the call.

    ``await ctx.ask()`` and its relatives raise it in a tool handler. A handler that does not catch it fails the call
    with this error. The code says why: ``INPUT_NOT_ACCEPTED``: the caller answers no questions; call the tool with
    ``on_question=``. ``INPUT_DECLINED``: the person has declined, or has made no choice. ``INPUT_TIMEOUT``: no answer
    came in time. Any other code is the caller's own.
    """
