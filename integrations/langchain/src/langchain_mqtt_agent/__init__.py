"""Remote tools and agents over MQTT 5 as native LangChain tools, Runnables and LangGraph nodes; and the way back."""

from langchain_mqtt_agent.remote import MQTTRemoteAgent
from langchain_mqtt_agent.serving import graph_agent, serve_graph, serve_tools, tool_server
from langchain_mqtt_agent.tool import MQTTTool
from langchain_mqtt_agent.toolkit import MQTTToolkit

__all__ = [
    "MQTTRemoteAgent",
    "MQTTTool",
    "MQTTToolkit",
    "graph_agent",
    "serve_graph",
    "serve_tools",
    "tool_server",
]
