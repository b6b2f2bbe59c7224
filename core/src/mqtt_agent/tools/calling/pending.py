"""A call that is under way, as its client keeps it."""

from __future__ import annotations

import asyncio

from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.tracing import UserProperties, trace_context

__all__ = ["PendingCall"]


class PendingCall:
    """What the client keeps of a call that is under way."""

    __slots__ = (
        *("confirmed", "deadline", "handle", "lost_to", "patient_until", "payload"),
        *("resend", "retry", "timeout", "timer", "topic", "unconfirmed", "user_properties"),
    )

    def __init__(
        self,
        handle: CallHandle,
        topic: str,
        payload: bytes,
        timeout: float | None,
        deadline: float | None,
        retry: bool,
        patient_until: float,
    ) -> None:
        self.handle = handle
        self.patient_until = patient_until
        self.timeout = timeout
        self.topic = topic
        self.payload = payload
        self.user_properties: UserProperties = trace_context()
        self.deadline = deadline
        self.retry = retry
        self.timer: asyncio.TimerHandle | None = None
        self.resend: asyncio.TimerHandle | None = None
        self.confirmed: asyncio.Future[int] | None = None
        self.lost_to: dict[str, str | None] = {}  # servers that may have had it and are gone, and when they started
        self.unconfirmed = False  # the broker may or may not have it
