"""A turn that takes longer than the process that asked for it runs, with the examples of docs/autogen.md."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, ThoughtEvent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_mqtt_agent import MQTTAgent, resume_team
from brokers import Mosquitto
from mqtt_agent import Agent, MemoryStore, SqliteStore, TaskContext
from mqtt_agent.agents.store import TaskKey
from support import becomes, soon, until

from .conversations import Counter
from .processes import PROGRAMS, HostProcess, Program
from .programs import graph_chat, long_chat, run_example
from .users import User


@pytest.fixture
def host(mosquitto: Mosquitto, namespace: str, tmp_path: Path) -> Iterator[HostProcess]:
    with HostProcess("make_marathon", "marathon", mosquitto.url, namespace, tmp_path, GATE=str(tmp_path)) as host:
        yield host


@pytest.fixture
async def state_file(host: HostProcess, mosquitto: Mosquitto, namespace: str, tmp_path: Path) -> AsyncIterator[Path]:
    """The state of a team whose process was killed during a silent remote turn; the turn continues."""
    file = tmp_path / "team.json"
    caller = Program("-m", PROGRAMS, mosquitto.url, namespace, str(tmp_path / "caller.db"), str(file))
    with caller:
        await until((tmp_path / "entered").exists, 60)
        await until(lambda: file.exists() and standing(file)["pending"] is not None, 30)
        caller.kill()
        yield file


def standing(file: Path, name: str = "marathon") -> dict[str, Any]:
    """The state of a participant, as the team's process saved it last."""
    return json.loads(file.read_text())["agent_states"][name]["agent_state"]


async def test_a_loaded_team_resumes_the_turn_that_was_under_way_and_goes_on(
    state_file: Path, mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    team, marathon = long_chat(mosquitto.url, namespace, str(tmp_path / "caller.db"))
    (tmp_path / "open").touch()
    names = {"json": json, "team": team, "resume_team": resume_team, "state_file": state_file}
    result = (await soon(run_example("resume_team(team)", **names), 30))["result"]
    said = [(each.source, each.to_text()) for each in result.messages if isinstance(each, BaseChatMessage)]
    assert said == [
        ("marathon", "1: ['Write a book.', 'plan']"),
        ("editor", "edited"),
        ("planner", "plan"),
        ("marathon", "2: ['Write a book.', 'plan', 'edited', 'plan']"),
        ("editor", "edited more"),
    ]
    assert await soon(marathon.resume()) is None
    await soon(marathon.close())


@pytest.mark.parametrize("right_is_done", [False, True])
async def test_a_graph_resumes_all_turns_that_were_under_way_before_its_joiner_runs(
    right_is_done: bool, mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    gates = [tmp_path / name for name in ("left", "right")]
    with ExitStack() as running:
        for gate in gates:
            gate.mkdir()
            more = {"GATE": str(gate), "BOOKINGS": str(gate / "bookings")}
            running.enter_context(HostProcess("make_clerk", gate.name, mosquitto.url, namespace, tmp_path, **more))
        if right_is_done:
            (gates[1] / "open").touch()
        file = tmp_path / "team.json"
        caller = Program("-m", PROGRAMS, mosquitto.url, namespace, str(tmp_path / "caller.db"), str(file), "graph")
        with caller:
            await until(lambda: all((gate / "entered").exists() for gate in gates), 60)
            pending = [True, not right_is_done]
            await until(lambda: file.exists() and waiting_for(file, gates) == pending, 30)
            caller.kill()
        for gate in gates:
            (gate / "open").touch()
        team = graph_chat(mosquitto.url, namespace, str(tmp_path / "caller.db"))
        await team.load_state(json.loads(file.read_text()))
        result = await soon(resume_team(team), 30)
        said = [(each.source, each.to_text()) for each in result.messages if isinstance(each, BaseChatMessage)]
        *branches, (last, joined) = said
        assert sorted(source for source, _ in branches) == (["left"] if right_is_done else ["left", "right"])
        begun = ["Write a book.", "1: ['Write a book.']"]
        assert (last, joined) == ("joiner", f"1: {[*begun, f'1: {begun}', f'1: {begun}']}")
        assert [(gate / "bookings").read_text().count("\n") for gate in gates] == [1, 1]
        for each in team._participants:
            if isinstance(each, MQTTAgent):
                await soon(each.close())


def waiting_for(file: Path, gates: Sequence[Path]) -> list[bool]:
    return [standing(file, gate.name)["pending"] is not None for gate in gates]


async def test_the_progress_of_a_resumed_turn_is_seen(
    state_file: Path, mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    team, marathon = long_chat(mosquitto.url, namespace, str(tmp_path / "caller.db"))
    await team.load_state(json.loads(state_file.read_text()))
    (tmp_path / "watched").touch()

    async def resume() -> list[Any]:
        seen = []
        async for each in marathon.resume_stream():
            seen.append(each)
            (tmp_path / "open").touch()  # the turn does not end before its progress has been seen
        return seen

    *events, response = await soon(resume(), 30)
    assert "still at it" in [event.content for event in events if isinstance(event, ThoughtEvent)]
    assert isinstance(response, Response)
    assert response.chat_message.to_text() == "1: ['Write a book.', 'plan']"
    await soon(marathon.close())


async def test_a_host_that_is_killed_as_well_takes_the_resumed_turn_again(
    host: HostProcess, state_file: Path, mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    team, marathon = long_chat(mosquitto.url, namespace, str(tmp_path / "caller.db"))
    await team.load_state(json.loads(state_file.read_text()))
    resuming = asyncio.create_task(marathon.resume())
    host.kill()
    (tmp_path / "open").touch()
    host.start()
    answer = await soon(resuming, 60)
    assert answer is not None
    assert answer.to_text() == "1: ['Write a book.', 'plan']"
    await soon(marathon.close())


async def test_a_turn_can_be_resumed_without_the_store_of_the_process_that_gave_it(
    state_file: Path, mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    team, marathon = long_chat(mosquitto.url, namespace, str(tmp_path / "other.db"))
    await team.load_state(json.loads(state_file.read_text()))
    (tmp_path / "open").touch()
    answer = await soon(marathon.resume(), 20)
    assert answer is not None
    assert answer.to_text() == "1: ['Write a book.', 'plan']"
    await soon(marathon.close())


async def test_only_the_same_agent_id_can_resume(state_file: Path, mosquitto: Mosquitto, namespace: str) -> None:
    stranger = MQTTAgent("marathon", broker=mosquitto.url, namespace=namespace, agent_id="stranger")
    await stranger.load_state(standing(state_file))
    with pytest.raises(ValueError, match="caller has given the turn"):
        await soon(stranger.resume())


async def test_a_loaded_team_without_a_turn_under_way_goes_on() -> None:
    team = RoundRobinGroupChat([Counter("one"), Counter("two")], max_turns=1)
    await team.run(task="go")
    other = RoundRobinGroupChat([Counter("one"), Counter("two")], max_turns=1)
    await other.load_state(await team.save_state())
    assert [each.to_text() for each in (await resume_team(other)).messages] == ["1: ['go', \"1: ['go']\"]"]  # type: ignore[union-attr]


async def test_a_question_that_was_answered_is_not_asked_again_in_a_new_process(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    second = asyncio.Event()
    asker = Agent("clerk", broker=mosquitto.url, namespace=namespace, store=MemoryStore())

    @asker.on_task
    async def handle(task: TaskContext) -> list[str]:
        first = await task.ask("which year")
        await second.wait()
        return [first, await task.ask("why")]

    options = {"broker": mosquitto.url, "namespace": namespace, "agent_id": "kiosk", "store": str(tmp_path / "k.db")}
    async with asker:
        with User(tmp_path / "killed", tmp_path / "none", "book", **options) as killed:
            await until(lambda: killed.questions and killed.standing["pending"] is not None, 60)
            task_id = killed.standing["pending"]
            await becomes(lambda: answered(tmp_path / "k.db", namespace, task_id))
            killed.kill()
        second.set()
        with User(tmp_path / "again", killed.saved, "book", **options) as again:
            await until(lambda: again.done, 60)
    assert (killed.questions, again.questions) == (["which year"], ["why"])
    assert json.loads(again.answer) == ["book to which year", "book to why"]


async def answered(store: Path, namespace: str, task_id: str) -> bool:
    """Whether the answer to the first question is stored."""
    async with SqliteStore(store) as opened:
        record = await opened.get(TaskKey(f"{namespace}/kiosk", "delegated", task_id))
    return record is not None and bool(record.inputs)
