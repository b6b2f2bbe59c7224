"""What a tool handler may ask for, and tell, while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.transport import PacedSender
from mqtt_agent.wire import StreamMessage, encode, to_json

__all__ = ["CallStream", "SyncToolContext", "ToolContext", "ToolResult"]


@dataclass
class ToolResult:
    """What a handler returns when plain JSON does not tell it all.

    Attributes:
        result: Any JSON value, for programs.
        content: MCP content blocks, for a model to read: texts, images, files.
    """

    result: Any
    content: list[dict[str, Any]] | None = None


class CallStream:
    """The stream topic of one call, from the server's side.

    Args:
        call_id: Which call.
        send: Publishes a payload there, and returns the future of the broker's confirmation; None when the caller does
            not listen.
    """

    def __init__(self, call_id: str, send: Callable[[bytes], asyncio.Future[int]] | None) -> None:
        self.seq: int = 0
        self.closed: bool = send is None
        self._call_id = call_id
        self._sender = PacedSender(send) if send is not None else None

    async def publish(self, kind: str, **fields: Any) -> None:
        """Send one stream message; wait while more than 32 are unconfirmed."""
        if self.closed or self._sender is None:
            return
        self.seq += 1
        await self._sender.send(encode(StreamMessage(call_id=self._call_id, seq=self.seq, type=kind, **fields)))

    async def close(self, *, done: bool = True) -> None:
        """No more messages; tell the caller so, if it got any."""
        if done and self.seq:
            await self.publish("done")
        self.closed = True


class ToolContext:
    """The call that a handler is working on. Annotate a parameter with this class to get it.

    Example:
        >>> @server.tool  # doctest: +SKIP
        ... async def crawl(url: str, ctx: ToolContext) -> dict:
        ...     await ctx.progress(1, total=10, message="fetching")

    Attributes:
        call_id: The caller's id for this call.
        tool: The tool's name.
        client: The caller's name, as it says itself: never a proof of identity.
        server: The id of the replica that runs the call.
        canceled: Whether nobody waits for the result any more. An async handler also gets ``CancelledError``; a sync
            one should look here now and then.
    """

    def __init__(self, *, call_id: str, tool: str, client: str, server: str, stream: CallStream) -> None:
        self.call_id = call_id
        self.tool = tool
        self.client = client
        self.server = server
        self.canceled = False
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
        """Send something to the caller before the result: a string as text, any other JSON value as data.

        It waits while the broker is slow to take what was sent before. Nothing is sent when the caller does not
        listen, or after the call has ended.

        Raises:
            WireError: The value has no JSON form.
        """
        if isinstance(value, str):
            await self._stream.publish("partial", content=value)
        else:
            await self._stream.publish("partial", data=to_json(value))

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Tell how far the work is.

        Args:
            progress: How much is done; it should grow.
            total: How much there is, if known.
            message: What is being done now.
        """
        data = {"progress": progress, "total": total, "message": message}
        await self.stream({key: value for key, value in data.items() if value is not None})

    def in_thread(self) -> SyncToolContext:
        """The same for a handler that runs in a thread: methods that block instead of being awaited."""
        return SyncToolContext(self, self._loop)


class SyncToolContext:
    """A :class:`ToolContext` for handlers that are plain functions: its methods block instead of being awaited."""

    def __init__(self, context: ToolContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self.call_id: str = context.call_id
        self.tool: str = context.tool
        self.client: str = context.client
        self.server: str = context.server

    @property
    def canceled(self) -> bool:
        """Whether nobody waits for the result any more: stop the work and return."""
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

    def _wait(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
