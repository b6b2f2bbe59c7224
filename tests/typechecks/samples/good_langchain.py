"""What users write with langchain_mqtt_agent: both type checkers accept it, and know the types."""

from langchain_core.tools import BaseTool
from langchain_mqtt_agent import MQTTLiveTools, MQTTRemoteAgent, MQTTToolkit, aserve_tools, tool_server
from mqtt_agent import Connection, MemoryStore, ToolServer
from typing_extensions import assert_type

toolkit = MQTTToolkit(broker="mqtt://localhost:1883", agent_id="planner", tools=["forecast"], timeout=3)
writer = MQTTRemoteAgent("writer", agent_id="planner", store=MemoryStore(), timeout=60)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


assert_type(toolkit.get_tools(), list[BaseTool])
assert_type(toolkit.connection, Connection)
assert_type(writer.as_tool(name="writer"), BaseTool)
assert_type(tool_server([add], "toolbox"), ToolServer)
assert_type(MQTTLiveTools(toolkit), MQTTLiveTools)


async def use() -> None:
    assert_type(await toolkit.aget_tools(), list[BaseTool])
    await aserve_tools([add], "toolbox")
