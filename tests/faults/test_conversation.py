"""A conversation of three agents on three hosts. The network of one host is cut during the conversation."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import Mosquitto, die_with_parent
from hosts import hosts
from processes import AgentProcesses
from support import require, soon

EXAMPLE = Path(__file__).parents[2] / "examples" / "conversation.py"
CUT = 20.0
PARTS = 60


@pytest.mark.timeout(180)
async def test_a_chain_of_tasks_is_complete_though_the_host_in_its_middle_was_cut_off(agents: AgentProcesses) -> None:
    require(Mosquitto)
    async with hosts(("a", "b", "c")) as network:
        first, middle, last = await asyncio.gather(
            *(
                agents.start(name, network.url(name), executes=True, prefix=network.prefix(name))
                for name in ("a", "b", "c")
            )
        )
        parts = {"b": 2, "c": PARTS}
        await first.delegate("b", "talk", listen=True, n=7, parts=parts, part_seconds=0.4, via=["c"])
        await first.tells("partial", content="c 5")
        await network.cut("b")
        await asyncio.sleep(CUT)  # the outage itself: no event is awaited here
        assert first.told("partial", content=f"c {PARTS - 1}") == []
        assert middle.told("began")[-1]["attempt"] == 1
        await network.mend("b")
        result = await first.result("talk", within=90)
        await agents.close()
    said = [[f"{name} {number}" for number in range(count)] for name, count in parts.items()]
    assert result == {"square": 49, "parts": said[0], "from": {"square": 49, "parts": said[1]}}
    assert [event["content"] for event in first.told("partial")] == [*said[0], *said[1]]
    assert agents.executions == {"talk": 1, "talk-c": 1}
    assert len(last.told("began")) == 1


def test_the_example_tells_what_comes_back_over_two_agents() -> None:
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=60, check=True)
    pages = [f"reading page {number} on octopuses" for number in range(1, 6)]
    assert done.stdout.splitlines() == [*pages, "the writer sends an article from 5 pages"]


async def test_the_example_goes_on_where_it_was_when_an_agent_is_killed(
    mosquitto: Mosquitto, tmp_path: Path, namespace: str
) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "MQTT_AGENT_BROKER": mosquitto.url}

    async def start(name: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-u",
            str(EXAMPLE),
            name,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            preexec_fn=die_with_parent,
        )

    async def line(process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        return (await soon(process.stdout.readline(), 30)).decode().strip()

    running = {name: await start(name) for name in ("archive", "writer")}
    try:
        for process in running.values():
            await line(process)
        editor = running["editor"] = await start("editor")
        assert await line(editor) == "reading page 1 on octopuses"
        running["archive"].kill()
        await running["archive"].wait()
        running["archive"] = await start("archive")
        said = [await line(editor)]
        while said[-1].startswith("reading"):
            said.append(await line(editor))
        assert said[-1] == "the writer sends an article from 5 pages"
        assert said[-2] == "reading page 5 on octopuses"
    finally:
        for process in running.values():
            if process.returncode is None:
                process.kill()
            await process.wait()
