"""LangChain tools and LangGraph apps, offered to others over MQTT."""

from langchain_mqtt_agent.serving.graphs import aserve_graph, graph_agent, serve_graph
from langchain_mqtt_agent.serving.tools import aserve_tools, serve_tools, tool_server

__all__ = ["aserve_graph", "aserve_tools", "graph_agent", "serve_graph", "serve_tools", "tool_server"]
