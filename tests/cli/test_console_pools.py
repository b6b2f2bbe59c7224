"""The console shows the members of pools, in a real browser."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from databases import shared_postgres
from mqtt_agent.cli.console import pools as looking
from mqtt_agent.cli.console.pools import Pools
from mqtt_agent.cli.console.work import Work
from support import soon, until

from .terminal import Terminal, address

MEMBER = """
import asyncio, os, sys
from mqtt_agent import Agent, PostgresStore

store = PostgresStore(sys.argv[1], lease=2)
agent = Agent("crowd", pool=True, store=store, max_concurrency=1, namespace=os.environ["MQTT_AGENT_NAMESPACE"])

@agent.on_task
async def work(task):
    await asyncio.Event().wait()

async def main():
    async with agent:
        print("takes tasks", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

STRANGER = """
import asyncio, os, sys
from mqtt_agent.transport import Connection
from mqtt_agent.wire import AgentStatus, Topics, encode

async def main():
    topics, connection = Topics(os.environ["MQTT_AGENT_NAMESPACE"]), Connection()
    await connection.start()
    status = AgentStatus(name="crowd", status="online", started=sys.argv[1], pool=True, member="invented")
    await connection.publish(topics.agent_status("crowd"), encode(status), retain=True)
    print("published", flush=True)

asyncio.run(main())
"""


@pytest.mark.long
def test_the_members_of_a_pool_are_shown_and_who_has_which_task(terminal: Terminal, page: Any) -> None:
    url = shared_postgres().new_database()
    terminal.write("member.py", MEMBER)
    terminal.write("stranger.py", STRANGER)
    members = [terminal.program("member.py", url) for _ in range(2)]
    for each in members:
        each.says("takes tasks")
    page.goto(address(terminal.start("console", "--store", url)))
    page.locator("#pools .group", has_text="2 of 2 online").wait_for()
    for number in (1, 2):
        terminal.inside("delegate", "crowd", "paint", "--task-id", f"t-{number}", "--detach", "--as", "planner")
    page.locator("#pools .group", has_text="2 tasks").wait_for()
    terminal.program("stranger.py", "2026-01-01T00:00:00.000Z").says("published")
    where = ("--store", url, "--as", "crowd", "--json")
    having = {each["task_id"]: each["member"] for each in terminal.inside("tasks", "--received", *where).lines}
    assert set(having) == {"t-1", "t-2"}
    assert len(set(having.values())) == 2
    for task_id, member in having.items():
        page.locator("#pools tr", has_text=member).get_by_text(task_id).wait_for()
        page.locator("#tasks tr", has_text=task_id).get_by_text(member).wait_for()
    assert "invented" not in page.locator("#pools").inner_text() + page.locator("#tasks").inner_text()
    page.locator("#pools a", has_text="crowd").click()
    page.locator(".members li", has_text=having["t-1"]).get_by_text("t-1").wait_for()
    page.locator("#detail textarea").first.fill("a long prompt")
    members[0].kill()  # the other member does no second task at once
    dead = page.locator(".members li").nth(1)
    dead.wait_for(state="detached")
    assert page.locator("#detail textarea").first.input_value() == "a long prompt"
    page.get_by_text("back").click()
    page.locator("#pools .group", has_text="1 of 1 online").wait_for()
    members[1].kill()
    page.locator("#pools tr", has_text="lease ended").wait_for()


async def test_the_store_is_read_only_while_a_page_is_open_and_no_error_ends_the_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[str] = []
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def found(*_: object) -> dict[str, Any]:
        looks.append("look")
        if len(looks) == 1:
            raise RuntimeError("no such column")
        return {}

    monkeypatch.setattr(looking, "pools", found)
    monkeypatch.setattr(looking, "_EVERY", 0.0)
    store: Any = None
    pools = Pools(store, "a2a/v1", Work(False, None, str))
    running = asyncio.create_task(pools.run(lambda: seen.put_nowait(pools.fault)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert looks == []
    pools.watched.set()
    assert await soon(seen.get()) == "RuntimeError: no such column"
    assert await soon(seen.get()) == ""
    pools.watched.clear()
    await until(lambda: seen.empty() or seen.get_nowait() == "")
    before = len(looks)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(looks) <= before + 1  # the look that had begun
    running.cancel()
