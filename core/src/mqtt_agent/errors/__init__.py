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

from typing import TYPE_CHECKING

from mqtt_agent.deprecation import renamed_names
from mqtt_agent.errors.base import (
    AgentIdTaken,
    InvalidIdentifier,
    MQTTAgentError,
    PayloadTooLarge,
    QueueFull,
    RosterError,
    StoreError,
    ToolNameTaken,
    WireError,
)
from mqtt_agent.errors.calls import (
    CallCanceled,
    CallerNotAuthorized,
    CallError,
    CallTimeout,
    ContentLost,
    InputNotGiven,
    InvalidArguments,
    ToolError,
    ToolFailed,
    ToolUnavailable,
)
from mqtt_agent.errors.tasks import (
    PeerUnavailable,
    TaskCanceled,
    TaskError,
    TaskExpired,
    TaskFailed,
    TaskNotFound,
    TaskRejected,
    TaskTimeout,
)
from mqtt_agent.errors.transport import (
    AuditFailed,
    BrokerNotSupported,
    BrokerUnreachable,
    ConnectedBeforeFork,
    ConnectionLost,
    ConnectionRefused,
    PoisonMessage,
    PublishRefused,
    SessionTakenOver,
    SubscriptionRefused,
    TokenNotIssued,
    TopicNotAuthorized,
    TransportError,
)

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

# Tracebacks, pickles and logs name an error by the path from which users import it.
for _name in __all__:
    globals()[_name].__module__ = __name__

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
