"""The example of docs/a2a.md, run word for word, and the verbs as a person types them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from brokers import Embedded, free_port
from cli.terminal import Terminal
from mqtt_agent import Agent, MemoryStore
from support import becomes, soon

from .conftest import MakeGateway

PAGE = Path(__file__).parents[3] / "docs/a2a.md"


async def test_the_gateway_of_the_page_shows_the_agent(
    embedded: Embedded, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    port = free_port()
    program = code.replace(
        'broker="mqtt://localhost"', f"broker={embedded.url!r}, namespace={namespace!r}, store=store"
    )
    program = program.replace("8080", str(port)).replace("asyncio.run(main())", "")
    names: dict[str, Any] = {"store": MemoryStore()}
    exec(program, names)
    agent = Agent("researcher", broker=embedded.url, namespace=namespace, store=MemoryStore())
    agent.on_task(lambda task: f"notes on {task.prompt}")
    message = {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": "MQTT"}]}
    headers = {"A2A-Version": "1.0", "Authorization": "Bearer a-long-secret"}
    async with agent, httpx.AsyncClient(headers=headers) as http:
        serving = asyncio.ensure_future(names["main"]())
        url = f"http://127.0.0.1:{port}/agents/researcher"

        async def answers() -> bool:
            try:
                return (await http.get(f"{url}/.well-known/agent-card.json")).status_code == 200
            except httpx.TransportError:
                return False

        await becomes(answers, 30)
        answer = await soon(http.post(f"{url}/message:send", json={"message": message}), 20)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert answer.json()["task"]["artifacts"][0]["parts"] == [{"text": "notes on MQTT"}]
    assert capsys.readouterr().out == "['researcher']\n"


def test_each_test_that_the_page_names_exists() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PAGE.read_text())
    assert named
    assert [each for each in named if f"def {each}(" not in text] == []


@pytest.mark.long
def test_a_wrong_command_line_says_what_to_do(terminal: Terminal) -> None:
    said = terminal.run("a2a", "serve", "--host", "0.0.0.0", code=2).err
    assert "other machines can reach 0.0.0.0" in said
    said = terminal.run("a2a", "join", "http://127.0.0.1:1", "--agent-id", "x", code=2).err
    assert "http://127.0.0.1:1 has no readable A2A card" in said


@pytest.mark.long
async def test_a_remote_agent_joins_by_the_command_line(
    worker: Agent, make_gateway: MakeGateway, terminal: Terminal, namespace: str
) -> None:
    far = await make_gateway()
    terminal.environment["MQTT_AGENT_NAMESPACE"] = f"{namespace}-near"
    joined = await asyncio.to_thread(terminal.start, "a2a", "join", f"{far.url}/agents/worker", "--agent-id", "helper")
    await asyncio.to_thread(joined.says, "helper does tasks at")
    asked = await asyncio.to_thread(terminal.run, "delegate", "helper", "hello")
    assert "hello by alice" in asked.out
    assert await asyncio.to_thread(joined.interrupt) == 130
