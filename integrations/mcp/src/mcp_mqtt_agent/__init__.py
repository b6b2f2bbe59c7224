"""MCP and MQTT 5: every MCP server as tools over MQTT."""

from mcp_mqtt_agent.bridge import Bridge
from mcp_mqtt_agent.version import __version__

__all__ = ["Bridge", "__version__"]
