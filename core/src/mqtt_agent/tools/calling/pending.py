"""A client's record of a call that is under way: the message, the deadline, and the servers that may have the call."""

from __future__ import annotations

import asyncio

from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.tracing import trace_context

__all__ = ["PendingCall"]


class PendingCall:
    """A call that is under way.

    Attributes:
        handle: The caller's handle on the call.
        topic: The topic to which the call is published.
        payload: The call as it is published.
        user_properties: The MQTT user properties of the call, which carry the trace context.
        timeout: The timeout that the caller has set, in seconds; None means no limit.
        deadline: Loop time at which the timeout is over; None means never.
        repeatable: Whether the call may run twice.
        resend_until: Loop time until which the call is sent again when the broker has no subscriber for the call.
        timer: Fails the call at its deadline.
        resend: Sends the call again soon. While this timer is set, the client assumes that no server has the call.
        confirmed: The broker's confirmation of the call's latest sending.
        unconfirmed: Whether the connection was lost before the broker confirmed the call. Then the broker may or may
            not have the call.
        lost_servers: The servers that may have had the call and are gone, each with the time at which its process
            started.
    """

    __slots__ = (
        "confirmed",
        "deadline",
        "handle",
        "lost_servers",
        "payload",
        "repeatable",
        "resend",
        "resend_until",
        "timeout",
        "timer",
        "topic",
        "unconfirmed",
        "user_properties",
    )

    def __init__(
        self,
        handle: CallHandle,
        topic: str,
        payload: bytes,
        timeout: float | None,
        deadline: float | None,
        repeatable: bool,
        resend_until: float,
    ) -> None:
        self.handle: CallHandle = handle
        self.topic: str = topic
        self.payload: bytes = payload
        self.user_properties: tuple[tuple[str, str], ...] = trace_context()
        self.timeout: float | None = timeout
        self.deadline: float | None = deadline
        self.repeatable: bool = repeatable
        self.resend_until: float = resend_until
        self.timer: asyncio.TimerHandle | None = None
        self.resend: asyncio.TimerHandle | None = None
        self.confirmed: asyncio.Future[int] | None = None
        self.unconfirmed: bool = False
        self.lost_servers: dict[str, str | None] = {}
