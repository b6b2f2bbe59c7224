"""An agent middleware: a running LangChain agent always has the remote tools that are online now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain_core.tools import BaseTool

from langchain_mqtt_agent.toolkit import MQTTToolkit

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest
except ImportError as _error:
    raise ImportError("MQTTLiveTools needs LangChain's agents: pip install 'langchain-mqtt-agent[agents]'") from _error

__all__ = ["MQTTLiveTools"]


class MQTTLiveTools(AgentMiddleware):
    """Offers the language model, at each of its turns, the tools and peers that are online now.

    When a tool server starts in the middle of a run, the model has its tools at the next turn. When a server goes
    offline, the model loses its tools. A call of a tool that went offline in between gives the model an error message.

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
        """Let the model see the tools that are online now."""
        return handler(self._with(request, self._toolkit.get_online_tools()))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Let the model see the tools that are online now; the async form of :meth:`wrap_model_call`."""
        return await handler(self._with(request, await self._toolkit.aget_online_tools()))

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
