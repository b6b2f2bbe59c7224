"""Whole systems with ``bound="require"`` and exactly the generated rights: everything works, and nothing is denied."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from databases import shared_postgres
from mqtt_agent import Agent, TaskContext, ToolContext, ToolServer, errors
from skips import inapplicable
from support import soon, until

from .attempts import ROSTER
from .conftest import Cast
from .endpoints import agent, client, server, settings

_MEMBERS = ("has no shared subscriptions: every subscriber gets each message",)  # what a member of a pool says there


@asynccontextmanager
async def clean(cast: Cast, caplog: pytest.LogCaptureFixture) -> AsyncIterator[AsyncExitStack]:
    """A system on a broker where no raw client is connected. Afterwards, nobody was denied anything."""
    cast.forget(*(login.user for login in ROSTER.logins()), *(login.server_id or "" for login in ROSTER.logins()))
    before = len(cast.broker.log)
    async with AsyncExitStack() as stack:
        yield stack
    denials = [line for line in cast.broker.log[before:].splitlines() if "denied" in line.lower()]
    assert denials == []
    told = [each for each in caplog.records if each.name.startswith("mqtt_agent") and each.levelno >= logging.WARNING]
    expected = () if cast.broker.shares else ("has no shared subscriptions: one", *_MEMBERS, "keeps sessions for 300 s")
    texts = [each.getMessage() for each in told]
    assert [text for text in texts if not any(known in text for known in expected)] == []


async def test_tools_work_with_the_generated_rights(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    async with clean(cast, caplog) as stack:
        for replica in ("1", "2"):
            await stack.enter_async_context(server(cast, replica))
        web = await stack.enter_async_context(client(cast))
        assert [card.tool for card in await soon(web.list_tools())] == ["forecast"]
        seen: list[Any] = []
        results = [
            await soon(web.call("forecast", {"city": f"city {n}"}, on_partial=seen.append, timeout=20))
            for n in range(6)
        ]
        assert [each["city"] for each in results] == seen == [f"city {n}" for n in range(6)]
        assert all(each["client"] == "web" and each["bound"] for each in results)
        assert len({each["replica"] for each in results}) == (2 if cast.broker.shares else 1)
        handle = await soon(web.submit("forecast", {"city": "nowhere"}))
        assert await soon(anext(handle.partials())) == "nowhere"
        await handle.cancel()
        with pytest.raises(errors.CallCanceled):
            await soon(handle.result())


async def test_a_rolling_restart_works_with_the_generated_rights(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    async with clean(cast, caplog) as stack:
        first, second = server(cast, "1"), server(cast, "2")
        await first.start()
        web = await stack.enter_async_context(client(cast))
        assert (await soon(web.call("forecast", {"city": "Oslo"}, timeout=20)))["replica"] == "1"
        await second.start()
        await soon(first.stop())
        assert (await soon(web.call("forecast", {"city": "Oslo"}, timeout=20)))["replica"] == "2"
        again = await stack.enter_async_context(server(cast, "1"))
        await soon(second.stop())
        assert (await soon(web.call("forecast", {"city": "Oslo"}, timeout=20)))["replica"] == again.replica


def test_the_log_of_mosquitto_shows_a_denial(cast: Cast) -> None:
    if not cast.broker.shares:
        inapplicable("ejabberd logs no denials; its endpoints get the reason codes")
    before = len(cast.broker.log)
    assert cast.attacker("agent-b").publish("ns/tasks/writer/inbox/agent-a", b"forged") == 0x87
    assert "denied" in cast.broker.log[before:].lower()


async def test_agents_work_with_the_generated_rights(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    async with clean(cast, caplog) as stack:
        writer, planner = agent(cast, "writer"), agent(cast, "agent-a")

        @writer.on_task
        async def write(task: TaskContext) -> Any:
            await task.progress(1, 2, "half")
            await task.stream(f"part for {task.sender}")
            if task.data == "ask":
                return await task.ask("Well?")
            return [task.sender, task.bound]

        await stack.enter_async_context(writer)
        await stack.enter_async_context(planner)
        seen: list[Any] = []
        assert await soon(planner.request("writer", data=1, on_event=seen.append), 20) == ["agent-a", True]
        assert "partial" in [event.type for event in seen]
        task = await soon(planner.delegate("writer", data="ask"))
        await until(lambda: task.question)
        await soon(task.send("yes"))
        assert await soon(task.result()) == "yes"
        task = await soon(planner.delegate("writer", data="ask"))
        await until(lambda: task.question)
        await soon(task.cancel())
        with pytest.raises(errors.TaskCanceled):
            await soon(task.result())


async def test_agents_with_tools_work_with_the_generated_rights(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    """An agent hosts a tool server, another one calls tools in its task, and a client calls the hosted tool."""
    async with clean(cast, caplog) as stack:
        desk, writer, planner = agent(cast, "desk"), agent(cast, "writer"), agent(cast, "agent-a")
        files = ToolServer("files", replica="desk", namespace="ns")

        @files.tool
        async def read_file(path: str, ctx: ToolContext) -> str:
            return f"{path} for {ctx.client}"

        await desk.serve_tools(files)

        @writer.on_task
        async def write(task: TaskContext) -> Any:
            weather = await writer.tool_client.call("forecast", {"city": task.prompt}, timeout=20)
            return [weather["client"], await writer.tool_client.call("read_file", {"path": "a"}, timeout=20)]

        for endpoint in (server(cast, "1"), desk, writer, planner):
            await stack.enter_async_context(endpoint)
        assert await soon(planner.request("writer", "Oslo"), 30) == ["writer", "a for writer"]
        web = await stack.enter_async_context(client(cast))
        assert await soon(web.call("read_file", {"path": "b"}, timeout=20), 20) == "b for web"
        assert await soon(planner.tool_client.call("read_file", {"path": "c"}, timeout=20), 20) == "c for agent-a"


async def test_the_members_of_a_pool_work_with_a_login_each(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    url, done = shared_postgres().new_database(), Counter[str]()
    async with clean(cast, caplog) as stack:
        planner = await stack.enter_async_context(agent(cast, "agent-a"))
        for name in ("1", "2"):
            client_id = ROSTER.login(f"pool-a.{name}").client_id
            where = settings(cast, f"pool-a.{name}")
            member = Agent("pool-a", pool=True, store=url, client_id=client_id, **where)

            async def work(task: TaskContext, name: str = name) -> str:
                done[name] += 1
                return name

            member.on_task(work)
            await stack.enter_async_context(member)
            assert member.connection.client_id == client_id
        results = await soon(
            asyncio.gather(*(planner.request("pool-a", f"{n}", wait_online=True) for n in range(8))), 30
        )
        assert done == Counter(results)
        assert done.keys() == ({"1", "2"} if cast.broker.shares else done.keys())
