"""A remote tool as a LangChain tool: its definition for the language model, and what one call does."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from mqtt_agent import ToolCard
from mqtt_agent.adapting.callers import Remote
from mqtt_agent.adapting.failures import concerns_model
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.adapting.providers import Provider, fitting, troubles
from mqtt_agent.adapting.schemas import NO_ARGUMENTS, speakable, without_nulls
from mqtt_agent.adapting.steps import CallSteps
from mqtt_agent.errors import TransportError, WireError
from mqtt_agent.tools import CallQuestion
from mqtt_agent.wire import to_json
from pydantic import PrivateAttr
from typing_extensions import Self

from langchain_mqtt_agent._langgraph import current_runtime, is_interrupt
from langchain_mqtt_agent.answers import answer_of, pass_over
from langchain_mqtt_agent.content import content_of
from langchain_mqtt_agent.context import context_of
from langchain_mqtt_agent.faults import HandleToolError, RemoteToolException
from langchain_mqtt_agent.interceptors import MQTTToolCallRequest, ToolCallInterceptor, as_meta, intercepted
from langchain_mqtt_agent.places import begin_anew, place_of
from langchain_mqtt_agent.run import Artifact, Run, Work

__all__ = ["HandleToolError", "MQTTTool", "RemoteTool", "make_tool"]

logger: logging.Logger = logger_of(__name__)

OnToolQuestion = Callable[[str, dict[str, Any] | None], Any]
"""Answers a question of a tool: gets the question and the JSON Schema of the answer, or None instead of a schema."""

_RUNTIME = "mqtt_runtime"
"""The argument into which LangGraph injects its runtime, unless the remote tool has an argument of this name."""


class RemoteTool(StructuredTool):
    """A tool whose arguments are passed as one dict, so that an argument may be called `config` or `self`."""

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    _runtime: str = PrivateAttr(default=_RUNTIME)

    @classmethod
    def make(cls, remote: Remote, work: Work, *, awaits: bool = False, **fields: Any) -> Self:
        """Make a tool that does its work at a remote end.

        Args:
            remote: Where the work is done.
            work: Does the work for one call of the tool.
            awaits: Whether the work may await anything, as interceptors do.
            fields: The fields of the tool, such as ``name``.
        """
        from langchain_mqtt_agent._tool_functions import Functions, renamed  # LangGraph takes a while to import

        functions, runtime = Functions(remote, work, awaits), _RUNTIME
        while runtime in fields["args_schema"].get("properties", ()):
            runtime += "_"
        blocking, awaiting = (renamed(each, _RUNTIME, runtime) for each in (functions.invoke, functions.ainvoke))
        made = cls(func=blocking, coroutine=awaiting, **fields)
        made._runtime = runtime
        return made

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        arguments = self._parse_input(tool_input, tool_call_id)
        assert isinstance(arguments, dict)
        arguments = dict(arguments)
        runtime = arguments.pop(self._runtime, None)
        return (), {"arguments": arguments, "tool_call_id": tool_call_id, _RUNTIME: runtime}

    # No annotations here: LangChain evaluates the annotations of both methods in every call.

    def _run(self, **prepared):
        assert self.func is not None
        try:
            return self.func(**prepared)
        except RemoteToolException as fault:
            return self._failed(fault, prepared["tool_call_id"])

    async def _arun(self, **prepared):
        assert self.coroutine is not None
        try:
            return await self.coroutine(**prepared)
        except RemoteToolException as fault:
            return self._failed(fault, prepared["tool_call_id"])

    def _failed(self, fault: RemoteToolException, tool_call_id: str | None) -> tuple[ToolMessage, Artifact]:
        if tool_call_id is None or not self.handle_tool_error:
            raise fault
        handle = cast("HandleToolError", self.handle_tool_error)
        return fault.as_message(handle, self.name, tool_call_id), fault.artifact

    # LangChain also asks for the signatures in every call: a signature that is set already takes half the time.
    _run.__signature__ = inspect.signature(_run)  # pyright: ignore[reportFunctionMemberAccess]
    _arun.__signature__ = inspect.signature(_arun)  # pyright: ignore[reportFunctionMemberAccess]

    def run(self, tool_input: str | dict[str, Any], *args: Any, **options: Any) -> Any:
        """Call the tool; see ``BaseTool.run``."""
        try:
            return super().run(tool_input, *args, **options)
        except (RecursionError, ValueError):
            return self._unreadable(tool_input, options.get("tool_call_id"))

    async def arun(self, tool_input: str | dict[str, Any], *args: Any, **options: Any) -> Any:
        """Call the tool; see ``BaseTool.arun``."""
        try:
            return await super().arun(tool_input, *args, **options)
        except (RecursionError, ValueError):
            return self._unreadable(tool_input, options.get("tool_call_id"))

    def _unreadable(self, tool_input: Any, tool_call_id: str | None) -> Any:
        """Tell the model about arguments that LangChain could not write as text. Any other error is raised again."""
        arguments = dict(cast("dict[str, Any]", tool_input)) if isinstance(tool_input, dict) else {}
        arguments.pop(_RUNTIME, None)
        try:
            to_json(arguments, "arguments", self.name)
        except WireError as error:
            fault = RemoteToolException.of(error, _about(None))
            handle = cast("HandleToolError", self.handle_tool_error)
            if not handle:
                raise fault from error
            return fault.told(handle) if tool_call_id is None else fault.as_message(handle, self.name, tool_call_id)
        raise


class MQTTTool(RemoteTool):
    """A tool that runs in another process, found and called over MQTT. :meth:`MQTTToolkit.get_tools` makes it.

    ``metadata["mqtt"]`` holds the tool's own name, namespace, server, title and annotations. In a tool message, the
    artifact is ``{"structured_content": ..., "call_id": ..., "server": ..., "attempt": ..., "elapsed_ms": ...}``. When
    the call has failed, the artifact also has ``code``, ``data`` and ``retryable``, and perhaps ``maybe_executed``.
    """


def make_tool(
    client: Remote,
    card: ToolCard,
    name: str,
    limits: Mapping[str, float | None],
    handle_tool_error: HandleToolError,
    schema_for: Provider | None = None,
    context: Sequence[str] = (),
    interceptors: Sequence[ToolCallInterceptor] = (),
    on_question: OnToolQuestion | None = None,
) -> MQTTTool:
    """Make a LangChain tool from a tool card.

    Args:
        client: Calls the tool.
        card: The tool's card.
        name: The tool's name for the language model.
        limits: ``timeout`` and ``idle_timeout`` of each call, in seconds; None for no limit.
        handle_tool_error: See :class:`MQTTToolkit`.
        schema_for: See :class:`MQTTToolkit`.
        context: See :class:`MQTTToolkit`.
        interceptors: See :class:`MQTTToolkit`.
        on_question: See :class:`MQTTToolkit`.
    """

    async def work(run: Run, arguments: dict[str, Any]) -> tuple[Any, Artifact]:
        return await execute(run, MQTTToolCallRequest(card.tool, arguments, card.server))

    async def execute(run: Run, request: MQTTToolCallRequest) -> tuple[Any, Artifact]:
        return await _call(run, card, request, limits, context, on_question)

    mqtt: dict[str, Any] = {"tool": card.tool, "namespace": card.namespace, "server": card.server}
    if card.title is not None:
        mqtt["title"] = card.title
    if card.annotations is not None:
        mqtt["annotations"] = card.annotations.model_dump(exclude_none=True)
    schema, note = _schema_of(card, schema_for)
    tool = MQTTTool.make(
        client,
        intercepted(execute, interceptors, card.tool, card.server) if interceptors else work,
        awaits=bool(interceptors),
        name=name,
        description=" ".join(filter(None, (card.description or card.title or card.tool, note))),
        args_schema=schema,
        handle_tool_error=handle_tool_error,
        metadata={"mqtt": mqtt},
        return_direct=_returns_direct(card),
    )
    if not _has_readable_schema(tool):
        logger.warning(
            "tool %r: LangChain cannot give its input schema to a model; the model sees a tool without arguments",
            card.tool,
        )
        tool.args_schema = dict(NO_ARGUMENTS)
    return tool


def _schema_of(card: ToolCard, schema_for: Provider | None) -> tuple[dict[str, Any], str]:
    """The input schema for the language model, and a text for the description."""
    if schema_for is not None:
        return fitting(card.input_schema, schema_for)
    written = speakable(card.input_schema)
    found = troubles(card.input_schema, written)
    if found:
        logger.warning(
            "tool %r: a model provider may refuse its input schema, or read it at a high price: %s; give the toolkit "
            "schema_for='openai', 'gemini' or 'anthropic' to make it fit, or ask the owner of the tool",
            *(card.tool, ", ".join(found)),
        )
    return written, ""


def _returns_direct(card: ToolCard) -> bool:
    """Whether the tool's author wants that the agent ends with the tool's result, as ``serve_tools`` tells."""
    about = (card.meta or {}).get("langchain")
    return isinstance(about, dict) and about.get("return_direct") is True


def _has_readable_schema(tool: BaseTool) -> bool:
    try:
        return isinstance(tool.args, dict) and bool(convert_to_openai_tool(tool))
    except Exception as error:  # a card may contain anything, and must not affect the other tools
        logger.debug("tool %r: %r", tool.name, error)
        return False


async def _call(
    run: Run,
    card: ToolCard,
    request: MQTTToolCallRequest,
    limits: Mapping[str, float | None],
    context: Sequence[str],
    on_question: OnToolQuestion | None,
) -> tuple[Any, Artifact]:
    """Call a tool, pass on what the tool streams and asks, and cancel the call when the caller gives up."""
    tool, call, place, asking = request.name, None, None, False
    arguments = without_nulls(card.input_schema, request.args) if tool == card.tool else request.args
    try:
        place = place_of(run.config, ("call", card.namespace, tool, run.tool_call_id or ""), arguments)
        if place.id is not None:
            pass_over(run.config, place.id)
        told = context_of(run.config, run.in_context(current_runtime), context) if context else {}
        meta = as_meta(told, request.headers)
        call = CallSteps(
            tool,
            arguments,
            **limits,
            patience=run.patience,
            call_id=place.id,
            resume=place.resumed,
            meta=meta,
            answers=run.in_node or on_question is not None,
        )
        while not call.over:
            partials = await run.caller.on_loop(call.advance)
            run.beat()
            for partial in partials:
                ids = {"tool": tool, "tool_call_id": run.tool_call_id, "call_id": call.handle.call_id}
                await run.tell({**ids, "partial": partial})
            if call.question is not None:
                question, asking = call.question, True
                answer = await _answer(run, question, on_question)
                asking = False
                await run.caller.on_loop(call.answer, question, answer)
    except BaseException as error:
        # After a broken connection, the next attempt of the node attaches to the call, which goes on meanwhile.
        # An interrupt lets the call wait for the answer: the next run of the node attaches to it too.
        waits = asking and run.in_node and is_interrupt(error)
        goes_on = place is not None and place.id is not None and (waits or isinstance(error, TransportError))
        if call is not None and goes_on and waits:
            await run.caller.undo(call.leave)
        elif call is not None and call.begun and not goes_on:
            await run.caller.undo(call.cancel)  # also after its timeout: nobody waits for the call any more
        if place is not None and not goes_on:
            begin_anew(place)
        # The language model can do something about a failed call: correct the arguments, or try another way. The
        # language model cannot do anything about a connection that was closed.
        if isinstance(error, Exception) and concerns_model(error):
            repeatable = tool == card.tool and (card.read_only or card.idempotent)
            raise RemoteToolException.of(error, _about(call), repeatable=repeatable) from error
        raise
    response = call.handle.response
    assert response is not None
    artifact = {"structured_content": response.result, **_about(call)}
    return content_of(response.result, response.content), artifact


async def _answer(run: Run, question: CallQuestion, on_question: OnToolQuestion | None) -> Any:
    """Get the answer to a question of a tool: from an interrupt in a node, from the user's function elsewhere."""
    if not run.in_node:
        assert on_question is not None
        return await run.caller.settle(run.in_context(on_question, question.prompt, question.schema))
    asked = {"tool": question.tool, "tool_call_id": run.tool_call_id, "prompt": question.prompt}
    asked |= {"schema": question.schema, "round": question.number}
    return run.in_context(answer_of, run.config, question.call_id, question.number, asked)


def _about(call: CallSteps | None) -> Artifact:
    handle = call.handle if call is not None and call.sent else None
    return {name: getattr(handle, name, None) for name in ("call_id", "server", "attempt", "elapsed_ms")}
