"""A remote tool as a LangChain tool: its definition for the language model, and what one call does."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool
from mqtt_agent import ToolCard
from mqtt_agent.adapting.callers import Remote
from mqtt_agent.adapting.schemas import NO_ARGUMENTS, speakable
from mqtt_agent.adapting.steps import CallSteps
from mqtt_agent.errors import CallCanceled, CallError, PayloadTooLarge, WireError
from pydantic import PrivateAttr
from typing_extensions import Self

from langchain_mqtt_agent._langgraph import current_runtime
from langchain_mqtt_agent.content import content_of
from langchain_mqtt_agent.context import context_of
from langchain_mqtt_agent.run import Artifact, Run, Work

__all__ = ["HandleToolError", "MQTTTool", "RemoteTool", "make_tool"]

logger: logging.Logger = logging.getLogger(__name__)

HandleToolError = bool | str | Callable[[ToolException], str]
"""What the language model is told when a call fails; see :class:`MQTTToolkit`."""

_RUNTIME = "mqtt_runtime"
"""The argument into which LangGraph injects its runtime, unless the remote tool has an argument of this name."""


class RemoteTool(StructuredTool):
    """A tool whose arguments are passed as one dict, so that an argument may be called `config` or `self`."""

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    _runtime: str = PrivateAttr(default=_RUNTIME)

    @classmethod
    def make(cls, remote: Remote, work: Work, **fields: Any) -> Self:
        """Make a tool that does its work at a remote end.

        Args:
            remote: Where the work is done.
            work: Does the work for one call of the tool.
            fields: The fields of the tool, such as ``name``.
        """
        from langchain_mqtt_agent._tool_functions import Functions, renamed  # LangGraph takes a while to import

        functions, runtime = Functions(remote, work), _RUNTIME
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
        return self.func(**prepared)

    async def _arun(self, **prepared):
        assert self.coroutine is not None
        return await self.coroutine(**prepared)

    # LangChain also asks for the signatures in every call: a signature that is set already takes half the time.
    _run.__signature__ = inspect.signature(_run)  # pyright: ignore[reportFunctionMemberAccess]
    _arun.__signature__ = inspect.signature(_arun)  # pyright: ignore[reportFunctionMemberAccess]


class MQTTTool(RemoteTool):
    """A tool that runs in another process, found and called over MQTT. :meth:`MQTTToolkit.get_tools` makes it.

    ``metadata["mqtt"]`` holds the tool's own name, namespace, server, title and annotations. In a tool message, the
    artifact is ``{"structured_content": ..., "call_id": ..., "server": ..., "attempt": ..., "elapsed_ms": ...}``.
    """


def make_tool(
    client: Remote,
    card: ToolCard,
    name: str,
    timeout: float | None,
    handle_tool_error: HandleToolError,
    context: Sequence[str] = (),
) -> MQTTTool:
    """Make a LangChain tool from a tool card.

    Args:
        client: Calls the tool.
        card: The tool's card.
        name: The tool's name for the language model.
        timeout: Seconds that a call may take; None for no limit.
        handle_tool_error: See :class:`MQTTToolkit`.
        context: See :class:`MQTTToolkit`.
    """

    async def work(run: Run, arguments: dict[str, Any]) -> tuple[Any, Artifact]:
        return await _call(run, card.tool, arguments, timeout, context)

    mqtt: dict[str, Any] = {"tool": card.tool, "namespace": card.namespace, "server": card.server}
    if card.title is not None:
        mqtt["title"] = card.title
    if card.annotations is not None:
        mqtt["annotations"] = card.annotations.model_dump(exclude_none=True)
    tool = MQTTTool.make(
        client,
        work,
        name=name,
        description=card.description or card.title or card.tool,
        args_schema=speakable(card.input_schema),
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
    run: Run, tool: str, arguments: dict[str, Any], timeout: float | None, context: Sequence[str]
) -> tuple[Any, Artifact]:
    """Call a tool, pass on what the tool streams, and cancel the call when the caller gives up."""
    told = context_of(run.config, run.in_context(current_runtime), context) if context else {}
    meta = {"context": told} if told else None
    call = CallSteps(tool, arguments, timeout=timeout, patience=run.patience, meta=meta)
    try:
        while not call.over:
            partials = await run.caller.on_loop(call.advance)
            run.beat()
            for partial in partials:
                ids = {"tool": tool, "tool_call_id": run.tool_call_id, "call_id": call.handle.call_id}
                await run.tell({**ids, "partial": partial})
    except BaseException as error:
        if call.begun:
            await run.caller.undo(call.cancel)  # also after its timeout: no model repeats a call with the same id
        # The language model can do something about a failed call: correct the arguments, or try another way. The
        # language model cannot do anything about a connection that was closed.
        if isinstance(error, (CallError, WireError, PayloadTooLarge)) and not isinstance(error, CallCanceled):
            raise ToolException(str(error)) from error
        raise
    handle, response = call.handle, call.handle.response
    assert response is not None
    artifact = {
        "structured_content": response.result,
        "call_id": handle.call_id,
        "server": handle.server,
        "attempt": handle.attempt,
        "elapsed_ms": handle.elapsed_ms,
    }
    return content_of(response.result, response.content), artifact
