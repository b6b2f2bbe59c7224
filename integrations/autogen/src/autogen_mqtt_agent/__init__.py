"""AutoGen over MQTT 5: remote tools, and group chats whose participants live on other hosts."""

from autogen_mqtt_agent.agent import MQTTAgent
from autogen_mqtt_agent.host import AgentHost
from autogen_mqtt_agent.serve import serve_agent, serve_team
from autogen_mqtt_agent.tools import mqtt_tools
from autogen_mqtt_agent.version import __version__
from autogen_mqtt_agent.workbench import MQTTWorkbench

__all__ = ["AgentHost", "MQTTAgent", "MQTTWorkbench", "__version__", "mqtt_tools", "serve_agent", "serve_team"]
