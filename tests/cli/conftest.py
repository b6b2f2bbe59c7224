from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Embedded

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
    """A terminal of the whole module, with the tools of ``weather`` and the agent of ``writer`` served."""
    with Embedded() as broker:
        terminal = Terminal(tmp_path_factory.mktemp("served"), broker.url, "served/v1")
        terminal.write("weather.py", WEATHER)
        terminal.write("writer.py", WRITER)
        serving = [terminal.start("serve", "weather"), terminal.start("serve", "writer")]
        for each, text in zip(serving, ("serves", "takes tasks"), strict=True):
            each.says(text)
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
