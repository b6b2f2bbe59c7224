"""Peer agents as Runnables, LangGraph nodes and tools."""

from langchain_mqtt_agent.remote.agent import MQTTRemoteAgent

__all__ = ["MQTTRemoteAgent"]
