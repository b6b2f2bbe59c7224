"""Remote tools and agents over MQTT 5 as native LangChain tools, Runnables and LangGraph nodes."""

from langchain_mqtt_agent.remote import MQTTRemoteAgent
from langchain_mqtt_agent.tool import MQTTTool
from langchain_mqtt_agent.toolkit import MQTTToolkit

__all__ = ["MQTTRemoteAgent", "MQTTTool", "MQTTToolkit"]
