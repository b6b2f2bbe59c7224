"""The context of a call: a handler uses it to stream partial results, and to check whether the call is canceled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mqtt_agent.aio.waiting import within
from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.errors import InputNotGiven, MQTTAgentError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.questions import ELICITATION, Elicited, as_object, elicitation, read_answer
from mqtt_agent.tools.serving.content_files import Owner, Source
from mqtt_agent.tools.serving.contents import Contents
from mqtt_agent.tools.serving.results import SharedContent
from mqtt_agent.transport import PacedSender
from mqtt_agent.wire import StreamMessage, encode, to_json
from mqtt_agent.wire.calls import LOG_LEVELS

__all__ = ["CallStream", "SyncToolContext", "ToolContext"]

logger: logging.Logger = logger_of(__name__)

T = TypeVar("T")


class CallStream:
    """The server's end of the stream of one call's partial results.

    Args:
        call_id: The id of the call.
        send: Publishes a payload on the stream's topic, and returns the future of the broker's confirmation. None when
            the caller does not listen.
        tool: The tool's name, for warnings.
        server: The id of the replica that each message names; None when the topic names the replica.

    Attributes:
        seq: The number of the latest stream message; 0 before the first one.
        closed: Whether no further message is sent.
    """

    def __init__(
        self,
        call_id: str,
        send: Callable[[bytes], asyncio.Future[int]] | None,
        tool: str = "",
        server: str | None = None,
    ) -> None:
        self.seq: int = 0
        self.closed: bool = send is None
        self._call_id = call_id
        self._tool = tool
        self._server = server
        self._sender = PacedSender(send) if send is not None else None

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
        fields.setdefault("server", self._server)
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
        answers: Whether the caller answers questions; see :meth:`ask`.
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
        request: Callable[[str, dict[str, Any]], Coroutine[Any, Any, Any]] | None = None,
        contents: Contents | None = None,
    ) -> None:
        self.call_id: str = call_id
        self.tool: str = tool
        self.client: str = client
        self.server: str = server
        self.meta: dict[str, Any] = meta or {}
        self.log_level: str | None = log_level
        self.bound: bool = bound
        self.verified: str | None = verified
        self.answers: bool = request is not None
        self.canceled: bool = False
        self._stream = stream
        self._request = request
        self._contents = contents
        self._asking: set[asyncio.Task[Any]] = set()
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

    async def ask(self, prompt: str, schema: Any = None, *, timeout: float | None = None) -> Any:
        """Ask the caller in the middle of the call, and wait for the answer.

        The caller answers with the function that it has given as ``on_question``. The handler counts as one of those
        that run at once, and the tool's own timeout goes on, while it waits.

        Example:
            >>> @server.tool  # doctest: +SKIP
            ... async def book(day: str, ctx: ToolContext) -> str:
            ...     seat = await ctx.ask("Which seat?", {"type": "string", "enum": ["aisle", "window"]})

        Args:
            prompt: The question.
            schema: JSON Schema of the answer, or a pydantic model. None asks for a text. The answer is not checked
                against a JSON Schema.
            timeout: Seconds to wait for the answer; None means no limit.

        Returns:
            The answer: any JSON value, or an instance of the model.

        Raises:
            InputNotGiven: The caller answers no questions, declines this one, or gives no answer in time.
            ValueError: The answer does not fit the model.
            TopicNotAuthorized: The broker does not allow the server to read answers.
        """
        given = await self.elicit(prompt, schema, timeout=timeout)
        if given.action != "accept":
            raise InputNotGiven(f"the caller gives no answer ({given.action}): {prompt}", code="INPUT_DECLINED")
        return read_answer(given.content, schema)

    async def elicit(self, prompt: str, schema: Any = None, *, timeout: float | None = None) -> Elicited:
        """Ask the caller as :meth:`ask` does, and return how the person has reacted, as MCP's elicitation does.

        Raises:
            InputNotGiven: The caller answers no questions, or gives no answer in time.
            TopicNotAuthorized: See :meth:`ask`.
        """
        params = to_json(elicitation(prompt, schema), "question", self.tool)
        result = await self.request_input(ELICITATION, params, timeout=timeout)
        fields = as_object(result) or {}
        action = fields.get("action")
        if action not in ("accept", "decline"):
            return Elicited("cancel")
        return Elicited(action, as_object(fields.get("content")))

    async def request_input(self, method: str, params: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Ask the caller for the result of any method that an MCP client has, such as ``elicitation/create``.

        Args:
            method: The method.
            params: Its parameters.
            timeout: Seconds to wait for the answer; None means no limit.

        Raises:
            InputNotGiven: The caller answers no questions, answers with an error, or gives no answer in time.
            TopicNotAuthorized: See :meth:`ask`.
        """
        if self._request is None:
            what = f"tool {self.tool} asks its caller, and this caller answers no questions: call it with on_question="
            raise InputNotGiven(what, code="INPUT_NOT_ACCEPTED")
        asking = asyncio.ensure_future(self._request(method, params))
        self._asking.add(asking)
        try:
            return await within(asking, timeout)
        except asyncio.TimeoutError:
            raise InputNotGiven(f"no answer within {timeout:g} s", code="INPUT_TIMEOUT") from None
        finally:
            self._asking.discard(asking)

    async def share(self, source: Source, *, name: str | None = None, mime_type: str | None = None) -> SharedContent:
        """Keep bytes for the caller, which reads them chunk by chunk with :meth:`ToolClient.open_content`.

        Use it for a result that is larger than a message may be. Only the caller of this call can read the content. The
        server keeps it for a while; see :class:`ContentSettings`.

        Example:
            >>> @server.tool  # doctest: +SKIP
            ... async def export(year: int, ctx: ToolContext) -> ToolResult:
            ...     return await ctx.share(Path(f"/data/{year}.csv"), mime_type="text/csv")

        Args:
            source: The bytes; the :class:`pathlib.Path` of a file, which must not change while the content is kept; an
                open binary file; or an iterable of bytes, also an async one, which is copied to a file of the server
                piece by piece. A plain iterable is read in a thread.
            name: The name of the content. By default, that of the file whose path is given.
            mime_type: The MIME type of the content, such as ``text/csv``.

        Returns:
            What the handler returns: the caller's result is then ``{"uri", "size", "sha256", "name"?, "mimeType"?}``.
            The fields of the reference may also be put into a result of your own.

        Raises:
            ToolError: The content is larger than the server keeps; the code is ``CONTENT_TOO_LARGE``.
            TypeError: ``source`` is a text, which could be a path or the content itself.
            ValueError: ``name`` or ``mime_type`` has more than 255 bytes.
            OSError: The file cannot be read, or the disk is full.
            TopicNotAuthorized: The broker does not allow the server to read requests.
        """
        if self._contents is None:
            raise RuntimeError("this context belongs to no server that keeps contents")
        owner = Owner(self.client, self.bound or self.verified is not None)
        return await self._contents.share(source, owner, name, mime_type)

    def give_up(self) -> None:
        """Note that the call was canceled, and end the wait for answers, also that of a handler in a thread."""
        self.canceled = True
        for asking in tuple(self._asking):
            asking.cancel()

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
        answers: Whether the caller answers questions; see :meth:`ask`.
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
        self.answers: bool = context.answers

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

    def ask(self, prompt: str, schema: Any = None, *, timeout: float | None = None) -> Any:
        """See :meth:`ToolContext.ask`. When the call is canceled, this raises ``CancelledError``."""
        return self._wait(self._context.ask(prompt, schema, timeout=timeout))

    def elicit(self, prompt: str, schema: Any = None, *, timeout: float | None = None) -> Elicited:
        """See :meth:`ToolContext.elicit`."""
        return self._wait(self._context.elicit(prompt, schema, timeout=timeout))

    def request_input(self, method: str, params: dict[str, Any], *, timeout: float | None = None) -> Any:
        """See :meth:`ToolContext.request_input`."""
        return self._wait(self._context.request_input(method, params, timeout=timeout))

    def share(self, source: Source, *, name: str | None = None, mime_type: str | None = None) -> SharedContent:
        """See :meth:`ToolContext.share`."""
        return self._wait(self._context.share(source, name=name, mime_type=mime_type))

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
