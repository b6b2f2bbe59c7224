"""Submits calls: waits for a server, builds the call, subscribes to its partial results, and sends the call."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import ValidationError

from mqtt_agent.aio.waiting import within
from mqtt_agent.display.suggestions import did_you_mean, hint_for
from mqtt_agent.endpoints.timeouts import checked_seconds
from mqtt_agent.errors import CallCanceled, InvalidIdentifier, ToolUnavailable, WireError
from mqtt_agent.tools.calling.answering import Answering, OnQuestion
from mqtt_agent.tools.calling.changes import ToolChanges
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.calling.live_catalog import LiveCatalog
from mqtt_agent.tools.calling.outgoing import OutgoingCalls
from mqtt_agent.tools.calling.partials import PartialResults
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.tools.tracing import traced_call
from mqtt_agent.wire import Call, StreamMessage, is_identifier, mended_text, new_call_id, to_json, validate_identifier
from mqtt_agent.wire.calls import INPUT

__all__ = ["Submitter", "unknown_keywords"]

_LOOK_UP_WITHIN = 2.0  # seconds
_MAX_CALL_ID = 65_535  # bytes of the Correlation Data


class Submitter:
    """Submits the calls of one client.

    Args:
        scope: What all parts of the client share.
        catalog: The tools and the servers that serve them.
        calls: The calls of the client. The submitter adds every new call.
        partials: Receives the partial results that tools stream.
        answering: Answers what tools ask.
        find_or_send: Sends a call that an earlier process may have made, unless a server has the call.
    """

    def __init__(
        self,
        scope: Scope,
        catalog: LiveCatalog,
        calls: OutgoingCalls,
        partials: PartialResults,
        answering: Answering,
        find_or_send: Callable[[CallHandle], None],
    ) -> None:
        self._scope = scope
        self._catalog = catalog
        self._calls = calls
        self._partials = partials
        self._answering = answering
        self._find_or_send = find_or_send

    @traced_call
    async def submit(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None,
        timeout: float | None,
        stream: bool | None,
        wait_online: bool,
        retry: bool | None,
        call_id: str | None,
        resume: bool = False,
        meta: Mapping[str, Any] | None = None,
        log_level: str | None = None,
        on_log: Callable[[StreamMessage], None] | None = None,
        on_question: OnQuestion | None = None,
    ) -> CallHandle:
        """Send a call, or attach to the call under way that has the same ``call_id``.

        Args:
            tool: The tool's name.
            arguments: The tool's arguments.
            timeout: Seconds until the call fails with :class:`CallTimeout`; None means no limit.
            stream: Whether the caller reads partial results. None means yes if the tool supports streaming.
            wait_online: Whether to wait for a server, within the timeout, when no server offers the tool.
            retry: Whether the call may run twice. None means yes if the tool is read-only or idempotent.
            call_id: The id of the call; None makes a new id.
            resume: Whether an earlier process may have made this call.
            meta: Other JSON data for the tool.
            log_level: The least level of the log messages that the caller wants; None means none.
            on_log: Called with each log message.
            on_question: Answers what the tool asks.

        Raises:
            ToolUnavailable: No server offers the tool.
            InvalidIdentifier: No packet can hold ``call_id``.
            InvalidArguments: ``call_id`` belongs to another call under way: of another tool, or with other arguments.
            ValueError: ``timeout`` is NaN.
            TransportError, WireError, QueueFull: The call cannot be sent.
        """
        validate_identifier(tool, "tool name")
        timeout = checked_seconds(timeout)
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        if not (self._catalog.is_found(tool) and self._catalog.is_online(tool)):
            await self._find(tool, wait_online, deadline)
        elif not self._catalog.is_settled(tool):
            await self._within(deadline, self._catalog.settled(tool), tool)
        # The server's card may arrive before the tool's card.
        card = self._catalog.tool(tool) or await self._catalog.look_up(tool, _LOOK_UP_WITHIN)
        call_id = _checked_call_id(call_id) if call_id else new_call_id()
        if stream is None:
            stream = card is not None and card.supports_streaming
        level = log_level or (None if on_log is None else "info")
        # A tool that does not stream has no context to ask with, and costs no subscription.
        answers = on_question is not None and (card is None or card.supports_streaming)
        call = self._make_call(tool, call_id, arguments, stream, meta, level, answers)
        joined = self._calls.join(tool, call, timeout, deadline)
        if joined is not None:
            try:
                await self._listen(joined, call, on_log, on_question)
            except BaseException as error:
                joined.fail(CallCanceled(f"{tool}: {error}", tool=tool, call_id=call_id))
                raise
            return joined
        if retry is None:
            retry = card is not None and (card.read_only or card.idempotent)
        resend_until = math.inf if wait_online else 0.0
        handle = self._calls.open(tool, call, timeout, deadline, retry, resend_until)
        try:
            await self._listen(handle, call, on_log, on_question)
            if resume:
                self._find_or_send(handle)
            else:
                self._calls.send(handle)
        except BaseException as error:
            handle.fail(CallCanceled(f"{tool}: the call was not sent: {error}", tool=tool, call_id=call_id))
            self._calls.send_for_others(handle)
            raise
        return handle

    async def _listen(
        self,
        handle: CallHandle,
        call: Call,
        on_log: Callable[[StreamMessage], None] | None,
        on_question: OnQuestion | None,
    ) -> None:
        if on_log is not None:
            handle.follow_log(on_log)
        if on_question is not None:
            self._answering.follow(handle, on_question)
        if call.stream:
            await self._partials.follow(handle)

    def _make_call(
        self,
        tool: str,
        call_id: str,
        arguments: Mapping[str, Any] | None,
        stream: bool,
        meta: Mapping[str, Any] | None,
        log_level: str | None,
        answers: bool,
    ) -> Call:
        if arguments is not None and not isinstance(arguments, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WireError(f"arguments must be a mapping of names to values, not {type(arguments).__name__}")
        try:
            return Call(
                call_id=call_id,
                arguments=to_json(dict(arguments or {}), "arguments", tool),
                client=self._scope.agent_id,
                response_topic=self._scope.inbox,
                stream=(stream or log_level is not None or answers) and is_identifier(call_id),
                meta=None if meta is None else to_json(dict(meta), "meta", tool),
                log_level=log_level,
                accepts=[INPUT] if answers else None,
            )
        except ValidationError as error:
            raise WireError(f"the call cannot be made: {error.errors()[0]['msg']}") from error

    # Waiting for a server

    async def _find(self, tool: str, wait_online: bool, deadline: float | None) -> None:
        """Wait for the cards of a tool, and else for all cards. If ``wait_online``, then wait for a server of the tool.

        Raises:
            ToolUnavailable: No server offers the tool.
        """
        await self._catalog.find(tool)
        if self._catalog.is_online(tool):
            return
        changes = self._catalog.watch()
        try:
            seen_all = await self._catalog.complete()
            await self._catalog.taken_over(tool, deadline)
            if self._catalog.is_online(tool):
                return
            card = await self._catalog.look_up(tool, _LOOK_UP_WITHIN)
            if self._catalog.is_online(tool) or (card is not None and not seen_all):
                return
            if not wait_online:
                self._catalog.forget_unknown(tool)
                raise self._unavailable(tool, known=card is not None, seen_all=seen_all)
            await self._within(deadline, self._wait_online(tool, changes), tool)
            await self._catalog.find(tool)  # somebody else may have asked for the tool in vain, and unfollowed it
        finally:
            changes.close()

    def _unavailable(self, tool: str, *, known: bool, seen_all: bool) -> ToolUnavailable:
        namespace = self._scope.topics.namespace
        if known:
            return ToolUnavailable(
                f"{tool}: every server that offers it is offline in namespace {namespace!r}", tool=tool
            )
        names = [card.tool for card in self._catalog.tools()]
        hint = hint_for(tool, names, "tool") if seen_all else did_you_mean(tool, names)
        return ToolUnavailable(f"{tool}: there is no such tool in namespace {namespace!r}{hint}", tool=tool)

    async def _within(self, deadline: float | None, waiting: Awaitable[None], tool: str) -> None:
        remaining = None if deadline is None else deadline - asyncio.get_running_loop().time()
        try:
            await within(waiting, remaining)
        except asyncio.TimeoutError:
            raise ToolUnavailable(f"{tool}: no server came online in time", tool=tool) from None

    async def _wait_online(self, tool: str, changes: ToolChanges) -> None:
        if self._catalog.is_online(tool):
            return
        async for _ in changes:
            if self._catalog.is_online(tool):
                return


def _checked_call_id(call_id: str) -> str:
    size = len(call_id.encode(errors="surrogatepass"))
    if size > _MAX_CALL_ID or mended_text(call_id) != call_id:
        what = f"has {size:,} bytes, and MQTT can carry at most {_MAX_CALL_ID:,}"
        what = what if size > _MAX_CALL_ID else "has a surrogate, which no UTF-8 can hold"
        raise InvalidIdentifier(f"the call id {call_id!r:.80} {what}: choose another call id, or pass none")
    return call_id


def unknown_keywords(method: Callable[..., object], tool: str, unknown: Mapping[str, object]) -> TypeError:
    """The error for keywords that a method of the client does not know, because they are arguments of the tool."""
    name = next(iter(unknown))
    known = inspect.signature(method).parameters.values()
    meant = did_you_mean(name, [each.name for each in known if each.kind is not each.VAR_KEYWORD])
    arguments = ", ".join(f'"{each}": ...' for each in unknown)
    return TypeError(
        f"{method.__name__}() has no parameter {name!r}{meant}; "
        f"the arguments of a tool are one dict: {method.__name__}({tool!r:.80}, {{{arguments:.200}}})"
    )
