"""Remote tools and agents over MQTT 5 as LangChain tools, Runnables and LangGraph nodes; serving graphs and tools."""

from typing import TYPE_CHECKING, Any

from langchain_mqtt_agent.interceptors import MQTTToolCallRequest, MQTTToolCallResult, ToolCallInterceptor
from langchain_mqtt_agent.remote import MQTTRemoteAgent
from langchain_mqtt_agent.serving import aserve_graph, aserve_tools, graph_agent, serve_graph, serve_tools, tool_server
from langchain_mqtt_agent.tool import MQTTTool
from langchain_mqtt_agent.toolkit import MQTTToolkit
from langchain_mqtt_agent.version import __version__

if TYPE_CHECKING:
    from langchain_mqtt_agent.middleware import MQTTLiveTools

__all__ = [
    "MQTTLiveTools",
    "MQTTRemoteAgent",
    "MQTTTool",
    "MQTTToolCallRequest",
    "MQTTToolCallResult",
    "MQTTToolkit",
    "ToolCallInterceptor",
    "__version__",
    "aserve_graph",
    "aserve_tools",
    "graph_agent",
    "serve_graph",
    "serve_tools",
    "tool_server",
]


def __getattr__(name: str) -> Any:
    # LangChain's agents take a while to import, and are an optional dependency.
    if name == "MQTTLiveTools":
        from langchain_mqtt_agent.middleware import MQTTLiveTools

        return MQTTLiveTools
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
