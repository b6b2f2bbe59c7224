from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Embedded
from browsers import started_chromium
from mqtt_agent.sync import ToolServer

from .terminal import Terminal

WEATHER = '''
import asyncio
from mqtt_agent import ToolContext

def forecast(city: str, days: int = 3, tags: list[str] = []) -> dict:
    """Weather forecast for a city."""
    return {"city": city, "days": days, "tags": tags}

async def slow(ctx: ToolContext) -> str:
    """Reports its progress."""
    await ctx.progress(1, 2, "half")
    await ctx.stream("a part")
    return "done"

async def endless(ctx: ToolContext) -> None:
    await ctx.stream("begun")
    try:
        await asyncio.Event().wait()
    finally:
        print("the handler was canceled", flush=True)

def broken() -> None:
    raise ValueError("no wind\\x1b[31m")
'''
WRITER = """
from mqtt_agent import Agent

agent = Agent("writer", namespace=__import__("os").environ["MQTT_AGENT_NAMESPACE"], description="Writes.")

@agent.on_task
async def write(task):
    await task.progress(1, 2, "thinking")
    if task.prompt == "ask":
        return "you said " + await task.ask("Which colour?")
    if task.prompt == "fail":
        raise ValueError("no idea")
    return f"a text about {task.prompt}"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal of the whole module. This process serves the tools of ``weather`` and the agent of ``writer``."""
    with Embedded() as broker, pytest.MonkeyPatch.context() as patch:
        terminal = Terminal(tmp_path_factory.mktemp("served"), broker.url, "served/v1")
        for name in ("MQTT_AGENT_BROKER", "MQTT_AGENT_NAMESPACE", "XDG_STATE_HOME"):
            patch.setenv(name, terminal.environment[name])
        weather, writer = dict[str, Any](), dict[str, Any]()
        exec(WEATHER, weather)
        exec(WRITER.replace("from mqtt_agent ", "from mqtt_agent.sync "), writer)
        server = ToolServer("weather", namespace="served/v1")
        for name in ("forecast", "slow", "endless", "broken"):
            server.tool(weather[name])
        with server, writer["agent"]:
            yield terminal
        terminal.close()


@pytest.fixture
def terminal(embedded: Embedded, namespace: str, tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in a folder with the modules ``weather`` and ``writer``."""
    terminal = Terminal(tmp_path, embedded.url, namespace)
    terminal.write("weather.py", WEATHER)
    terminal.write("writer.py", WRITER)
    terminal.write("wrong.py", "1 / 0")
    yield terminal
    terminal.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from started_chromium()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of a new session of the browser, whose scripts must raise nothing."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    assert page.errors == []
    context.close()
