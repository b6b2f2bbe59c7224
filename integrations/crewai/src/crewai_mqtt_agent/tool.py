"""One remote tool as a CrewAI tool."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from crewai.events.event_bus import crewai_event_bus
from crewai.tools import BaseTool
from crewai.tools.tool_failure import ToolFailure, ToolFailureReason
from mqtt_agent import CallHandle, ToolCard
from mqtt_agent.adapting.callers import AwaitingCaller, BlockingCaller, Caller, block
from mqtt_agent.adapting.calling import call_tool
from mqtt_agent.adapting.content import as_text, content_of, in_words
from mqtt_agent.adapting.failures import failure_of
from mqtt_agent.adapting.threads import run_in_thread
from mqtt_agent.errors import MQTTAgentError, ToolFailed
from mqtt_agent.sync import ToolClient
from pydantic import BaseModel, PrivateAttr

from crewai_mqtt_agent.arguments import Arguments, make_arguments_model, never_cache, wire_arguments
from crewai_mqtt_agent.events import RemoteToolPartialEvent

__all__ = ["MQTTTool", "make_tool"]

OnQuestion = Callable[[str, dict[str, Any] | None], Any]
"""Answers a question of a tool: gets the question and the JSON Schema of the answer, or None instead of a schema."""


class MQTTTool(BaseTool):
    """A tool that runs in another process, found and called over MQTT. :meth:`MQTTToolkit.get_tools` makes it.

    A call that fails returns a ``ToolFailure`` and never raises: after an exception, CrewAI makes the call again, but
    the tool may have run. The failure's ``code`` is ``offline``, ``timeout``, ``denied``, ``invalid_arguments``,
    ``canceled``, or a code of the tool. ``retryable`` says whether the same call can be made again without harm.
    """

    _client: ToolClient = PrivateAttr()
    _card: ToolCard = PrivateAttr()
    _timeout: float | None = PrivateAttr(default=None)
    _on_question: OnQuestion | None = PrivateAttr(default=None)

    @property
    def card(self) -> ToolCard:
        """The tool's card, as it was when the tool was made."""
        return self._card

    # CrewAI passes the arguments by keyword, and an argument may be called `self`: hence the `/`.

    def run(self, /, *args: Any, **arguments: Any) -> Any:
        """Call the tool with arguments by name. Arguments by position are taken in the order of the schema."""
        return self._claim_usage() or self._run(*args, **arguments)

    async def arun(self, /, *args: Any, **arguments: Any) -> Any:
        """Call the tool; the async form of :meth:`run`."""
        return self._claim_usage() or await self._arun(*args, **arguments)

    def _run(self, /, *args: Any, **arguments: Any) -> Any:
        return block(self._call(BlockingCaller(self._client), args, arguments))

    async def _arun(self, /, *args: Any, **arguments: Any) -> Any:
        return await self._call(AwaitingCaller(self._client), args, arguments)

    async def _call(self, caller: Caller, args: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
        ask = None if self._on_question is None else _asker(self._on_question)
        call = partial(call_tool, timeout=self._timeout, on_partial=_teller(self), ask=ask)
        try:
            handle = await caller.on_loop(call, self._card.tool, self._wire(args, arguments))
        except (MQTTAgentError, ValueError) as error:
            return self._failure(error)
        return self._outcome(handle)

    def _wire(self, args: tuple[Any, ...], arguments: dict[str, Any]) -> dict[str, Any]:
        model = self.args_schema
        assert issubclass(model, Arguments)
        by_position = dict(zip(model.told_schema["properties"], args, strict=False))
        return wire_arguments(model, {**by_position, **arguments})

    def _outcome(self, handle: CallHandle) -> Any:
        error, response = handle.failure(), handle.response
        if error is not None or response is None:
            assert isinstance(error, Exception)
            return self._failure(error)
        result = response.result
        if self.result_schema is not None:
            return result
        # CrewAI's own MCP tools return text, too. The language model would see another value as its Python repr.
        blocks = content_of(result, response.content)
        text = as_text(result) if blocks is None else in_words(blocks)
        if blocks is not None and isinstance(result, dict) and result.get("isError") is True:
            return ToolFailure(message=text, code="tool_error", reason=ToolFailureReason.MCP_ERROR)
        return text

    def _failure(self, error: Exception) -> ToolFailure:
        failure = failure_of(error, repeatable=self._card.read_only or self._card.idempotent)
        details: dict[str, Any] = {"tool": self._card.tool}
        for name in ("call_id", "data", "server", "maybe_executed"):
            value = getattr(error, name, None)
            if value is not None:
                details[name] = value
        invalid = failure.code == "invalid_arguments" and not isinstance(error, ToolFailed)
        reason = ToolFailureReason.INVALID_INPUT if invalid else ToolFailureReason.TOOL_REPORTED
        retryable = bool(failure.retryable)
        return ToolFailure(
            message=failure.message, code=failure.code, retryable=retryable, reason=reason, details=details
        )


def make_tool(
    client: ToolClient,
    card: ToolCard,
    name: str,
    timeout: float | None,
    result_schema: type[BaseModel] | None = None,
    on_question: OnQuestion | None = None,
) -> MQTTTool:
    """Make a CrewAI tool from a tool card.

    Args:
        client: Calls the tool.
        card: The tool's card.
        name: The tool's name for the language model.
        timeout: Seconds that a call may take; None for no limit.
        result_schema: The pydantic model with which CrewAI checks the result; None for no check.
        on_question: See :class:`MQTTToolkit`.
    """
    tool = MQTTTool(
        name=name,
        description=card.description or card.title or card.tool,
        args_schema=make_arguments_model(f"{name}_arguments", card.input_schema),
        result_schema=result_schema,
        cache_function=_cache if card.read_only else never_cache,
    )
    tool._client, tool._card, tool._timeout = client, card, timeout  # pyright: ignore[reportPrivateUsage]
    tool._on_question = on_question  # pyright: ignore[reportPrivateUsage]
    return tool


def _cache(arguments: Any = None, result: Any = None) -> bool:
    return not isinstance(result, ToolFailure)


def _asker(on_question: OnQuestion) -> Callable[[str, Any], Awaitable[Any]]:
    context = contextvars.copy_context()

    async def ask(question: str, schema: Any) -> Any:
        # In a thread of its own: a function that reads the terminal blocks.
        scope = context.copy()
        answered = await run_in_thread(lambda: scope.run(on_question, question, schema), "mqtt-agent-crew-question")
        return await answered if inspect.isawaitable(answered) else answered

    return ask


def _teller(tool: MQTTTool) -> Callable[[str, Any], Awaitable[None]]:
    context = contextvars.copy_context()  # this context has the caller's event scope and stream sinks of CrewAI

    async def tell(call_id: str, value: Any) -> None:
        event = RemoteToolPartialEvent(tool_name=tool.card.tool, call_id=call_id, partial=value)
        # In a thread of its own: a listener may block.
        await run_in_thread(lambda: context.copy().run(crewai_event_bus.emit, tool, event), "mqtt-agent-crew-event")

    return tell
