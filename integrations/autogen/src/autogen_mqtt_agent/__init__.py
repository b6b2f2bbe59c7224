"""AutoGen over MQTT 5: remote tools, and group chats whose participants live on other hosts."""

from autogen_mqtt_agent.tools import mqtt_tools
from autogen_mqtt_agent.workbench import MQTTWorkbench

__all__ = ["MQTTWorkbench", "mqtt_tools"]
