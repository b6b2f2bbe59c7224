"""docs/langchain.md: its examples run, and each row of its table has its test."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import langchain.agents.factory
import pytest
from brokers import Embedded
from langchain_core.messages import AIMessage
from mqtt_agent import Agent, MemoryStore, TaskContext, ToolClient, ToolContext
from mqtt_agent.sync import ToolServer as SyncToolServer
from support import soon
from typing_extensions import TypedDict

from .models import ScriptedModel

HERE = Path(__file__).parent
TEXT = (HERE.parents[2] / "docs" / "langchain.md").read_text()


def example(holds: str) -> str:
    [found] = [code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if holds in code]
    return found


def test_every_row_of_the_table_is_backed_by_a_test() -> None:
    tests = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    rows = re.findall(r"^\|.*\| `(test_\w+)` \|$", TEXT, re.MULTILINE)
    assert len(rows) == 9
    for row in rows:
        assert f"def {row}(" in tests, row


def test_the_toolkit(embedded: Embedded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MQTT_AGENT_BROKER", embedded.url)
    model = ScriptedModel(responses=[AIMessage("Yes, 21 degrees")])
    monkeypatch.setattr(langchain.agents.factory, "init_chat_model", lambda name: model)
    exec(example("MQTTLiveTools(toolkit)"), {})
    assert "Yes, 21 degrees" in capsys.readouterr().out


async def test_the_remote_agent(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MQTT_AGENT_BROKER", embedded.url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    agent = Agent("researcher", store=MemoryStore())

    @agent.on_task
    async def handle(task: TaskContext) -> str:
        return f"about {task.prompt}"

    names: dict[str, Any] = {}
    async with agent:
        await soon(asyncio.to_thread(exec, example("MQTTRemoteAgent("), names), 20)
        await asyncio.to_thread(names["builder"].nodes["research"].runnable.close)
    assert "about Find papers on sleep" in capsys.readouterr().out


async def test_the_server(embedded: Embedded, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(example("serve_tools([add]"))
    environment = {**os.environ, "MQTT_AGENT_BROKER": embedded.url}
    server = subprocess.Popen([sys.executable, str(program)], env=environment)
    try:
        async with ToolClient("client", broker=embedded.url) as client:
            assert await client.call("add", {"a": 1, "b": 2}, wait_online=True, timeout=30) == 3
    finally:
        server.kill()
        server.wait(10)


def test_the_interceptors(embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_AGENT_BROKER", embedded.url)
    names: dict[str, Any] = {}
    exec(example("interceptors=[guard, repeat]"), names)
    with SyncToolServer("toolbox", broker=embedded.url) as server, names["toolkit"] as toolkit:

        def tenant(ctx: ToolContext) -> Any:
            assert ctx.meta is not None
            return ctx.meta["headers"]["tenant"]

        server.add_tool("delete", lambda: "deleted", description="Delete everything")
        server.add_tool("tenant", tenant, description="The tenant of the caller")
        tools = {tool.name: tool for tool in toolkit.get_tools()}

        class Guest(TypedDict):
            is_admin: bool

        model = ScriptedModel(
            responses=[
                *(AIMessage("", tool_calls=[{"name": name, "args": {}, "id": name}]) for name in ("delete", "tenant")),
                AIMessage("done"),
            ]
        )
        agent: Any = langchain.agents.factory.create_agent(model, list(tools.values()), context_schema=Guest)
        state = agent.invoke({"messages": [("user", "go")]}, context={"is_admin": False})
    told = [each.content for each in state["messages"] if each.type == "tool"]
    assert told == ["You may not delete anything.", "acme"]


def test_every_example_is_run() -> None:
    # The example planner.py runs in test_serve_verb.py.
    assert TEXT.count("```python") == 5
