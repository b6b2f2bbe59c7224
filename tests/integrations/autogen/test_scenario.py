"""A group chat of four, two of them on other hosts: one is killed in the middle, and one is cut off for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from autogen_agentchat.base import ChatAgent, TaskResult
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_mqtt_agent import MQTTAgent
from brokers import Mosquitto
from proxy import Proxy
from support import soon, until

from .conftest import Toolbox
from .processes import HostProcess
from .programs import make_critic, make_editor, make_planner, make_researcher

CUT_OFF_FOR = 15.0


def transcript(result: TaskResult) -> list[tuple[str, str, str]]:
    return [(type(each).__name__, each.source, each.to_text()) for each in result.messages]


def chat(researcher: ChatAgent, critic: ChatAgent) -> RoundRobinGroupChat:
    return RoundRobinGroupChat([make_planner(), researcher, make_editor(), critic], max_turns=8)


async def test_the_transcript_is_that_of_the_same_chat_in_one_process(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLS_BROKER", mosquitto.url)
    monkeypatch.setenv("TOOLS_NAMESPACE", namespace)
    researching, criticising = (tmp_path / name for name in ("researching", "criticising"))
    for folder in (researching, criticising):
        folder.mkdir()
    async with Toolbox(mosquitto.url, namespace), Proxy(mosquitto.url) as proxy:
        researcher = make_researcher()
        local = await soon(chat(researcher, make_critic()).run(task="go"), 30)
        await researcher._workbench[0].stop()

        tmp, store = tmp_path, tmp_path / "team.db"
        host_a = HostProcess("make_researcher", "researcher", mosquitto.url, namespace, tmp, GATE=str(researching))
        host_b = HostProcess("make_critic", "critic", proxy.url, namespace, tmp, GATE=str(criticising))
        with host_a, host_b:
            remote = [
                MQTTAgent(name, broker=mosquitto.url, namespace=namespace, agent_id="team", store=store, absent="wait")
                for name in ("researcher", "critic")
            ]
            running = asyncio.create_task(chat(*remote).run(task="go"))

            # After its tool call, and before it has said what it makes of that.
            await until((researching / "entered").exists, 30)
            host_a.kill()
            host_a.start()
            await until(lambda: len((researching / "entered").read_text().split()) == 2, 30)
            (researching / "open").touch()

            # In the middle of a turn: it goes on and answers, and nobody hears it.
            await until((criticising / "entered").exists, 30)
            await proxy.cut()
            (criticising / "open").touch()
            done, _ = await asyncio.wait({running}, timeout=CUT_OFF_FOR)
            assert not done
            await proxy.mend()

            result = await soon(running, 60)
        for agent in remote:
            await agent.close()
    assert transcript(result) == transcript(local)
    said = [text for kind, _, text in transcript(result) if kind in ("TextMessage", "ToolCallSummaryMessage")]
    assert said == ["go", "plan", "it is 5", "edited", "good", "plan more", "she says so", "edited more", "better"]
    assert len(set((researching / "entered").read_text().split())) == 2
