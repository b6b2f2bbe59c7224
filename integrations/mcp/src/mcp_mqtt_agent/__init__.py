"""MCP and MQTT 5: every MCP server as tools over MQTT, and every tool over MQTT for MCP clients."""

from mcp_mqtt_agent.bridge import Bridge
from mcp_mqtt_agent.face import Face
from mcp_mqtt_agent.version import __version__

__all__ = ["Bridge", "Face", "__version__"]
