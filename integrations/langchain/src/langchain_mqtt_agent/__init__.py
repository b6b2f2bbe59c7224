"""Remote tools over MQTT 5 as native LangChain tools."""

from langchain_mqtt_agent.tool import MQTTTool
from langchain_mqtt_agent.toolkit import MQTTToolkit

__all__ = ["MQTTTool", "MQTTToolkit"]
