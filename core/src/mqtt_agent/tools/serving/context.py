"""The context of a call: a handler uses it to stream partial results, and to check whether the call is canceled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.transport import PacedSender, tell_when_denied
from mqtt_agent.wire import StreamMessage, encode, to_json
from mqtt_agent.wire.calls import LOG_LEVELS

__all__ = ["CallStream", "SyncToolContext", "ToolContext", "ToolResult"]

logger: logging.Logger = logging.getLogger(__name__)


@dataclass
class ToolResult:
    """What a handler returns when plain JSON is not enough.

    Attributes:
        result: Any JSON value, for programs.
        content: MCP content blocks, for a model to read: texts, images, files.
        structured: Whether ``result`` is a value of its own. False when ``result`` is only the text of ``content``.
        meta: Any other JSON data for the caller.
    """

    result: Any
    content: list[dict[str, Any]] | None = None
    structured: bool = True
    meta: dict[str, Any] | None = None


class CallStream:
    """The server's end of the stream of one call's partial results.

    Args:
        call_id: The id of the call.
        send: Publishes a payload on the stream's topic, and returns the future of the broker's confirmation. None when
            the caller does not listen.
        tool: The tool's name, for warnings.
        topic: The topic of the stream, for warnings.

    Attributes:
        seq: The number of the latest stream message; 0 before the first one.
        closed: Whether no further message is sent.
    """

    def __init__(
        self, call_id: str, send: Callable[[bytes], asyncio.Future[int]] | None, tool: str = "", topic: str = ""
    ) -> None:
        self.seq: int = 0
        self.closed: bool = send is None
        self._call_id = call_id
        self._tool = tool
        kind = f"the partial results of tool {tool!r:.80}"
        watch = partial(tell_when_denied, topic=topic, kind=kind)
        self._sender = PacedSender(send, watch) if send is not None else None

    async def publish(self, kind: str, **fields: Any) -> None:
        """Send a stream message. This waits while more than 32 messages are unconfirmed by the broker.

        Args:
            kind: The ``type`` of the :class:`StreamMessage`.
            fields: Further fields of the :class:`StreamMessage`.

        Raises:
            WireError: JSON cannot carry a field.
            PayloadTooLarge, TransportError, QueueFull: The message cannot be sent.
        """
        if self.closed or self._sender is None:
            return
        message = StreamMessage(call_id=self._call_id, seq=self.seq + 1, type=kind, **fields)
        payload = encode(message, self._tool)
        self.seq += 1  # only now: callers wait for every number, so an unsent message must not use a number
        try:
            await self._sender.send(payload)
        except MQTTAgentError:
            self.seq -= 1
            raise

    async def close(self, *, done: bool = True) -> None:
        """Send no further messages. When the end cannot be told, this is logged, and the response follows anyway.

        Args:
            done: Whether to tell the caller that the stream has ended. Without earlier messages, nothing is sent.
        """
        try:
            if done and self.seq:
                await self.publish("done")
        except MQTTAgentError as error:
            logger.debug("the end of the stream of call %.80s could not be sent: %s", self._call_id, error)
        self.closed = True


class ToolContext:
    """The call that a handler is working on. A parameter annotated with this class gets the context.

    Example:
        >>> @server.tool  # doctest: +SKIP
        ... async def crawl(url: str, ctx: ToolContext) -> dict:
        ...     await ctx.progress(1, total=10, message="fetching")

    Attributes:
        call_id: The id of the call.
        tool: The tool's name.
        client: The id of the caller. The caller chooses it, and only a broker that checks who writes to sender-bound
            topics can prove it; see ``bound``.
        server: The id of the replica that runs the call.
        meta: Other information from the caller, which is no proof of anything. Empty when there is none.
        log_level: The least level of the log messages that the caller wants; None when the caller wants none.
        bound: Whether the call arrived on a sender-bound topic, whose name says that ``client`` sent it.
        verified: The id of the caller if a signature proves it, which is then ``client``; None if nothing proves it.
        canceled: Whether the call was canceled, so that nobody waits for the result any more. An ``async`` handler also
            gets ``CancelledError``. A plain ``def`` handler should check this attribute regularly.
    """

    def __init__(
        self,
        *,
        call_id: str,
        tool: str,
        client: str,
        server: str,
        stream: CallStream,
        meta: dict[str, Any] | None = None,
        log_level: str | None = None,
        bound: bool = False,
        verified: str | None = None,
    ) -> None:
        self.call_id: str = call_id
        self.tool: str = tool
        self.client: str = client
        self.server: str = server
        self.meta: dict[str, Any] = meta or {}
        self.log_level: str | None = log_level
        self.bound: bool = bound
        self.verified: str | None = verified
        self.canceled: bool = False
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()

    @property
    def cancelled(self) -> bool:
        """The old name of ``canceled``."""
        warn_renamed("ToolContext.cancelled", "ToolContext.canceled")
        return self.canceled

    @property
    def elapsed(self) -> float:
        """Seconds since the handler was called."""
        return time.monotonic() - self._started

    async def stream(self, value: Any) -> None:
        """Send a partial result to the caller: a string as text, any other JSON value as data.

        This waits while too many earlier partial results are not confirmed by the broker. Nothing is sent when the
        caller does not listen, or after the call has ended.

        Raises:
            WireError: The value has no JSON form, is nested too deeply, or has NaN or infinity in it.
            PayloadTooLarge: The value is larger than the broker takes.
        """
        if isinstance(value, str):
            await self._stream.publish("partial", content=value)
        else:
            await self._stream.publish("partial", data=to_json(value, "data", self.tool))

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Tell the caller how far the work is.

        Args:
            progress: How much is done, in any unit. The number should grow with each call.
            total: How much there is to do, in the same unit, if known.
            message: What is being done now.
        """
        data = {"progress": progress, "total": total, "message": message}
        await self.stream({key: value for key, value in data.items() if value is not None})

    async def log(self, level: str, data: Any, logger: str | None = None) -> None:
        """Send a log message to the caller, if the caller wants messages of this level.

        Args:
            level: One of MCP's levels: ``debug``, ``info``, ``notice``, ``warning``, ``error``, ``critical``, ``alert``
                or ``emergency``.
            data: The message: a text, or any other JSON value.
            logger: The name of the logger.

        Raises:
            ValueError: There is no such level.
            WireError: The data has no JSON form.
        """
        if level not in LOG_LEVELS:
            raise ValueError(f"the level of a log message is one of {', '.join(LOG_LEVELS)}, not {level!r}")
        wanted = LOG_LEVELS.index(self.log_level) if self.log_level in LOG_LEVELS else len(LOG_LEVELS)
        if LOG_LEVELS.index(level) >= wanted:
            await self._stream.publish("log", level=level, logger=logger, data=to_json(data, "data", self.tool))

    def in_thread(self) -> SyncToolContext:
        """The same context for a handler that runs in a thread: its methods block instead of being awaited."""
        return SyncToolContext(self, self._loop)


class SyncToolContext:
    """A :class:`ToolContext` for plain ``def`` handlers: its methods block instead of being awaited.

    Attributes:
        call_id: The id of the call.
        tool: The tool's name.
        client: The id of the caller; see :class:`ToolContext`.
        server: The id of the replica that runs the call.
        meta: Other information from the caller, which is no proof of anything. Empty when there is none.
        log_level: The least level of the log messages that the caller wants; None when the caller wants none.
        bound: Whether the call arrived on a sender-bound topic, whose name says that ``client`` sent it.
        verified: The id of the caller if a signature proves it, which is then ``client``; None if nothing proves it.
    """

    def __init__(self, context: ToolContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self.call_id: str = context.call_id
        self.tool: str = context.tool
        self.client: str = context.client
        self.server: str = context.server
        self.meta: dict[str, Any] = context.meta
        self.log_level: str | None = context.log_level
        self.bound: bool = context.bound
        self.verified: str | None = context.verified

    @property
    def canceled(self) -> bool:
        """Whether the call was canceled. Then nobody waits for the result: stop the work and return."""
        return self._context.canceled

    @property
    def cancelled(self) -> bool:
        """The old name of ``canceled``."""
        warn_renamed("ToolContext.cancelled", "ToolContext.canceled")
        return self.canceled

    @property
    def elapsed(self) -> float:
        """Seconds since the handler was called."""
        return self._context.elapsed

    def stream(self, value: Any) -> None:
        """See :meth:`ToolContext.stream`."""
        self._wait(self._context.stream(value))

    def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """See :meth:`ToolContext.progress`."""
        self._wait(self._context.progress(progress, total, message))

    def log(self, level: str, data: Any, logger: str | None = None) -> None:
        """See :meth:`ToolContext.log`."""
        self._wait(self._context.log(level, data, logger))

    def _wait(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
