"""Interceptors: functions of the program that see each call of a toolkit's tools, and may change it.

The words are those of the interceptors of langchain-mcp-adapters.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from langchain_core.messages.tool import ToolMessage, ToolOutputMixin
from mqtt_agent.errors import WireError
from mqtt_agent.wire import to_json
from typing_extensions import Unpack

from langchain_mqtt_agent.run import Artifact, Run, Work

__all__ = ["MQTTToolCallRequest", "MQTTToolCallResult", "ToolCallInterceptor", "as_meta", "intercepted"]


class _Changes(TypedDict, total=False):
    name: str
    args: dict[str, Any]
    headers: dict[str, Any] | None


@dataclass(frozen=True)
class MQTTToolCallRequest:
    """A call that an interceptor sees. :meth:`override` makes a request with changes.

    Attributes:
        name: The tool's own name at its server. For a tool of ``peers``, the tool's name for the language model.
        args: The arguments by name, as the language model wrote them.
        server_name: The name of the tool's server. For a tool of ``peers``, the agent id of the peer.
        headers: Values that travel beside the arguments, any JSON values by name. A tool finds them in
            ``ctx.meta["headers"]``, and a peer in ``task.metadata["headers"]``. None sends nothing.
        runtime: LangGraph's ``ToolRuntime`` with the state, the context and the store; None outside a graph.
    """

    name: str
    args: dict[str, Any]
    server_name: str
    headers: dict[str, Any] | None = None
    runtime: object | None = None

    def override(self, **changes: Unpack[_Changes]) -> MQTTToolCallRequest:
        """A copy of the request with another ``name``, ``args`` or ``headers``."""
        unknown = changes.keys() - _Changes.__annotations__.keys()
        if unknown:
            names = ", ".join(sorted(unknown))
            raise TypeError(f"an interceptor can change name, args and headers, and not {names}")
        return dataclasses.replace(self, **changes)


@dataclass
class MQTTToolCallResult:
    """The result of a call, as the tool message gets it.

    Attributes:
        content: What the language model reads: a text, or a list of LangChain's content blocks.
        artifact: What the program gets: ``structured_content``, ``call_id``, ``server`` and more; see
            :class:`MQTTTool`. None for a result that an interceptor made without an artifact.
    """

    content: str | list[dict[str, Any]]
    artifact: Artifact | None = None


Handler = Callable[[MQTTToolCallRequest], Awaitable[Any]]
"""Makes the call, through the interceptors that follow."""
ToolCallInterceptor = Callable[[MQTTToolCallRequest, Handler], Any]
"""An async function ``interceptor(request, handler)``, or a plain function that returns what ``handler`` returned.

The function awaits ``handler(request)`` to make the call: once, several times, with a changed request, or not at all.
It returns the :class:`MQTTToolCallResult` of the handler or one of its own, a ``ToolMessage``, or a LangGraph
``Command``. A call without a result raises a ``ToolException`` from the handler, which the interceptor may catch.
"""


def intercepted(
    execute: Callable[[Run, MQTTToolCallRequest], Awaitable[tuple[Any, Artifact]]],
    interceptors: Sequence[ToolCallInterceptor],
    name: str,
    server_name: str,
) -> Work:
    """Put interceptors around the work of a tool.

    Args:
        execute: Makes the call of a request, and returns the content and the artifact of the tool message.
        interceptors: The first one is the outermost: it sees the call first and the result last.
        name: The ``name`` of the requests.
        server_name: The ``server_name`` of the requests.
    """

    async def work(run: Run, arguments: dict[str, Any]) -> tuple[Any, Artifact | None]:
        async def call(request: MQTTToolCallRequest) -> MQTTToolCallResult:
            content, artifact = await execute(run, request)
            return MQTTToolCallResult(content, artifact)

        handler: Handler = call
        for each in reversed(interceptors):
            handler = _around(handler, each)
        result = await handler(MQTTToolCallRequest(name, arguments, server_name, None, run.runtime))
        # LangChain takes a ToolMessage and a Command as they are.
        return (result.content, result.artifact) if isinstance(result, MQTTToolCallResult) else (result, None)

    return work


def _around(handler: Handler, interceptor: ToolCallInterceptor) -> Handler:
    async def intercept(request: MQTTToolCallRequest) -> Any:
        result = interceptor(request, handler)
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, MQTTToolCallResult | ToolMessage | ToolOutputMixin):
            return result
        name = getattr(interceptor, "__name__", type(interceptor).__name__)
        raise TypeError(
            f"the interceptor {name} returned {type(result).__name__}: return what the handler returned, or an "
            "MQTTToolCallResult, a ToolMessage or a Command"
        )

    return intercept


def as_meta(context: Mapping[str, Any], headers: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What travels with a call or a task: the chosen keys of the run's configuration, and the headers of the request.

    Raises:
        WireError: JSON cannot carry the headers.
    """
    if headers is not None and not isinstance(to_json(headers, "headers"), dict):
        raise WireError(f"headers must be a dict, not {type(headers).__name__}")
    told = {"context": context or None, "headers": dict(headers) if headers else None}
    return {key: value for key, value in told.items() if value} or None
