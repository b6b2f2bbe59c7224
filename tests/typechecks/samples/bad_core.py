"""Mistakes in code with mqtt_agent: both type checkers refuse each line that is marked."""

from mqtt_agent import Agent, TaskContext, ToolClient, ToolServer

server = ToolServer("weather")
agent = Agent("writer")
ToolClient("caller", namspace="a2a/v1")  # refused
ToolServer("weather", replca="one")  # refused
Agent("writer", stor="writer.db")  # refused
Agent(3)  # refused


@server.tool(nme="crawl")  # refused
async def crawl(url: str) -> int:
    return len(url)


@server.tool
async def forecast(city: str) -> str:
    return city


@agent.on_task
async def write(task: TaskContext) -> str:
    return ""


@agent.on_task(3)  # refused
async def research(task: TaskContext) -> str:
    return ""


async def use() -> None:
    await forecast(3)  # refused
    await write("a task")  # refused
    server.add_tool("forecast", forecast, idempotnt=True)  # refused
    async with ToolClient("caller") as client:
        await client.call("forecast", tiemout=3)  # refused
        await client.call("forecast", ["Oslo"])  # refused
        await client.submit("forecast", tiemout=3)  # refused
        await client.list_tools(srver="weather")  # refused
        print((await client.list_tools())[0].tol)  # refused
    await agent.delegate("writer", "Write.", typ="research")  # refused
    await agent.request("writer", "Write.", typ="research")  # refused
    await agent.request("writer", "Write.", on_event=3)  # refused
    (await agent.delegate("writer", "Write.")).resul()  # refused
    await agent.serve_tools("weather")  # refused
