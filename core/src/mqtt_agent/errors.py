"""Every error that MQTT.Agent raises.

The errors form one tree, so ``except MQTTAgentError`` catches all of them::

    MQTTAgentError
    ├── InvalidIdentifier (ValueError)     a name that cannot be one level of an MQTT topic
    ├── WireError (ValueError)             bytes that are not a valid message, or a value that cannot be sent
    ├── TransportError (ConnectionError)   a problem between this process and the broker
    │   ├── BrokerUnreachable              no MQTT broker answers at the URL
    │   ├── ConnectionRefused              the broker refused the connection: credentials, client id, protocol
    │   ├── ConnectionLost                 the connection ended before the broker confirmed an operation
    │   ├── SessionTakenOver               another process connected with the same client id
    │   ├── ConnectedBeforeFork            the endpoint belongs to the process that called ``os.fork()``
    │   ├── TopicNotAuthorized             the broker forbids this client a topic
    │   ├── PublishRefused                 the broker refused one message for a reason other than authorization
    │   │   └── PoisonMessage              the broker closes the connection each time that it gets this message
    │   ├── SubscriptionRefused            the broker refused a subscription for such a reason
    │   ├── BrokerNotSupported             the broker lacks something that every endpoint needs
    │   ├── TokenNotIssued                 the token service gives no token
    │   └── AuditFailed                    the audit that an endpoint requires cannot be written
    ├── PayloadTooLarge (ValueError)       a message larger than the broker takes
    ├── AgentIdTaken                       an agent of this id runs already, and is no member of this pool
    ├── QueueFull                          too many messages or calls wait already
    ├── ToolNameTaken                      a server of another name offers a tool of this name already
    ├── CallError                          a tool call ended without a result
    │   ├── InvalidArguments               the arguments do not fit the tool's schema
    │   ├── CallerNotAuthorized            the tool server refuses this caller
    │   ├── ToolFailed                     the tool ran and failed
    │   ├── CallTimeout (TimeoutError)     no answer in time
    │   ├── CallCanceled                   the caller canceled the call
    │   ├── ToolUnavailable                no server offers the tool, or the server of a call is gone
    │   └── ContentLost                    the server does not keep a content any more, or it has changed
    ├── ToolError                          raised *by* a tool handler, to choose the error code
    │   └── InputNotGiven                  the caller has not answered what the handler asked
    ├── TaskError                          a task has no result
    │   ├── TaskFailed                     the agent tried and failed; also raised *by* task handlers
    │   ├── TaskRejected                   the agent does not take the task; also raised *by* task handlers
    │   ├── TaskCanceled                   canceled before the task was completed
    │   ├── TaskExpired                    not completed by its ``expires_at``
    │   ├── TaskTimeout (TimeoutError)     the requester stopped waiting; the task goes on
    │   ├── TaskNotFound (LookupError)     the store has no such task
    │   └── PeerUnavailable                the agent does not exist, or is offline
    ├── StoreError                         the task store cannot be read or written
    └── RosterError (ValueError)           a roster, or what is made from it, is wrong

Errors of other libraries (paho-mqtt, ssl, socket, pydantic, jsonschema-rs) are translated where MQTT.Agent calls the
library. The original error is the ``__cause__``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from mqtt_agent.deprecation import renamed_names

__all__ = [
    "AgentIdTaken",
    "AuditFailed",
    "BrokerNotSupported",
    "BrokerUnreachable",
    "CallCanceled",
    "CallError",
    "CallTimeout",
    "CallerNotAuthorized",
    "ConnectedBeforeFork",
    "ConnectionLost",
    "ConnectionRefused",
    "ContentLost",
    "InputNotGiven",
    "InvalidArguments",
    "InvalidIdentifier",
    "MQTTAgentError",
    "PayloadTooLarge",
    "PeerUnavailable",
    "PoisonMessage",
    "PublishRefused",
    "QueueFull",
    "RosterError",
    "SessionTakenOver",
    "StoreError",
    "SubscriptionRefused",
    "TaskCanceled",
    "TaskError",
    "TaskExpired",
    "TaskFailed",
    "TaskNotFound",
    "TaskRejected",
    "TaskTimeout",
    "TokenNotIssued",
    "ToolError",
    "ToolFailed",
    "ToolNameTaken",
    "ToolUnavailable",
    "TopicNotAuthorized",
    "TransportError",
    "WireError",
]


class MQTTAgentError(Exception):
    """The base class of every error that MQTT.Agent raises."""

    _hooks_set: ClassVar[bool] = False

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        if not MQTTAgentError._hooks_set:
            MQTTAgentError._hooks_set = True
            # At a terminal, an error that nobody catches is shown in a few lines; see mqtt_agent.display.uncaught.
            from mqtt_agent.display import set_hooks

            set_hooks(MQTTAgentError)

    def _render_traceback_(self) -> list[str]:
        # IPython calls this. The frames inside MQTT.Agent do not help the user. A hint about the next step helps.
        from mqtt_agent.display import short_traceback

        return short_traceback(self)


class InvalidIdentifier(MQTTAgentError, ValueError):
    """A name of a tool, server, agent, client or task that cannot be one level of an MQTT topic.

    It is raised where the name is given: by a constructor, or by a method that takes a name, before anything is sent.
    Choose a name without ``/``, ``+``, ``#`` and control characters, of at most 255 bytes, that does not begin with
    ``$``.
    """


class WireError(MQTTAgentError, ValueError):
    """Bytes that are not a valid message of this protocol, or a value that JSON or MQTT cannot carry.

    ``decode`` and ``encode`` of ``mqtt_agent.wire`` raise it. Every method that sends the user's values raises it too,
    for example for the arguments of a call or the data of a task, before anything is sent. The message names the place,
    such as ``arguments.rows[3].price``. Pass plain JSON values, dataclasses or pydantic models, without NaN and
    infinity. A topic or an MQTT property that no packet can hold raises this error at once. An unreadable message
    from a peer is logged, and raises no error.
    """


class TransportError(MQTTAgentError, ConnectionError):
    """Something went wrong between this process and the broker.

    It is the base class of the errors of a connection, and a :class:`ConnectionError`, so that general retry policies
    recognize it. The subclasses say what to do. For an error of this class itself, look at the broker's log.
    """


class BrokerUnreachable(TransportError):
    """No MQTT broker answers at the URL.

    ``start()`` raises it, and so does everything that starts an endpoint. The message says why. Check the URL: the
    host, the port, and whether the port is for ``mqtt://``, ``mqtts://``, ``ws://`` or ``wss://``. For first steps, use
    :class:`EmbeddedBroker`. After the first connect this error is not raised, because the connection tries again.
    """


class ConnectionRefused(TransportError):
    """The broker answered and refused the connection.

    ``start()`` raises it, and so does everything that starts an endpoint. Check the credentials, and what the broker
    allows this user. After the first connect, the connection tries again. When the broker has refused the login for
    5 s, calls and tasks that wait raise this error. The connection still goes on trying.

    Attributes:
        reason_code: The MQTT 5 reason code of the CONNACK, for example 0x86 for a bad user name or password.
    """

    def __init__(self, message: str, *, reason_code: int) -> None:
        super().__init__(message)
        self.reason_code: int = reason_code


class ConnectionLost(TransportError):
    """The connection ended, or was stopped, before the broker confirmed an operation.

    Publishing and subscribing raise it, and so does waiting for a call or task when the endpoint is stopped. It is also
    raised when an endpoint is used that has not been started. Start the endpoint again. Stored work is not lost:
    continue with ``agent.resume(task_id)`` or ``client.submit(..., call_id=...)``.

    Attributes:
        reason_code: The MQTT 5 reason code of the broker's DISCONNECT, or None when the broker sent no DISCONNECT.
    """

    def __init__(self, message: str, *, reason_code: int | None = None) -> None:
        super().__init__(message)
        self.reason_code: int | None = reason_code


class SessionTakenOver(TransportError):
    """Another process connected with the same client id, so this process stopped.

    ``serve_forever()`` raises it, and so does every later use of the connection. The connection does not reconnect,
    because the two processes would disconnect each other forever. Give each process an agent id or client id of its
    own. Some brokers do not say that another process has connected, and only close the connection. There, the error is
    raised after about ten such closings, within two minutes.
    """


class ConnectedBeforeFork(TransportError):
    """The endpoint was connected before ``os.fork()``, so it belongs to the parent process.

    Every use of such an endpoint in the child process raises this error at once. The parent process continues to use
    the endpoint. Make another endpoint in the child process. Or do not let the endpoint connect before the fork, or
    stop it before the fork: then it can connect in each child, under a client id of its own. "Servers that fork" in
    ``docs/production.md`` has examples.
    """


class TopicNotAuthorized(TransportError):
    """The broker does not let this client publish to a topic, or subscribe to a topic filter.

    Publishing and subscribing raise it, and so does starting an endpoint whose topics are forbidden. Allow the topic in
    the access rules of the broker: "What the broker must allow" in ``docs/wire-format.md`` lists the topics. After the
    first connect, the connection tries again. When the broker has refused a topic filter at each reconnect for 5 s,
    calls and tasks that wait raise this error. The connection still goes on trying.

    Attributes:
        topic: The topic or topic filter that was refused.
    """

    def __init__(self, message: str, *, topic: str) -> None:
        super().__init__(message)
        self.topic: str = topic


class PublishRefused(TransportError):
    """The broker refused one message for a reason other than authorization.

    Publishing raises it. The broker's log says why, for example that a quota is used up.

    Attributes:
        topic: The topic of the message.
        reason_code: The MQTT 5 reason code of the PUBACK.
    """

    def __init__(self, message: str, *, topic: str, reason_code: int) -> None:
        super().__init__(message)
        self.topic: str = topic
        self.reason_code: int = reason_code


class PoisonMessage(PublishRefused):
    """The broker closes the connection each time that it gets this message, so the message was given up.

    Publishing raises it when three connections in a row were lost while this message alone was unconfirmed. For ten
    minutes, the same message is then refused at once, so that the other messages of the connection go on. The broker's
    log may name the limit, for example the number of user properties. ``reason_code`` is that of the broker's last
    DISCONNECT, or 0x80.
    """


class SubscriptionRefused(TransportError):
    """The broker refused a subscription for a reason other than authorization.

    Subscribing raises it, and so does starting an endpoint. The message names the reason and says what to do, for
    example to raise the broker's quota of subscriptions. A broker that is only busy is asked again before.

    Attributes:
        topic: The topic filter that was refused.
        reason_code: The MQTT 5 reason code of the SUBACK.
    """

    def __init__(self, message: str, *, topic: str, reason_code: int) -> None:
        super().__init__(message)
        self.topic: str = topic
        self.reason_code: int = reason_code


class BrokerNotSupported(TransportError):
    """The broker lacks something without which no endpoint works: QoS 1, retained messages, or subscriptions.

    ``start()`` raises it, and so does everything that starts an endpoint. The message says what is missing. Allow it at
    the broker, or use another broker: ``docs/brokers.md`` lists brokers that work.
    """


class TokenNotIssued(TransportError):
    """The token service of a :class:`~mqtt_agent.TokenService` gives no token.

    ``start()`` raises it, and so does everything that starts an endpoint. The message says which request failed and
    why. Correct the settings of the ``TokenService`` when ``refused`` is true. Otherwise try again later. After the
    first connect, the connection tries again. When the service has refused for 5 s, calls and tasks that wait raise
    this error. The connection still goes on trying.

    Attributes:
        status: The HTTP status of the answer; None when there was no answer.
        retry_after: How many seconds the service asks to wait; None when the service does not say this.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status: int | None = status
        self.retry_after: float | None = retry_after

    @property
    def refused(self) -> bool:
        """Whether the service refuses these settings, so that the same request fails again."""
        return self.status in (400, 401, 403, 404, 410, 422)


class AuditFailed(TransportError):
    """The audit that an endpoint requires cannot be written, so the endpoint has ended its connection.

    Everything that uses the connection raises it, and so does ``run()``. The message says why. Correct the reason, for
    example a full disk, and start the endpoint again. It occurs only with ``Audit(..., required=True)``.
    """


class PayloadTooLarge(MQTTAgentError, ValueError):
    """The message is larger than the broker's Maximum Packet Size. It was not sent.

    Every method that sends a message raises it. Send less, or store the data elsewhere and send a reference to it, or
    raise both the limit of the broker and ``max_packet_size`` of the connections.
    """


class QueueFull(MQTTAgentError):
    """Too many messages or calls wait already. Nothing was sent.

    Publishing raises it when ``max_queued`` messages wait for the broker. A call raises it when ``max_pending`` calls
    wait for their answers. Wait for some of them before sending more, or raise the limit.
    """


class AgentIdTaken(MQTTAgentError):
    """An agent with this id runs already, and the two cannot share the id, so this agent was not started.

    ``agent.start()`` raises it when a pool of processes has the id and this agent has no ``pool=True``, or when a
    single process has the id and this agent has ``pool=True``. The other agent lives, because it has answered: stop it
    first, or choose another agent id.
    """


class ToolNameTaken(MQTTAgentError):
    """A server of another name offers a tool of this name already. A tool name belongs to one server name.

    ``server.start()`` raises it, and then the server is not started. ``await server.add_tool()`` raises it, and then
    the tool is not offered. Give the server a prefix for the names of its tools, with ``prefix=True`` or
    ``prefix="gh."``, or give the tool another name. Or wait until the other server is gone, with
    ``on_conflict="standby"``.

    Attributes:
        tool: The name of the tool.
        server: The name of the server that wants to offer the tool.
        owner: The name of the server that has the name.
    """

    def __init__(self, message: str, *, tool: str = "", server: str = "", owner: str = "") -> None:
        super().__init__(message)
        self.tool: str = tool
        self.server: str = server
        self.owner: str = owner


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


class TaskError(MQTTAgentError):
    """A task has no result.

    It is the base class of the errors that ``agent.request()`` and ``handle.result()`` raise. The class itself is
    raised when an operation does not fit the state of the task, for example when input is sent to a task that is over.

    Attributes:
        task_id: The id of the task; None when there is no task yet.
        peer: The agent that the task was given to, if known.
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
        self.task_id: str | None = task_id
        self.peer: str | None = peer
        self.code: str | None = code
        self.data: Any = data


class TaskFailed(TaskError):
    """The agent tried to do the task and failed.

    ``agent.request()`` and ``handle.result()`` raise it after the task handler has raised an exception. The log of the
    executing agent names the line that failed. Raise it in a task handler to choose ``code`` and ``data``.

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
        self.type: str | None = type


class TaskRejected(TaskError):
    """The agent does not take the task.

    ``agent.request()`` and ``handle.result()`` raise it. ``agent.delegate()`` raises it when another task has this
    task id already. Give the task to another agent. Raise it in a task handler to reject a task.

    Example:
        >>> raise TaskRejected("not my job")  # doctest: +SKIP
    """


class TaskCanceled(TaskError):
    """The task was canceled before it was completed.

    ``agent.request()`` and ``handle.result()`` raise it. Delegate the work again, with another task id, if the result
    is still wanted. In a task handler, the methods of the task context raise it when the attempt is over.
    """


class TaskExpired(TaskError):
    """The task was not completed by its ``expires_at``.

    ``agent.request()`` and ``handle.result()`` raise it. Delegate the work again with a later ``expires_at``.
    """


class TaskTimeout(TaskError, TimeoutError):
    """The result did not arrive within the ``timeout``. The task goes on.

    ``agent.request()`` and ``handle.result()`` raise it. ``await agent.resume(error.task_id)`` returns a handle on the
    task, now or after a restart.
    """


class TaskNotFound(TaskError, LookupError):
    """The agent's store has no task with this id.

    ``agent.resume()`` raises it. ``await agent.delegations()`` lists the tasks in the store. Or name the agent that has
    the task: ``agent.resume(task_id, peer=...)``.
    """


class PeerUnavailable(TaskError):
    """The agent has never been seen in the namespace, or is offline now. The task was not sent.

    ``agent.delegate()`` raises it for an agent that was never seen. ``agent.request()`` raises it also for an agent
    that is offline. ``await agent.peers()`` lists the agents that are online. ``wait_online=True`` sends the task in
    either case.
    """


class StoreError(MQTTAgentError):
    """The task store cannot be read or written.

    Every method of an agent that stores something raises it, for example when the file is damaged or was made by a
    newer version, or when the disk is full. The message says what to do. A damaged file is never overwritten.

    Args:
        permanent: See the attribute.

    Attributes:
        permanent: Whether the same call can never succeed, because the value cannot be stored or the stored task is
            damaged. False for troubles that may pass, such as a full disk or a lock: then an agent tries again.
    """

    def __init__(self, *args: object, permanent: bool = False) -> None:
        super().__init__(*args)
        self.permanent: bool = permanent


class RosterError(MQTTAgentError, ValueError):
    """A roster cannot be read, or a broker's configuration or a token cannot be made from it.

    ``mqtt_agent.identity`` raises it. The message names the file, the line when it is known, what is wrong, and what to
    write instead.
    """


if TYPE_CHECKING:  # type checkers know the old names too, for code that still uses them
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
