"""How a served LangChain tool runs: its arguments are checked, the server's part is injected, its errors are worded."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.tools import BaseTool, StructuredTool, Tool, ToolException
from mqtt_agent import ToolContext, ToolError
from mqtt_agent.adapting.faults import Fault, invalid_arguments, pydantic_fault
from mqtt_agent.errors import InvalidArguments
from mqtt_agent.sync import ToolContext as SyncToolContext
from pydantic import ValidationError

from langchain_mqtt_agent.serving.exchange import CALLER, accepted
from langchain_mqtt_agent.serving.offer import Offer
from langchain_mqtt_agent.serving.results import result_of

__all__ = ["handler_of"]


def handler_of(offered: BaseTool, offer: Offer, store: Any, accept: Sequence[str]) -> Callable[..., Any]:
    """Make the handler of a tool: one that blocks, and runs in a thread, when the tool has no async form."""
    return (_BlockingHandler if _blocks(offered) else _Handler)(offered, offer, store, accept)


def _blocks(offered: BaseTool) -> bool:
    """Whether a tool has no async form. LangChain would run such a tool in the default executor of the event loop."""
    kind = type(offered)
    if isinstance(offered, (StructuredTool, Tool)):
        return offered.coroutine is None and kind.ainvoke in (StructuredTool.ainvoke, Tool.ainvoke)
    return kind.ainvoke is BaseTool.ainvoke and kind._arun is BaseTool._arun  # pyright: ignore[reportPrivateUsage]


class _Runner:
    """The base of the handlers: the parts that tools with and without an async form have in common."""

    def __init__(self, offered: BaseTool, offer: Offer, store: Any, accept: Sequence[str]) -> None:
        self._offered = offered
        # The errors are worded here: LangChain would make a result of them, which looks like any other result.
        self._tool = offered.model_copy(update={"handle_tool_error": False, "handle_validation_error": False})
        self._offer = offer
        self._store = store
        self._accept = tuple(accept)
        self._as_message = offered.response_format == "content_and_artifact" or offer.call_id
        everything = "arguments"
        while everything in offer.shown:  # the server gives one dict only to a parameter that is no argument itself
            everything += "_"
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter(everything, inspect.Parameter.POSITIONAL_ONLY),
                inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY),
            ]
        )

    def _config(self, callback: BaseCallbackHandler, meta: dict[str, Any]) -> Any:
        config: dict[str, Any] = {"callbacks": [callback]}
        return {**config, "configurable": {CALLER: accepted(meta, self._accept)}} if self._accept else config

    def _input(
        self, arguments: dict[str, Any], call_id: str, config: dict[str, Any], write: Callable[[Any], None]
    ) -> Any:
        """The input of the tool: the caller's arguments, and the values that this server injects.

        Raises:
            InvalidArguments: The arguments are wrong, or not for callers.
        """
        unknown = self._offer.unknown(arguments)
        if unknown:
            raise self._invalid([Fault([name], "does not exist") for name in unknown])
        injected: dict[str, Any] = {}
        if self._offer.store is not None:
            injected[self._offer.store] = self._store
        if self._offer.runtime is not None:
            injected[self._offer.runtime] = self._runtime(call_id, config, write)
        given = {**arguments, **injected}
        if self._offer.is_model:
            self._check(dict(given), call_id)
        if self._as_message:
            return {"type": "tool_call", "id": call_id, "name": self._tool.name, "args": given}
        return given

    def _check(self, given: dict[str, Any], call_id: str) -> None:
        try:
            self._tool._parse_input(given, call_id)  # pyright: ignore[reportPrivateUsage]
        except ValueError as error:  # of pydantic 2, or of pydantic 1
            faults = _faults(error)
            if faults is None:
                raise
            raise self._invalid(faults, error) from error

    def _invalid(self, faults: list[Fault], cause: ValueError | None = None) -> InvalidArguments:
        flag = self._offered.handle_validation_error
        text: str | None = None
        if cause is not None and isinstance(flag, str):
            text = flag
        elif cause is not None and callable(flag):
            text = flag(cause)  # pyright: ignore[reportArgumentType]
        return invalid_arguments(self._tool.name, faults, text)

    def _runtime(self, call_id: str, config: dict[str, Any], write: Callable[[Any], None]) -> Any:
        from langgraph.prebuilt import ToolRuntime  # it is imported already: the tool has it as an annotation

        return ToolRuntime(
            state=_NoState(self._tool.name),
            context=None,
            config=config,  # pyright: ignore[reportArgumentType]
            stream_writer=write,
            tool_call_id=call_id,
            store=self._store,
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Make the errors of a tool the errors of a call."""
        try:
            yield
        except ToolException as error:
            flag = self._offered.handle_tool_error
            text = flag if isinstance(flag, str) else str(flag(error)) if callable(flag) else str(error)
            raise ToolError(text, code=type(error).__name__) from error
        except Exception as error:
            if _is_interrupt(error):
                raise ToolError(
                    f"tool {self._tool.name!r} calls interrupt(), and a tool call cannot wait for an answer: serve the"
                    " graph with serve_graph(), where an interrupt becomes a question",
                    code="INTERRUPT",
                ) from error
            raise


class _Handler(_Runner):
    """Awaits a LangChain tool for each call."""

    async def __call__(self, arguments: dict[str, Any], context: ToolContext) -> Any:
        stream = _Stream(context)
        config = self._config(stream, context.meta)
        given = self._input(arguments, context.call_id, config, stream.write)
        try:
            with self._errors():
                return result_of(self._tool, await self._tool.ainvoke(given, config))
        finally:
            await stream.written()


class _BlockingHandler(_Runner):
    """Runs a LangChain tool that blocks for each call. The server calls this handler in a thread."""

    def __call__(self, arguments: dict[str, Any], context: SyncToolContext) -> Any:
        config = self._config(_BlockingStream(context), context.meta)
        given = self._input(arguments, context.call_id, config, context.stream)
        with self._errors():
            return result_of(self._tool, self._tool.invoke(given, config))


class _Stream(AsyncCallbackHandler):
    """Streams a tool's custom events, and what it gives to its stream writer, to the caller."""

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._last: asyncio.Future[None] | None = None

    async def on_custom_event(self, name: str, data: Any, **about: Any) -> None:
        if asyncio.get_running_loop() is self._loop:
            await self._context.stream(data)
        else:  # the tool runs in a thread
            streaming = asyncio.run_coroutine_threadsafe(self._context.stream(data), self._loop)
            await asyncio.wrap_future(streaming)

    def write(self, value: Any) -> None:
        """Stream a value soon, after the earlier ones."""
        self._loop.call_soon_threadsafe(self._write, value)

    def _write(self, value: Any) -> None:
        self._last = asyncio.ensure_future(self._after(self._last, value))

    async def _after(self, earlier: asyncio.Future[None] | None, value: Any) -> None:
        if earlier is not None:
            await earlier
        await self._context.stream(value)

    async def written(self) -> None:
        """Wait until everything is streamed that was written.

        Raises:
            WireError, PayloadTooLarge: A value cannot be streamed.
        """
        await asyncio.sleep(0)  # the writes of other threads were scheduled before
        if self._last is not None:
            await self._last


class _BlockingStream(BaseCallbackHandler):
    """Streams the custom events of a tool that runs in a thread to the caller."""

    def __init__(self, context: SyncToolContext) -> None:
        self._context = context

    def on_custom_event(self, name: str, data: Any, **about: Any) -> None:
        self._context.stream(data)


class _NoState(dict[str, Any]):
    """The graph's state in the ``ToolRuntime`` of a served tool. There is none, and every look at it says so."""

    def __init__(self, tool: str) -> None:
        super().__init__()
        self._tool = tool

    def _refuse(self, *_: Any) -> Any:
        raise ToolError(
            f"tool {self._tool!r} reads the state of a graph, and a tool server has no graph: take what the tool needs"
            " as an argument",
            code="NO_STATE",
        )

    __getitem__ = __contains__ = __iter__ = get = keys = values = items = _refuse

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._refuse()


def _faults(error: ValueError) -> list[Fault] | None:
    """What is wrong with the arguments; None when the error is no validation error of pydantic."""
    if isinstance(error, ValidationError):
        details: Any = error.errors(include_url=False, include_context=False)
    elif type(error).__name__ == "ValidationError" and callable(getattr(error, "errors", None)):
        details = error.errors()  # pyright: ignore[reportAttributeAccessIssue]
    else:
        return None
    return [pydantic_fault(each) for each in details]


def _is_interrupt(error: BaseException) -> bool:
    """Whether an error comes from LangGraph's ``interrupt()``, which works in a graph only."""
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame
        if code.f_code.co_name == "interrupt" and code.f_globals.get("__name__") == "langgraph.types":
            return True
        step = step.tb_next
    return type(error).__name__ == "GraphInterrupt"
