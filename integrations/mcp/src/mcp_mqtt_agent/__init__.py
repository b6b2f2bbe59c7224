"""MCP and MQTT 5: every MCP server as tools over MQTT, and every tool over MQTT for MCP clients."""

from typing import TYPE_CHECKING, Any

from mcp_mqtt_agent.version import __version__

if TYPE_CHECKING:
    from mcp_mqtt_agent.bridge import Bridge
    from mcp_mqtt_agent.face import Face

__all__ = ["Bridge", "Face", "__version__"]


def __getattr__(name: str) -> Any:
    # The command line imports this package for every verb, and the MCP SDK takes a second to import.
    if name == "Bridge":
        from mcp_mqtt_agent.bridge import Bridge

        return Bridge
    if name == "Face":
        from mcp_mqtt_agent.face import Face

        return Face
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
