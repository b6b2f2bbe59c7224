"""What users write with mqtt_agent.sync: both type checkers accept it, and know the types."""

from collections.abc import Iterator

from mqtt_agent import AgentCard, Connection, MemoryStore, PeerChange, TaskEvent, ToolCard, ToolChange
from mqtt_agent.agents import PeerList
from mqtt_agent.sync import Agent, CallHandle, TaskContext, TaskHandle, ToolClient, ToolContext, ToolServer
from mqtt_agent.tools import ServerList, ToolList
from typing_extensions import assert_type

server = ToolServer("weather", replica="one", max_concurrency=4)
agent = Agent("writer", store=MemoryStore(), capabilities=["prose"])


@server.tool
def forecast(city: str, days: int = 3) -> dict[str, float]:
    return {city: float(days)}


@server.tool(name="crawl", read_only=True, timeout=10)
def crawl(url: str, ctx: ToolContext) -> int:
    ctx.stream(url)
    return len(url)


@server.tool
async def add(a: int, b: int) -> int:
    return a + b


@agent.on_task
def write(task: TaskContext) -> str:
    task.save({"page": 1})
    return task.prompt or ""


@agent.on_task("research")
def research(task: TaskContext) -> list[str]:
    return [task.id]


async def use_the_decorated_functions(ctx: ToolContext, task: TaskContext) -> None:
    assert_type(forecast("Oslo", days=2), dict[str, float])
    assert_type(crawl("https://example.org", ctx), int)
    assert_type(await add(1, b=2), int)
    assert_type(write(task), str)
    assert_type(research(task), list[str])
    server.add_tool("sum", add, idempotent=True)


def call_tools() -> None:
    with ToolClient("caller", broker="mqtt://localhost:1883") as client:
        assert_type(client, ToolClient)
        assert_type(client.agent_id, str)
        assert_type(client.connection, Connection)
        assert_type(client.list_tools(server="weather"), ToolList)
        assert_type(client.list_servers(), ServerList)
        assert_type(client.get_tool("forecast"), ToolCard | None)
        assert_type(client.watch_tools(), Iterator[ToolChange])
        handle = client.submit("forecast", {"city": "Oslo"}, timeout=3)
        assert_type(handle, CallHandle)
        assert_type(handle.done, bool)
        assert_type(handle.cancel("not needed"), None)
        degrees: float = client.call("forecast", {"city": "Oslo"}, timeout=3)
        print(degrees, handle.result())


def give_tasks() -> None:
    with agent:
        assert_type(agent.peers(capability="prose"), PeerList)
        assert_type(agent.peer("writer"), AgentCard | None)
        assert_type(agent.watch_peers(), Iterator[PeerChange])
        task = agent.delegate("writer", "Write.", type="research")
        assert_type(task, TaskHandle)
        assert_type(task.question, TaskEvent | None)
        assert_type(task.events(), Iterator[TaskEvent])
        assert_type(agent.resume(task.task_id), TaskHandle)
        assert_type(agent.delegations(), list[TaskHandle])
        assert_type(agent.tool_client, ToolClient)
        agent.serve_tools(server)
        result: str = agent.request("writer", "Write.", timeout=60, on_event=print)
        print(result, task.result(timeout=3))
