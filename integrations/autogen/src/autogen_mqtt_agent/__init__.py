"""AutoGen over MQTT 5: remote tools, and group chats whose participants live on other hosts."""

from autogen_mqtt_agent.agent import MQTTAgent
from autogen_mqtt_agent.host import AgentHost, aserve_agent, aserve_team, serve_agent, serve_team
from autogen_mqtt_agent.resuming import resume_team, resume_team_stream
from autogen_mqtt_agent.version import __version__
from autogen_mqtt_agent.workbench import MQTTTool, MQTTWorkbench, mqtt_tools

__all__ = [
    "AgentHost",
    "MQTTAgent",
    "MQTTTool",
    "MQTTWorkbench",
    "__version__",
    "aserve_agent",
    "aserve_team",
    "mqtt_tools",
    "resume_team",
    "resume_team_stream",
    "serve_agent",
    "serve_team",
]
