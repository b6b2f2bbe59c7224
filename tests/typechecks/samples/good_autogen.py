"""What users write with autogen_mqtt_agent: both type checkers accept it, and know the types."""

from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken
from autogen_core.tools import ToolResult, ToolSchema
from autogen_mqtt_agent import MQTTAgent, MQTTWorkbench, mqtt_tools
from mqtt_agent import Connection, MemoryStore
from typing_extensions import assert_type

workbench = MQTTWorkbench("mqtt://localhost:1883", tools=["forecast"], timeout=3)
writer = MQTTAgent("writer", agent_id="planner", store=MemoryStore(), timeout=60)


async def use() -> None:
    assert_type(workbench.connection, Connection)
    assert_type(await workbench.list_tools(), list[ToolSchema])
    assert_type(await workbench.call_tool("forecast", {"city": "Oslo"}), ToolResult)
    assert_type(writer.agent_id, str)
    messages = [TextMessage(content="Write.", source="user")]
    assert_type(await writer.on_messages(messages, CancellationToken()), Response)
    assert_type(await writer.resume(), BaseChatMessage | None)
    for tool in await mqtt_tools("mqtt://localhost:1883", tools=["forecast"]):
        assert_type(tool.schema, ToolSchema)
