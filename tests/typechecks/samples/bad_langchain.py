"""Mistakes in code with langchain_mqtt_agent: both type checkers refuse each line that is marked."""

from langchain_mqtt_agent import MQTTLiveTools, MQTTRemoteAgent, MQTTToolkit, graph_agent, tool_server

toolkit = MQTTToolkit(agent_id="planner")
MQTTToolkit(agentid="planner")  # refused
MQTTToolkit(agent_id="planner", tiemout=3)  # refused
MQTTToolkit(timeout="soon")  # refused
MQTTRemoteAgent("writer", agentid="planner")  # refused
MQTTRemoteAgent()  # refused
MQTTLiveTools("toolkit")  # refused
toolkit.get_tool()  # refused
print(toolkit.get_tools()[0].nam)  # refused
tool_server(3, "toolbox")  # refused
graph_agent(object(), "planner", descripton="Plans")  # refused
