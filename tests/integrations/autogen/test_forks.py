"""A state that several users load gives each user a conversation of their own; a turn under way is continued."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from autogen_core import CancellationToken
from autogen_mqtt_agent import MQTTAgent
from brokers import Embedded, Mosquitto
from mqtt_agent import Agent, MemoryStore, TaskContext, TaskFailed
from support import soon, until

from .processes import HostProcess
from .test_agent import HELLO
from .users import User, write

BOOKED = "2: ['hello', 'book a room']"


@pytest.fixture
def options(mosquitto: Mosquitto, namespace: str) -> dict[str, Any]:
    return {"broker": mosquitto.url, "namespace": namespace}


@pytest.fixture
async def template(clerk: HostProcess, options: dict[str, Any], tmp_path: Path, bookings: Path) -> Path:
    """The state of a conversation that has begun with a greeting."""
    file = tmp_path / "template.json"
    first = MQTTAgent("clerk", absent="wait", agent_id="kiosk", store=tmp_path / "kiosk.db", **options)
    await soon(first.on_messages([HELLO], CancellationToken()), 60)
    write(file, await first.save_state())
    await soon(first.close())
    bookings.unlink()
    return file


async def test_a_user_cannot_continue_the_conversation_of_another_agent(
    template: Path, options: dict[str, Any], tmp_path: Path, bookings: Path
) -> None:
    user = MQTTAgent("clerk", agent_id="another", store=tmp_path / "another.db", **options)
    await user.load_state(json.loads(template.read_text()))
    with pytest.raises(TaskFailed, match="only kiosk can continue its conversation"):
        await soon(user.run(task="book a room"), 60)
    assert not bookings.exists()
    await soon(user.close())


async def test_users_of_one_agent_id_have_conversations_of_their_own_one_after_the_other(
    template: Path, options: dict[str, Any], tmp_path: Path, bookings: Path
) -> None:
    (tmp_path / "open").touch()
    for n in range(2):
        kiosk = {"agent_id": "kiosk", "store": str(tmp_path / "kiosk.db"), **options}
        with User(tmp_path / f"user{n}", template, "book a room", **kiosk) as user:
            await until(lambda: user.done, 60)
            assert user.answer == BOOKED
    assert len(set(bookings.read_text().split())) == 2


async def test_four_users_of_one_process_have_four_conversations_at_the_same_time(
    template: Path, options: dict[str, Any], tmp_path: Path, bookings: Path
) -> None:
    state = json.loads(template.read_text())
    kiosk = {"agent_id": "kiosk", "store": tmp_path / "kiosk.db", **options}
    users = [MQTTAgent("clerk", **kiosk) for _ in range(4)]
    for user in users:
        await user.load_state(state)
    turns = [asyncio.create_task(user.run(task="book a room")) for user in users]
    (tmp_path / "open").touch()
    results = await soon(asyncio.gather(*turns), 30)
    assert [result.messages[-1].to_text() for result in results] == [BOOKED] * 4
    states = [await user.save_state() for user in users]
    assert len({each["conversation_id"] for each in states}) == len({each["last_turn"] for each in states}) == 4
    assert sorted(bookings.read_text().split()) == sorted(f"bound:kiosk/{each['conversation_id']}" for each in states)
    for user in users:
        await soon(user.close())


async def test_a_killed_process_that_loads_its_state_and_says_the_same_again_gets_the_turn_that_is_under_way(
    template: Path, options: dict[str, Any], tmp_path: Path, bookings: Path
) -> None:
    kiosk = {"agent_id": "kiosk", "store": str(tmp_path / "kiosk.db"), **options}
    with User(tmp_path / "killed", template, "book a room", **kiosk) as killed:
        await until(lambda: (tmp_path / "entered").exists() and killed.standing["pending"] is not None, 60)
        killed.kill()
    with User(tmp_path / "again", killed.saved, "book a room", **kiosk) as again:
        await until(lambda: again.standing["pending"] is not None, 60)
        (tmp_path / "open").touch()
        await until(lambda: again.done, 60)
    assert again.answer == BOOKED
    assert len(bookings.read_text().split()) == 1
    assert again.standing["last_turn"] == killed.standing["pending"]


async def test_only_one_participant_gets_the_turn_under_way_by_saying_the_same_again(
    template: Path, options: dict[str, Any], tmp_path: Path, bookings: Path
) -> None:
    kiosk: dict[str, Any] = {"agent_id": "kiosk", "store": tmp_path / "kiosk.db", **options}
    first, second, third = (MQTTAgent("clerk", **kiosk) for _ in range(3))
    await first.load_state(json.loads(template.read_text()))
    turn = asyncio.create_task(first.run(task="book a room"))
    await until((tmp_path / "entered").exists, 30)
    pending = await first.save_state()
    for each in (second, third):
        await each.load_state(pending)
    turns = [turn, *(asyncio.create_task(each.run(task="book a room")) for each in (second, third))]
    (tmp_path / "open").touch()
    results = await soon(asyncio.gather(*turns), 30)
    assert [result.messages[-1].to_text() for result in results] == [BOOKED] * 3
    assert len(bookings.read_text().split()) == 2
    for each in (first, second, third):
        await soon(each.close())


async def test_a_turn_after_a_resumed_turn_begins_a_conversation_of_its_own(
    template: Path, options: dict[str, Any], tmp_path: Path, bookings: Path
) -> None:
    kiosk: dict[str, Any] = {"agent_id": "kiosk", "store": tmp_path / "kiosk.db", **options}
    users = [MQTTAgent("clerk", **kiosk) for _ in range(3)]
    await users[0].load_state(json.loads(template.read_text()))
    turn = asyncio.create_task(users[0].run(task="book a room"))
    await until((tmp_path / "entered").exists, 30)
    pending = await users[0].save_state()
    (tmp_path / "open").touch()
    await soon(turn, 30)
    for user in users[1:]:
        await user.load_state(pending)
        answer = await soon(user.resume(), 30)
        assert answer is not None
        assert answer.to_text() == BOOKED
    results = await soon(asyncio.gather(*(user.run(task="thanks") for user in users)), 30)
    assert [result.messages[-1].to_text() for result in results] == ["3: ['hello', 'book a room', 'thanks']"] * 3
    assert len(set(bookings.read_text().split())) == 3
    assert len(bookings.read_text().split()) == 4
    for user in users:
        await soon(user.close())


async def test_a_peer_without_autogen_is_told_what_was_said_before_in_a_conversation_that_goes_on_from_a_state(
    embedded: Embedded, namespace: str
) -> None:
    asked: list[TaskContext] = []
    peer = Agent("clerk", broker=embedded.url, namespace=namespace, store=MemoryStore())

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        asked.append(task)
        return f"answer {len(asked)}"

    async with peer:
        options: dict[str, Any] = {"broker": embedded.url, "namespace": namespace, "agent_id": "kiosk"}
        first, second = (MQTTAgent("clerk", store=store, **options) for store in [MemoryStore()] * 2)
        await soon(first.run(task="one"))
        saved = json.loads(json.dumps(await first.save_state()))
        await soon(first.run(task="two"))
        await second.load_state(saved)
        for words in ("two", "three"):
            await soon(second.run(task=words))
        for each in (first, second):
            await soon(each.close())
    contexts = [task.context_id for task in asked]
    assert contexts == [contexts[0], contexts[0], contexts[2], contexts[2]]
    assert contexts[0] != contexts[2]
    told = [[(message.role, message.content) for message in task.messages] for task in asked]
    before = [("user", "user: one"), ("agent", "answer 1")]
    assert told == [
        [("user", "user: one")],
        [("user", "user: two")],
        [*before, ("user", "user: two")],
        [("user", "user: three")],
    ]
