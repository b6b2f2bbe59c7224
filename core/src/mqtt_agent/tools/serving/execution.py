"""A server's record of one call, from the call's arrival to its response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from mqtt_agent.tools.serving.context import ToolContext
from mqtt_agent.tools.serving.function import ToolFunction
from mqtt_agent.tools.serving.replay import CallKey, Request
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Call, CallFault
from mqtt_agent.wire.messages import decode
from mqtt_agent.wire.values import DIGEST_SIZE, fingerprint

__all__ = ["Execution", "ServedTool", "content_of", "same_request"]

_SMALL = 1024
"""The longest message, in bytes, that is kept without a digest. Few calls are repeated, and a digest takes time."""
_MOST_MESSAGES = 8
"""How many messages of one call are kept. Each may be as large as a call may be."""


@dataclass(frozen=True)
class ServedTool:
    """The parts of a tool that are needed to run its calls.

    Attributes:
        function: The handler and its schemas.
        timeout: Seconds that the handler may run; None means no limit.
        stream_topic: Makes the topic of a call's partial results from the call id.
        allowed_callers: The callers whose calls on sender-bound topics are run; None means all.
        repeatable: Whether a call may run twice.
    """

    function: ToolFunction
    timeout: float | None
    stream_topic: Callable[[str], str]
    allowed_callers: frozenset[str] | None = None
    repeatable: bool = False


@dataclass(eq=False)
class Execution:
    """One call at its server.

    Attributes:
        tool: The tool that is called.
        call: The call.
        reply_to: The caller's topic for responses, already validated.
        bound: Whether the call arrived on a sender-bound topic.
        messages: The call's message and its latest repeats. They are acknowledged after the response was published.
        expires: ``time.monotonic()`` after which the caller does not wait for the result any more; None means never.
        context: The context that the handler got. None before the handler is called, and after the handler has ended.
        task: The asyncio task that runs the call; None while the call waits for its turn.
        thread: The future of a plain ``def`` handler, which runs in a thread; None before the handler is called. It is
            not done while the thread runs, even when the call is over.
        expiry: Drops the call at ``expires``, while the call waits for its turn.
        fits: Whether the arguments fit the tool's schema. Without that, the handler is not called.
        asked: How many requests for input the handler has made.
        stopped_for: The error that answers a call that was stopped: by its caller, by the tool's timeout, or because
            the server stops. None while nobody has stopped the call.
        in_query: Whether the call arrived in a query, so that its message is no call.
        held: How many bytes of the room for waiting calls the call uses while it waits; 0 when it does not wait.
        repeats: How many bytes of that room the repeats of the call use.
    """

    tool: ServedTool
    call: Call
    reply_to: str
    bound: bool
    messages: list[InboundMessage]
    expires: float | None
    context: ToolContext | None = None
    task: asyncio.Task[None] | None = None
    thread: Future[Any] | None = None
    expiry: asyncio.TimerHandle | None = None
    fits: bool = False
    asked: int = 0
    stopped_for: CallFault | None = None
    in_query: bool = False
    held: int = 0
    repeats: int = 0

    @property
    def key(self) -> CallKey:
        """The name of the call at this server."""
        return self.call.client, self.call.call_id, self.bound

    @property
    def proven(self) -> bool:
        """Whether the topic or the signature of the call's message proves its caller."""
        return self.bound or self.messages[0].proves(self.call.client)

    @property
    def content(self) -> bytes:
        """A digest of the tool and the arguments: what the call asks for."""
        return content_of(self.tool, self.call)

    @property
    def request(self) -> Request:
        """The call, to compare a repeat with it after the call is over."""
        payload = self.messages[0].payload
        return self.tool_name, payload if len(payload) <= _SMALL and not self.in_query else self.content

    @property
    def tool_name(self) -> str:
        """The name of the tool that is called."""
        return self.tool.function.name

    @property
    def user_properties(self) -> tuple[tuple[str, str], ...]:
        """The MQTT user properties of the call's message."""
        return self.messages[0].user_properties

    def join(self, message: InboundMessage) -> InboundMessage | None:
        """Take a repeat of the call. A caller may send any number of them, so few are kept.

        Args:
            message: The repeat.

        Returns:
            An older repeat that is not kept any more; None when all are kept.
        """
        self.messages.append(message)
        return self.messages.pop(1) if len(self.messages) > _MOST_MESSAGES else None

    def stop(self, answer: CallFault) -> None:
        """Cancel the handler if it runs. If the call still waits for its turn, the handler is not called.

        Args:
            answer: The error that answers the call.
        """
        self.stopped_for = answer
        if self.context is not None and self.task is not None:
            self.context.give_up()
            self.task.cancel()


def same_request(request: Request, tool: ServedTool, call: Call) -> bool:
    """Whether a call asks for the same as an earlier call, of which :attr:`Execution.request` was kept."""
    name, kept = request
    if len(kept) == DIGEST_SIZE:
        return kept == content_of(tool, call)
    return name == tool.function.name and fingerprint(decode(Call, kept).arguments) == fingerprint(call.arguments)


def content_of(tool: ServedTool, call: Call) -> bytes:
    """A digest of a call's tool and arguments. Two calls with the same id and other content are not the same call."""
    return fingerprint([tool.function.name, call.arguments])
