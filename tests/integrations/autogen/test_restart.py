"""A turn that takes longer than the life of the process that asked for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, ThoughtEvent
from autogen_mqtt_agent import MQTTAgent
from brokers import Mosquitto
from mqtt_agent import Agent, MemoryStore
from support import becomes, soon, until

from .processes import PROGRAMS, HostProcess, Program
from .programs import long_chat


@pytest.fixture
async def saved(mosquitto: Mosquitto, namespace: str, tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """The state of a team whose process was killed in the middle of a turn elsewhere, which goes on."""
    host = HostProcess("make_marathon", "marathon", mosquitto.url, namespace, tmp_path, GATE=str(tmp_path))
    file = tmp_path / "team.json"
    with host:
        async with Agent("probe", broker=mosquitto.url, namespace=namespace, store=MemoryStore()) as probe:
            await becomes(lambda: probe.peers(), 30)
        caller = Program("-m", PROGRAMS, mosquitto.url, namespace, str(tmp_path / "caller.db"), str(file))
        with caller:
            await until(file.exists, 30)
            caller.kill()
        yield json.loads(file.read_text())


async def test_a_loaded_team_resumes_the_turn_that_was_under_way_and_goes_on(
    saved: dict[str, Any], mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    team, marathon = long_chat(mosquitto.url, namespace, str(tmp_path / "caller.db"))
    await team.load_state(saved)

    async def resume() -> list[Any]:
        seen = []
        async for each in marathon.resume_stream():
            seen.append(each)
            (tmp_path / "open").touch()  # it is not done before its progress has been seen
        return seen

    *events, response = await soon(resume(), 20)
    assert "still at it" in [event.content for event in events if isinstance(event, ThoughtEvent)]
    assert isinstance(response, Response)
    assert response.chat_message.to_text() == "1: ['go', 'plan']"
    assert await soon(marathon.resume()) is None

    result = await soon(team.run(task=response.chat_message), 20)
    said = [(each.source, each.to_text()) for each in result.messages if isinstance(each, BaseChatMessage)]
    assert said == [
        ("marathon", "1: ['go', 'plan']"),
        ("editor", "edited"),
        ("planner", "plan"),
        ("marathon", "2: ['go', 'plan', 'edited', 'plan']"),
        ("editor", "edited more"),
    ]
    await soon(marathon.close())


async def test_a_turn_can_be_resumed_without_the_store_of_the_process_that_gave_it(
    saved: dict[str, Any], mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    team, marathon = long_chat(mosquitto.url, namespace, str(tmp_path / "other.db"))
    await team.load_state(saved)
    (tmp_path / "open").touch()
    answer = await soon(marathon.resume(), 20)
    assert answer is not None
    assert answer.to_text() == "1: ['go', 'plan']"
    await soon(marathon.close())


async def test_only_the_same_agent_id_can_resume(saved: dict[str, Any], mosquitto: Mosquitto, namespace: str) -> None:
    stranger = MQTTAgent("marathon", broker=mosquitto.url, namespace=namespace, agent_id="stranger")
    await stranger.load_state(saved["agent_states"]["marathon"]["agent_state"])
    with pytest.raises(ValueError, match="caller has given the turn"):
        await soon(stranger.resume())
