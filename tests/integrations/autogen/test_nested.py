"""A hosted team whose participant lives on another host again: the work there is done once, also after a kill."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from autogen_mqtt_agent import MQTTAgent
from brokers import Mosquitto
from support import soon, until

from .processes import HostProcess


@pytest.fixture
def office(
    clerk: HostProcess, mosquitto: Mosquitto, namespace: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[HostProcess]:
    factory = getattr(request, "param", "make_office")
    more = {"BROKER": mosquitto.url, "NAMESPACE": namespace, "STORE": str(tmp_path / "office-asks.db")}
    with HostProcess(factory, "office", mosquitto.url, namespace, tmp_path, **more) as host:
        yield host


@pytest.fixture
def options(mosquitto: Mosquitto, namespace: str) -> dict[str, Any]:
    return {"broker": mosquitto.url, "namespace": namespace, "absent": "wait"}


@pytest.mark.parametrize("office", ["make_office", "make_boss"], indirect=True)
async def test_a_host_that_is_killed_in_a_turn_gets_the_answer_to_the_turn_that_it_gave(
    office: HostProcess, options: dict[str, Any], tmp_path: Path, bookings: Path
) -> None:
    caller = MQTTAgent("office", **options)
    running = asyncio.create_task(caller.run(task="book a room"))
    await until((tmp_path / "entered").exists, 60)
    office.kill()
    office.start()
    (tmp_path / "open").touch()
    assert (await soon(running, 60)).messages[-1].to_text() == "1: ['book a room']"
    assert len(bookings.read_text().split()) == 1
    office.kill()  # between turns
    office.start()
    assert (await soon(caller.run(task="thanks"), 60)).messages[-1].to_text() == "2: ['book a room', 'thanks']"
    for name in ("open", "entered"):
        (tmp_path / name).unlink()
    running = asyncio.create_task(caller.run(task="book again"))
    await until((tmp_path / "entered").exists, 60)
    office.kill()  # in a later turn
    office.start()
    (tmp_path / "open").touch()
    everything = ["book a room", "thanks", "book again"]
    assert (await soon(running, 60)).messages[-1].to_text() == f"3: {everything}"
    assert len(bookings.read_text().split()) == 3
    # One conversation with the clerk. The first turn may have been given before the clerk had shown its card.
    assert len({name.rpartition("/")[2] for name in bookings.read_text().split()}) == 1
    await soon(caller.close())


async def test_a_host_that_is_stopped_in_its_turn_lets_the_turn_that_it_gave_go_on(
    office: HostProcess, options: dict[str, Any], tmp_path: Path, bookings: Path
) -> None:
    caller = MQTTAgent("office", **options)
    await soon(caller.run(task="hello"), 60)
    running = asyncio.create_task(caller.run(task="book a room"))
    await until((tmp_path / "entered").exists, 60)
    office.stop()
    (tmp_path / "open").touch()
    await until(lambda: len(bookings.read_text().split()) == 2, 30)
    office.start()
    assert (await soon(running, 60)).messages[-1].to_text() == "2: ['hello', 'book a room']"
    assert len(bookings.read_text().split()) == 2
    await soon(caller.close())


async def test_the_users_of_a_hosted_team_have_conversations_of_their_own_with_its_participant_too(
    office: HostProcess, options: dict[str, Any], tmp_path: Path, bookings: Path
) -> None:
    (tmp_path / "open").touch()
    first = MQTTAgent("office", **options)
    await soon(first.run(task="hello"), 60)
    users = [MQTTAgent("office", **options) for _ in range(2)]
    for user in users:
        await user.load_state(await first.save_state())
    results = await soon(asyncio.gather(*(user.run(task="book a room") for user in users)), 60)
    assert [each.messages[-1].to_text() for each in results] == ["2: ['hello', 'book a room']"] * 2
    assert len(set(bookings.read_text().split())) == 3
    for each in (first, *users):
        await soon(each.close())


async def test_a_turn_that_was_canceled_is_given_again_by_the_next_turn_of_the_host(
    office: HostProcess, options: dict[str, Any], tmp_path: Path, bookings: Path
) -> None:
    caller = MQTTAgent("office", **options)
    running = asyncio.create_task(caller.run(task="book a room"))
    await until((tmp_path / "entered").exists, 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (tmp_path / "open").touch()
    assert (await soon(caller.run(task="book a room"), 60)).messages[-1].to_text() == "1: ['book a room']"
    await soon(caller.close())
