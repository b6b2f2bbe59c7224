"""LangChain tools and LangGraph apps, offered to others over MQTT."""

from langchain_mqtt_agent.serving.graphs import graph_agent, serve_graph
from langchain_mqtt_agent.serving.tools import serve_tools, tool_server

__all__ = ["graph_agent", "serve_graph", "serve_tools", "tool_server"]
