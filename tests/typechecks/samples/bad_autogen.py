"""Mistakes in code with autogen_mqtt_agent: both type checkers refuse each line that is marked."""

from autogen_mqtt_agent import AgentHost, MQTTAgent, MQTTWorkbench

workbench = MQTTWorkbench(agent_id="planner")
writer = MQTTAgent("writer", agent_id="planner")
MQTTWorkbench(agentid="planner")  # refused
MQTTWorkbench(tiemout=3)  # refused
MQTTAgent("writer", agentid="planner")  # refused
MQTTAgent("writer", roster=3)  # refused
AgentHost(3, agent_id="writer")  # refused
AgentHost(lambda name: writer, agent_id="writer", descripton="Writes")  # refused


async def use() -> None:
    await workbench.call_tool("forecast", ["Oslo"])  # refused
    await workbench.call_tool("forecast", argumnts={})  # refused
    await writer.on_messages("Write.")  # refused
    await workbench.get_tools(tiemout=3)  # refused
