"""Every error that MQTT.Agent raises.

One tree, so that ``except MQTTAgentError`` catches all of it::

    MQTTAgentError
    ├── InvalidIdentifier (ValueError)     a name that cannot be a topic level
    ├── WireError (ValueError)             bytes or a value that are no message
    ├── TransportError (ConnectionError)   between us and the broker
    │   ├── BrokerUnreachable              nobody answers at the URL
    │   ├── ConnectionRefused              the broker says no: credentials, client id, protocol
    │   ├── ConnectionLost                 gone, or stopped, while something was under way
    │   ├── SessionTakenOver               another process uses our client id
    │   ├── TopicNotAuthorized             the broker forbids this topic to us
    │   └── PublishRefused                 any other refusal of one message
    ├── PayloadTooLarge (ValueError)       more than the broker takes
    ├── QueueFull                          too much waits for the broker or for answers
    ├── CallError                          a tool call without a result
    │   ├── InvalidArguments               refused by the tool's schema
    │   ├── CallerNotAuthorized            refused by the tool server
    │   ├── ToolFailed                     the tool ran and failed
    │   ├── CallTimeout (TimeoutError)     no answer in time
    │   ├── CallCanceled                   canceled by its own caller
    │   └── ToolUnavailable                nobody serves it, or who did is gone
    ├── ToolError                          raised *by* a tool handler, to choose its error code
    ├── TaskError                          a task without a result
    │   ├── TaskFailed                     its agent tried and failed; also raised *by* task handlers
    │   ├── TaskRejected                   its agent does not take it; also raised *by* task handlers
    │   ├── TaskCanceled                   canceled before it was completed
    │   ├── TaskExpired                    not completed by its ``expires_at``
    │   ├── TaskTimeout (TimeoutError)     nobody waits any more; the task goes on
    │   ├── TaskNotFound (LookupError)     no such task in the store
    │   └── PeerUnavailable                the agent does not exist, or is offline
    └── StoreError                         the task store cannot be read or written

Errors of the libraries below (paho-mqtt, ssl, socket, pydantic, jsonschema-rs) are translated where we call them and
stay reachable as ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mqtt_agent.deprecation import renamed_names

__all__ = [
    "BrokerUnreachable",
    "CallCanceled",
    "CallError",
    "CallTimeout",
    "CallerNotAuthorized",
    "ConnectionLost",
    "ConnectionRefused",
    "InvalidArguments",
    "InvalidIdentifier",
    "MQTTAgentError",
    "PayloadTooLarge",
    "PeerUnavailable",
    "PublishRefused",
    "QueueFull",
    "SessionTakenOver",
    "StoreError",
    "TaskCanceled",
    "TaskError",
    "TaskExpired",
    "TaskFailed",
    "TaskNotFound",
    "TaskRejected",
    "TaskTimeout",
    "ToolError",
    "ToolFailed",
    "ToolUnavailable",
    "TopicNotAuthorized",
    "TransportError",
    "WireError",
]


class MQTTAgentError(Exception):
    """The root of the tree."""

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this. Our own frames tell its reader nothing; what to do next does.
        from mqtt_agent.display import short_traceback

        return short_traceback(self)


class InvalidIdentifier(MQTTAgentError, ValueError):
    """A tool, server, agent, client or task name that cannot be one level of an MQTT topic."""


class WireError(MQTTAgentError, ValueError):
    """Bytes that are no message of this protocol, or a value that JSON cannot carry."""


class TransportError(MQTTAgentError, ConnectionError):
    """Something between this process and the broker.

    It is a :class:`ConnectionError`, so retry policies that know nothing of MQTT.Agent treat it as what it is.
    """


class BrokerUnreachable(TransportError):
    """Nobody answers MQTT at the broker's URL."""


class ConnectionRefused(TransportError):
    """The broker answered and refused the connection.

    Attributes:
        reason_code: The MQTT 5 reason code of the CONNACK, for example 0x86 for a bad user name or password.
    """

    def __init__(self, message: str, *, reason_code: int) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class ConnectionLost(TransportError):
    """The connection ended, or was stopped, before the broker confirmed what was under way.

    Attributes:
        reason_code: The MQTT 5 reason code of the broker's DISCONNECT, or None when it sent none.
    """

    def __init__(self, message: str, *, reason_code: int | None = None) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class SessionTakenOver(TransportError):
    """Another process connected with the same client id; this one stops and does not fight back."""


class TopicNotAuthorized(TransportError):
    """The broker does not let this client publish or subscribe there.

    Attributes:
        topic: The topic or topic filter that was refused.
    """

    def __init__(self, message: str, *, topic: str) -> None:
        super().__init__(message)
        self.topic = topic


class PublishRefused(TransportError):
    """The broker refused one message for a reason other than authorization.

    Attributes:
        topic: Where the message was to go.
        reason_code: The MQTT 5 reason code of the PUBACK.
    """

    def __init__(self, message: str, *, topic: str, reason_code: int) -> None:
        super().__init__(message)
        self.topic = topic
        self.reason_code = reason_code


class PayloadTooLarge(MQTTAgentError, ValueError):
    """The message is larger than the broker's Maximum Packet Size; it was not sent."""


class QueueFull(MQTTAgentError):
    """The limit on messages or calls that may wait at once is reached; nothing was sent."""


class CallError(MQTTAgentError):
    """A tool call that ended without a result.

    Attributes:
        tool: The tool's name.
        call_id: The call's id, or None when the call was never sent.
    """

    def __init__(self, message: str, *, tool: str = "", call_id: str | None = None) -> None:
        super().__init__(message)
        self.tool = tool
        self.call_id = call_id


class InvalidArguments(CallError):
    """The arguments do not fit the tool's schema; the message names the path of what is wrong.

    Attributes:
        data: ``[{"path": "/days", "message": "..."}]`` when the server tells it, else None.
    """

    def __init__(self, message: str, *, tool: str = "", call_id: str | None = None, data: Any = None) -> None:
        super().__init__(message, tool=tool, call_id=call_id)
        self.data = data


class CallerNotAuthorized(CallError):
    """The tool server refuses this caller."""


class ToolFailed(CallError):
    """The tool ran and failed.

    Attributes:
        code: The code chosen by the tool, or the class name of its exception.
        data: What the tool attached to its error, if anything.
        server: The replica that answered, when it says so.
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
    ) -> None:
        super().__init__(message, tool=tool, call_id=call_id)
        self.code = code
        self.data = data
        self.server = server


class CallTimeout(CallError, TimeoutError):
    """No answer in time, or the handler ran past the server's limit.

    Submit with the same ``call_id`` again to attach to a call that may still be running.
    """


class CallCanceled(CallError):
    """The caller canceled the call, or closed the client, before the answer came."""


class ToolUnavailable(CallError):
    """Nobody serves the tool now, or the replica that had the call is gone.

    Attributes:
        maybe_executed: True when the call had been handed over, so that it may have run, in part or whole.
    """

    def __init__(
        self, message: str, *, tool: str = "", call_id: str | None = None, maybe_executed: bool = False
    ) -> None:
        super().__init__(message, tool=tool, call_id=call_id)
        self.maybe_executed = maybe_executed


class ToolError(MQTTAgentError):
    """Raise it in a tool handler to fail the call with a code of your choice.

    Example:
        >>> raise ToolError("the database is away", code="E_DB", retryable=True)  # doctest: +SKIP

    Attributes:
        code: A short code that callers can test for.
        data: Any JSON value that helps the caller.
        retryable: Whether the same call may succeed later; None says nothing.
    """

    def __init__(
        self, message: str, *, code: str | None = None, data: Any = None, retryable: bool | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.retryable = retryable


class TaskError(MQTTAgentError):
    """A task that ended, or was left, without a result.

    Attributes:
        task_id: Which task; None when there is none yet.
        peer: The agent that was to do it, when known.
        code: A short code that requesters can test for.
        data: Any JSON value that helps the requester.
    """

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        peer: str | None = None,
        code: str | None = None,
        data: Any = None,
    ) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.peer = peer
        self.code = code
        self.data = data


class TaskFailed(TaskError):
    """The agent tried and failed. Raise it in a task handler to choose ``code`` and ``data``.

    Attributes:
        type: The class name of the handler's exception.
    """

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        peer: str | None = None,
        code: str | None = None,
        data: Any = None,
        type: str | None = None,
    ) -> None:
        super().__init__(message, task_id=task_id, peer=peer, code=code, data=data)
        self.type = type


class TaskRejected(TaskError):
    """The agent does not take the task. Raise it in a task handler to say so.

    Example:
        >>> raise TaskRejected("not my job")  # doctest: +SKIP
    """


class TaskCanceled(TaskError):
    """The task was canceled before it was completed."""


class TaskExpired(TaskError):
    """The task was not completed by its ``expires_at``."""


class TaskTimeout(TaskError, TimeoutError):
    """The result did not come in time. The task goes on: :meth:`Agent.resume` it with its ``task_id``."""


class TaskNotFound(TaskError, LookupError):
    """There is no such task in this agent's store."""


class PeerUnavailable(TaskError):
    """The agent has never been seen in the namespace, or is offline now."""


class StoreError(MQTTAgentError):
    """The task store cannot be read or written: damaged, made by a newer version, or the disk is full."""


if TYPE_CHECKING:  # for the type checkers of those who still use the old names
    CallCancelled = CallCanceled
    NotAuthorized = TopicNotAuthorized
    ToolCallError = CallError
    Unauthorized = CallerNotAuthorized
else:
    __getattr__ = renamed_names(
        __name__,
        {
            "CallCancelled": "CallCanceled",
            "NotAuthorized": "TopicNotAuthorized",
            "ToolCallError": "CallError",
            "Unauthorized": "CallerNotAuthorized",
        },
    )
