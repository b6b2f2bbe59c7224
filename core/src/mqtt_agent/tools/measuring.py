"""The metrics of tool calls; see :mod:`mqtt_agent.metering`. The decorators in ``tracing`` record them."""

from __future__ import annotations

from mqtt_agent.metering import Durations

__all__ = ["AT_CALLER", "AT_SERVER"]

_COMMON = {
    "mcp.method.name": "tools/call",
    "gen_ai.operation.name": "execute_tool",
    "network.protocol.name": "mqtt",
    "network.protocol.version": "5",
}
AT_CALLER: Durations = Durations(
    "mcp.client.operation.duration",
    "How long a tool call took for its caller, from the call to its result or error.",
    "gen_ai.tool.name",
    _COMMON,
)
AT_SERVER: Durations = Durations(
    "mcp.server.operation.duration",
    "How long the handler of a tool call ran at the tool server.",
    "gen_ai.tool.name",
    _COMMON,
)
