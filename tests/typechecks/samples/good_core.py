"""What users write with mqtt_agent: both type checkers accept it, and know the types."""

from collections.abc import AsyncIterator

from mqtt_agent import (
    TLS,
    Agent,
    AgentCard,
    CallHandle,
    Connection,
    MemoryStore,
    Password,
    PeerChange,
    TaskContext,
    TaskEvent,
    TaskHandle,
    TaskState,
    ToolCard,
    ToolChange,
    ToolClient,
    ToolContext,
    ToolServer,
)
from mqtt_agent.agents import PeerList
from mqtt_agent.tools import ServerList, ToolList
from typing_extensions import assert_type

server = ToolServer("weather", credentials=Password("name", "secret"), max_concurrency=4)
agent = Agent("writer", store=MemoryStore(), tls=TLS(ca="ca.pem"), capabilities=["prose"])


@server.tool
async def forecast(city: str, days: int = 3) -> dict[str, float]:
    return {city: float(days)}


@server.tool(name="crawl", read_only=True, timeout=10)
async def crawl(url: str, ctx: ToolContext) -> int:
    await ctx.stream(url)
    await ctx.progress(1, total=2, message="half")
    return len(url)


@server.tool
def add(a: int, b: int) -> int:
    return a + b


@agent.on_task
async def write(task: TaskContext) -> str:
    await task.save({"page": 1})
    assert_type(task.prompt, str | None)
    assert_type(task.attempt, int)
    return task.prompt or ""


@agent.on_task("research")
async def research(task: TaskContext) -> list[str]:
    return [task.id]


async def use_the_decorated_functions(ctx: ToolContext, task: TaskContext) -> None:
    assert_type(await forecast("Oslo", days=2), dict[str, float])
    assert_type(await crawl("https://example.org", ctx), int)
    assert_type(add(1, b=2), int)
    assert_type(await write(task), str)
    assert_type(await research(task), list[str])
    server.add_tool("sum", add, idempotent=True)


async def call_tools() -> None:
    async with ToolClient("caller", broker="mqtt://localhost:1883") as client:
        assert_type(client, ToolClient)
        assert_type(client.agent_id, str)
        assert_type(client.connection, Connection)
        assert_type(await client.list_tools(server="weather"), ToolList)
        assert_type(await client.list_servers(), ServerList)
        assert_type(await client.get_tool("forecast"), ToolCard | None)
        assert_type(client.watch_tools(), AsyncIterator[ToolChange])
        handle = await client.submit("forecast", {"city": "Oslo"}, timeout=3)
        assert_type(handle, CallHandle)
        assert_type(handle.done, bool)
        assert_type(handle.server, str | None)
        degrees: float = await client.call("forecast", {"city": "Oslo"}, timeout=3)
        print(degrees, await handle.result())


async def give_tasks() -> None:
    async with agent:
        assert_type(await agent.peers(capability="prose"), PeerList)
        assert_type(await agent.peer("writer"), AgentCard | None)
        assert_type(agent.watch_peers(), AsyncIterator[PeerChange])
        task = await agent.delegate("writer", "Write.", type="research")
        assert_type(task, TaskHandle)
        assert_type(task.state, TaskState)
        assert_type(task.question, TaskEvent | None)
        assert_type(task.events(), AsyncIterator[TaskEvent])
        assert_type(await agent.resume(task.task_id), TaskHandle)
        assert_type(await agent.delegations(), list[TaskHandle])
        assert_type(agent.card, AgentCard)
        assert_type(agent.tool_client, ToolClient)
        await agent.serve_tools(server)
        result: str = await agent.request("writer", "Write.", timeout=60)
        print(result)
