"""A client's record of a call that is under way: its handles, the message, and the servers that may have the call."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import pydantic_core

from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.tracing import trace_context
from mqtt_agent.wire import Response, ServerCard
from mqtt_agent.wire.values import fingerprint

__all__ = ["PendingCall"]


class Cancelable(Protocol):
    """A timer, or a place in a queue."""

    def cancel(self) -> None: ...


class PendingCall:
    """A call that is under way.

    Attributes:
        handles: The handles of the callers that wait for the call. Each has its own timeout. Usually there is one.
        kinds: The kinds of topics to which the call was published: True stands for sender-bound ones, False for plain
            ones.
        unreadable: What was wrong with a response on a plain topic that cannot be read, if any.
        payload: The call as it is published.
        user_properties: The MQTT user properties of the call, which carry the trace context.
        deadline: Loop time at which no caller waits any more; None means never.
        repeatable: Whether the call may run twice.
        resend_until: Loop time until which the call is sent again when the broker has no subscriber for the call.
        expiry: Reports the call as expired at the servers, when a caller that has joined the call waits longer.
        resend: A timer or a queue that sends the call soon. While it is set, the client assumes that no server has the
            call.
        began: The loop time at which this process made the call.
        confirmed: The broker's confirmation of the call's latest sending.
        unconfirmed: Whether the connection was lost before the broker confirmed the call. Then the broker may or may
            not have the call.
        refusals: The refusals of replicas whose schema the arguments do not fit, each with the replica's server card.
        unreached: The replicas that were to get the call after such a refusal, and could not be reached.
        looks: How often the client has looked at the call since the latest sending; see :class:`FollowUp`.
        ask_at: The number of looks at which the servers are asked for the call.
        sent_again: Whether the call was sent more than once.
        lost_servers: The servers that may have had the call and are gone, each with the time at which its process
            started.
        restarted: The servers that may have had the call and of which a new process was seen, while the client asks
            the new process for the call.
    """

    __slots__ = (
        "ask_at",
        "began",
        "confirmed",
        "deadline",
        "expiry",
        "handles",
        "kinds",
        "looks",
        "lost_servers",
        "payload",
        "refusals",
        "repeatable",
        "resend",
        "resend_until",
        "restarted",
        "sent_again",
        "unconfirmed",
        "unreached",
        "unreadable",
        "user_properties",
    )

    def __init__(
        self,
        handle: CallHandle,
        payload: bytes,
        deadline: float | None,
        repeatable: bool,
        resend_until: float,
    ) -> None:
        self.handles: list[CallHandle] = [handle]
        self.began: float = asyncio.get_running_loop().time()
        self.kinds: set[bool] = set()
        self.unreadable: object = None
        self.payload: bytes = payload
        self.user_properties: tuple[tuple[str, str], ...] = trace_context()
        self.deadline: float | None = deadline
        self.repeatable: bool = repeatable
        self.resend_until: float = resend_until
        self.expiry: asyncio.TimerHandle | None = None
        self.resend: Cancelable | None = None
        self.looks: int = 0
        self.ask_at: int = 0
        self.confirmed: asyncio.Future[int] | None = None
        self.unconfirmed: bool = False
        self.sent_again: bool = False
        self.refusals: list[tuple[Response, ServerCard]] = []
        self.unreached: set[str] = set()
        self.lost_servers: dict[str, str | None] = {}
        self.restarted: list[str] = []

    @property
    def handle(self) -> CallHandle:
        """The first of the handles."""
        return self.handles[0]

    def is_same(self, tool: str, arguments: dict[str, Any]) -> bool:
        """Whether this is a call of the same tool with the same arguments. Their order does not matter."""
        sent: dict[str, Any] = pydantic_core.from_json(self.payload)
        return tool == self.handle.tool and fingerprint(arguments) == fingerprint(sent["arguments"])

    def fail(self, error: MQTTAgentError) -> None:
        """End the call with an error, for all its callers."""
        for handle in tuple(self.handles):
            handle.fail(error)

    def settle(self, response: Response) -> None:
        """End the call with its response, for all its callers.

        The response may come before the client has found out what became of a lost server's calls. It is the response
        of a new attempt when it comes from the server's new process, or from another server.
        """
        server, answers = self.handle.server, response.server
        moved = server in self.lost_servers and answers not in (None, server)
        if (moved or answers in self.restarted) and not self.handle.done:
            self.count_attempt()
        for handle in tuple(self.handles):
            handle.settle(response)

    def begin_again(self) -> None:
        """Forget what became of the call so far, because it is sent another time."""
        self.sent_again = True
        self.refusals.clear()
        self.unreached.clear()
        self.moved_to(None)

    def moved_to(self, server: str | None) -> None:
        """Note which server has the call; None when no server has it."""
        for handle in self.handles:
            handle.server = server

    @property
    def bound(self) -> bool:
        """Whether the call goes to sender-bound topics."""
        return self.handles[0].bound

    def go_over(self, bound: bool) -> None:
        """Choose the kind of topics for the next sending."""
        for handle in self.handles:
            handle.bound = bound

    def count_attempt(self) -> None:
        """Count one more attempt, because the server of the call was lost."""
        for handle in self.handles:
            handle.attempt += 1
