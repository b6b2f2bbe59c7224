"""A requester and an executor are attacked with messages that the broker allows, each in the attacker's own name."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from mqtt_agent import Agent, TaskContext, TaskHandle
from support import soon, until

from .conftest import Cast
from .endpoints import agent
from .raw import Raw

_numbers = itertools.count()


@dataclass
class Victims:
    """The requester ``agent-a`` and the executor ``writer``, with a task that runs until ``finish`` is set."""

    cast: Cast
    requester: Agent
    executor: Agent
    ran: list[tuple[str | None, Any]] = field(default_factory=list)
    finish: asyncio.Event = field(default_factory=asyncio.Event)

    async def delegate(self) -> TaskHandle:
        before = len(self.ran)
        task = await soon(self.requester.delegate("writer", data=f"task {next(_numbers)}"))
        await until(lambda: len(self.ran) > before)
        return task

    def attacker(self) -> Raw:
        raw = self.cast.attacker("agent-b")
        for kind in ("inbox/+", "control/+", "results/+", "events/+/+"):
            raw.subscribe(f"ns/tasks/agent-b/{kind}")
        return raw

    async def ends_well(self, task: TaskHandle) -> None:
        """The task of the victim has its own result, and its handler ran once."""
        self.finish.set()
        assert await soon(task.result()) == "true"
        assert [sender for sender, _ in self.ran].count("agent-a") == 1


@pytest.fixture
async def victims(cast: Cast) -> AsyncIterator[Victims]:
    cast.forget("agent-a", "writer")
    requester, executor = agent(cast, "agent-a"), agent(cast, "writer")
    victims = Victims(cast, requester, executor)

    @executor.on_task
    async def write(task: TaskContext) -> str:
        victims.ran.append((task.sender, task.data))
        await victims.finish.wait()
        return "true"

    async with executor, requester:
        yield victims
        victims.finish.set()


def body(**values: Any) -> bytes:
    if "sender" in values:
        values["from"] = values.pop("sender")
    return json.dumps(values).encode()


async def test_a_task_that_names_another_requester_is_not_run(victims: Victims) -> None:
    attacker = victims.attacker()
    task = body(task_id="named-a", sender="agent-a", to="writer", data="forged")
    assert attacker.publish("ns/tasks/writer/inbox/agent-b", task, correlation="named-a") == 0
    await victims.ends_well(await victims.delegate())
    assert "forged" not in [data for _, data in victims.ran]


async def test_the_result_goes_to_the_requester_whatever_the_response_topic_says(victims: Victims) -> None:
    attacker, audit = victims.attacker(), victims.cast.victim("audit")
    victims.finish.set()
    task_id = f"diverted-task-{next(_numbers)}"
    task = body(task_id=task_id, sender="agent-b", to="writer", data="x")
    elsewhere = "ns/tasks/agent-a/results/writer"
    assert attacker.publish("ns/tasks/writer/inbox/agent-b", task, response_topic=elsewhere, correlation=task_id) == 0
    await until(lambda: any(task_id in each.payload.decode() and "/results/" in each.topic for each in attacker.heard))
    victims.cast.attacker("agent-b")
    await victims.ends_well(await victims.delegate())
    answers = {each.topic for each in audit.heard if task_id in each.payload.decode() and "/results/" in each.topic}
    assert answers == {"ns/tasks/agent-b/results/writer"}


async def test_the_id_of_a_foreign_task_cannot_be_occupied_afterwards(victims: Victims) -> None:
    task = await victims.delegate()
    attacker = victims.attacker()
    same = body(task_id=task.task_id, sender="agent-b", to="writer", data="same id")
    assert attacker.publish("ns/tasks/writer/inbox/agent-b", same, correlation=task.task_id) == 0
    await until(lambda: ("agent-b", "same id") in victims.ran)
    await victims.ends_well(task)


async def test_the_id_of_a_foreign_task_cannot_be_occupied_before(victims: Victims) -> None:
    attacker, task_id = victims.attacker(), f"occupied-{next(_numbers)}"
    same = body(task_id=task_id, sender="agent-b", to="writer", data="first")
    assert attacker.publish("ns/tasks/writer/inbox/agent-b", same, correlation=task_id) == 0
    await until(lambda: ("agent-b", "first") in victims.ran)
    task = await soon(victims.requester.delegate("writer", data="second", task_id=task_id))
    await until(lambda: ("agent-a", "second") in victims.ran)
    await victims.ends_well(task)


@pytest.mark.parametrize("name", ["agent-a", "agent-b", None])
@pytest.mark.parametrize("action", ["cancel", "input", "get"])
async def test_a_foreign_task_cannot_be_controlled(victims: Victims, action: str, name: str | None) -> None:
    task = await victims.delegate()
    attacker = victims.attacker()
    before = len(attacker.heard)
    control = body(task_id=task.task_id, action=action, input="forged", **({} if name is None else {"sender": name}))
    assert attacker.publish("ns/tasks/writer/control/agent-b", control) == 0
    await victims.ends_well(task)
    assert all(b"true" not in each.payload for each in attacker.heard[before:])


@pytest.mark.parametrize("name", ["agent-b", "writer", None])
@pytest.mark.parametrize("status", ["completed", "failed", "rejected", "canceled"])
async def test_a_foreign_agent_cannot_send_the_result(victims: Victims, status: str, name: str | None) -> None:
    task = await victims.delegate()
    attacker = victims.attacker()
    values = {"task_id": task.task_id, "to": "agent-a", "status": status, "result": "forged"}
    result = body(**values, **({} if name is None else {"sender": name}))
    assert attacker.publish("ns/tasks/agent-a/results/agent-b", result, correlation=task.task_id) == 0
    await victims.ends_well(task)


async def test_an_unreadable_result_of_a_foreign_agent_ends_no_task(victims: Victims) -> None:
    task = await victims.delegate()
    attacker = victims.attacker()
    assert attacker.publish("ns/tasks/agent-a/results/agent-b", b"\xff no JSON", correlation=task.task_id) == 0
    await victims.ends_well(task)


async def test_a_foreign_agent_cannot_send_events(victims: Victims) -> None:
    seen: list[Any] = []
    before = len(victims.ran)
    asked = asyncio.create_task(victims.requester.request("writer", data="x", on_event=seen.append))
    await until(lambda: len(victims.ran) > before)
    attacker, audit = victims.attacker(), victims.cast.victim("audit")
    victims.cast.settle("audit") if False else None
    known = await victims.requester.delegations("working")
    for handle in known:
        event = body(task_id=handle.task_id, seq=99, type="partial", content="forged", sender="writer", to="agent-a")
        assert attacker.publish(f"ns/tasks/agent-a/events/agent-b/{handle.task_id}", event) < 0x80
    assert audit is not None
    victims.finish.set()
    assert await soon(asked) == "true"
    assert "forged" not in [event.content for event in seen]


async def test_a_captured_task_cannot_be_run_again(victims: Victims) -> None:
    audit = victims.cast.victim("audit")
    task = await victims.delegate()
    await until(lambda: any(task.task_id in each.payload.decode() for each in audit.heard if "/inbox/" in each.topic))
    captured = next(each for each in audit.heard if "/inbox/" in each.topic and task.task_id in each.payload.decode())
    await victims.ends_well(task)
    attacker = victims.attacker()
    for _ in range(2):
        assert attacker.publish(captured.topic, captured.payload, correlation=task.task_id) >= 0x80
        assert attacker.publish("ns/tasks/writer/inbox/agent-b", captured.payload, correlation=task.task_id) < 0x80
        assert await soon(victims.requester.request("writer", data="after"), 20) == "true"
        assert [sender for sender, data in victims.ran if data != "after"] == ["agent-a"]
        await soon(victims.executor.stop())
        await soon(victims.executor.start(), 20)
