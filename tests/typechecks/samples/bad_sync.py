"""Mistakes in code with mqtt_agent.sync: both type checkers refuse each line that is marked."""

from mqtt_agent.sync import Agent, TaskContext, ToolClient, ToolServer

server = ToolServer("weather")
agent = Agent("writer")
client = ToolClient("caller")
ToolClient("caller", namspace="a2a/v1")  # refused
ToolServer("weather", replca="one")  # refused
Agent("writer", stor="writer.db")  # refused
Agent(3)  # refused


@server.tool(nme="crawl")  # refused
def crawl(url: str) -> int:
    return len(url)


@server.tool
def forecast(city: str) -> str:
    return city


@agent.on_task
def write(task: TaskContext) -> str:
    return ""


@agent.on_task(3)  # refused
def research(task: TaskContext) -> str:
    return ""


forecast(3)  # refused
write("a task")  # refused
server.add_tool("forecast", forecast, idempotnt=True)  # refused
client.call("forecast", tiemout=3)  # refused
client.call("forecast", ["Oslo"])  # refused
client.submit("forecast", tiemout=3)  # refused
client.submit("forecast").resul()  # refused
client.submit("forecast").cancel(because="slow")  # refused
client.list_tools(srver="weather")  # refused
print(client.list_tools()[0].tol)  # refused
agent.delegate("writer", "Write.", typ="research")  # refused
agent.request("writer", "Write.", typ="research")  # refused
agent.request("writer", "Write.", on_event=3)  # refused
agent.delegate("writer", "Write.").result(tiemout=3)  # refused
agent.peers(capabilty="prose")  # refused
agent.serve_tools("weather")  # refused
