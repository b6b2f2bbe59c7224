"""Peer agents as Runnables, nodes and tools."""

from langchain_mqtt_agent.remote.agent import MQTTRemoteAgent
from langchain_mqtt_agent.remote.tool import MQTTPeerTool

__all__ = ["MQTTPeerTool", "MQTTRemoteAgent"]
