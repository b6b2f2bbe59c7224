"""An agent middleware: a running LangChain agent always has the remote tools that are online now."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool

from langchain_mqtt_agent.toolkit import MQTTToolkit

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest
except ImportError as _error:
    raise ImportError("MQTTLiveTools needs LangChain's agents: pip install 'langchain-mqtt-agent[agents]'") from _error

__all__ = ["MQTTLiveTools"]

_MAX_BROKEN = 3
"""How many messages with broken calls alone a model may write in one turn, before the agent ends at such a message."""


class MQTTLiveTools(AgentMiddleware):
    """Offers the language model, at each of its turns, the tools and peers that are online now.

    When a tool server starts in the middle of a run, the model has its tools at the next turn. When a server goes
    offline, the model loses its tools. A call of a tool that went offline in between gives the model an error message,
    and so does a call whose arguments are no JSON.

    Example:
        >>> agent = create_agent(model, middleware=[MQTTLiveTools(toolkit)])  # doctest: +SKIP

    Args:
        toolkit: Finds the tools. Wanted tools that are not online are left out, even with ``on_unavailable="raise"``.

    Raises:
        ImportError: LangChain's agents are not installed.
    """

    def __init__(self, toolkit: MQTTToolkit) -> None:
        super().__init__()
        self.tools: Sequence[BaseTool] = []
        self._toolkit = toolkit
        self._known: dict[str, BaseTool] = {}

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[Any], Any]) -> Any:
        """Let the model see the tools that are online now, and write calls again whose arguments are no JSON."""
        request = self._with(request, self._toolkit.get_online_tools())
        turn = _Turn(handler(request))
        while turn.is_broken:
            turn.add(handler(request.override(messages=[*request.messages, *turn.messages])))
        return turn.response

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Let the model see the tools that are online now; the async form of :meth:`wrap_model_call`."""
        request = self._with(request, await self._toolkit.aget_online_tools())
        turn = _Turn(await handler(request))
        while turn.is_broken:
            turn.add(await handler(request.override(messages=[*request.messages, *turn.messages])))
        return turn.response

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Let the agent call the tools that the model has seen."""
        if self._is_unknown(request):
            self._remember(self._toolkit.get_online_tools())
        return handler(self._resolved(request))

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Let the agent call the tools that the model has seen; the async form of :meth:`wrap_tool_call`."""
        if self._is_unknown(request):
            self._remember(await self._toolkit.aget_online_tools())
        return await handler(self._resolved(request))

    def _with(self, request: ModelRequest[Any], online: list[BaseTool]) -> ModelRequest[Any]:
        self._remember(online)
        names = {tool.name for tool in online}
        others = [tool for tool in request.tools if not isinstance(tool, BaseTool) or tool.name not in names]
        return request.override(tools=[*others, *online])

    def _remember(self, online: list[BaseTool]) -> None:
        self._known.update({tool.name: tool for tool in online})

    def _is_unknown(self, request: Any) -> bool:
        """Whether a request is for a tool that is unknown here: the run may come from another process."""
        return request.tool is None and request.tool_call["name"] not in self._known

    def _resolved(self, request: Any) -> Any:
        tool = self._known.get(request.tool_call["name"]) if request.tool is None else None
        return request if tool is None else request.override(tool=tool)


class _Turn:
    """The messages of one turn of the model.

    LangChain ends the agent when the arguments of all calls of a message are no JSON. So the model is told about these
    calls, and gets another chance within its turn.
    """

    def __init__(self, response: Any) -> None:
        self.response = response
        self.messages: list[Any] = []
        self.is_broken = False
        self._left = _MAX_BROKEN
        self._look()

    def add(self, response: Any) -> None:
        """Add the model's next message."""
        self.response = dataclasses.replace(response, result=[*self.messages, *response.result])
        self._look()

    def _look(self) -> None:
        message = self.response.result[-1] if self.response.result else None
        broken = getattr(message, "invalid_tool_calls", None) or []
        known = all(call.get("id") for call in broken)
        self.is_broken = bool(broken) and known and not getattr(message, "tool_calls", None) and self._left > 0
        if self.is_broken:
            self._left -= 1
            self.messages = [*self.response.result, *map(_broken, broken)]


def _broken(call: Any) -> ToolMessage:
    why = f": {call['error']}" if call.get("error") else ""
    told = f"the call was not made, because its arguments are no JSON object{why}"
    return ToolMessage(told, tool_call_id=call["id"], name=call.get("name"), status="error")
