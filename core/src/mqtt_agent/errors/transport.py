"""The errors between this process and the broker."""

from __future__ import annotations

from mqtt_agent.errors.base import MQTTAgentError

__all__ = [
    "AuditFailed",
    "BrokerNotSupported",
    "BrokerUnreachable",
    "ConnectedBeforeFork",
    "ConnectionLost",
    "ConnectionRefused",
    "PoisonMessage",
    "PublishRefused",
    "SessionTakenOver",
    "SubscriptionRefused",
    "TokenNotIssued",
    "TopicNotAuthorized",
    "TransportError",
]


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
