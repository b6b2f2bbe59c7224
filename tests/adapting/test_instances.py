"""A host's instances: each conversation continues from the state after its previous turn, also without its instance."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mqtt_agent import Agent, TaskContext
from mqtt_agent.adapting.conversations import saved_by_task
from mqtt_agent.adapting.instances import WHOLE_EVERY, Instances
from mqtt_agent.errors import TaskFailed
from support import soon, until

from tests.agents.conftest import MakeAgent


class Clerk:
    """An instance that remembers everything that it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.closed = False

    async def save(self) -> dict[str, Any]:
        return {"told": self.told}

    async def load(self, saved: dict[str, Any]) -> None:
        self.told = list(saved["told"])

    async def close(self) -> None:
        self.closed = True
        if "break" in self.told:
            raise OSError("the drawer is stuck")


class Office:
    """A host with clerks. A turn fails for the prompt ``fail``, and waits for the prompt ``wait``."""

    def __init__(
        self, agent: Agent, limit: int = 10, max_concurrency: int = 8, whole_every: float = WHOLE_EVERY
    ) -> None:
        self.instances: Instances[Clerk] = Instances(agent, limit, max_concurrency, whole_every)
        self.stores_as_before = False
        self.made: list[Clerk] = []
        self.arrived = 0
        self.working = 0
        self.go_on = asyncio.Event()
        self.stuck: asyncio.Event | None = None
        """Set when the first attempt at a task has stored its turn; the attempt then never sends the answer."""
        agent.on_task(self.handle)

    async def make(self) -> Clerk:
        self.made.append(Clerk())
        return self.made[-1]

    async def handle(self, task: TaskContext) -> list[str]:
        self.arrived += 1
        if self.stores_as_before:
            await task.save({"told": [task.prompt], "answer": [task.prompt]})
            return [task.prompt or ""]

        async def turn(clerk: Clerk) -> list[str]:
            assert task.prompt is not None
            clerk.told.append(task.prompt)
            if task.prompt == "wait":
                self.working += 1
                await self.go_on.wait()
            if task.prompt == "fail":
                raise RuntimeError("no paper")
            return list(clerk.told)

        answer = await self.instances.take(task, task.context_id or task.id, task.data, self.make, turn)
        if self.stuck is not None and task.attempt == 1:
            self.stuck.set()
            await asyncio.Event().wait()
        return answer


async def test_turns_continue_with_the_same_instance(writer: Agent, planner: Agent) -> None:
    office = Office(writer)
    assert await soon(planner.request("writer", "a", task_id="t1", context_id="c")) == ["a"]
    assert await soon(planner.request("writer", "b", task_id="t2", context_id="c", data="t1")) == ["a", "b"]
    assert len(office.made) == office.instances.count == 1
    await office.instances.close()
    assert office.made[0].closed


async def test_a_turn_continues_from_the_stored_state_when_the_instance_left_the_memory(
    writer: Agent, planner: Agent
) -> None:
    office = Office(writer, limit=0)
    await soon(planner.request("writer", "a", task_id="t1", context_id="c"))
    assert office.instances.count == 0
    assert await soon(planner.request("writer", "b", context_id="c", data="t1")) == ["a", "b"]
    assert [clerk.closed for clerk in office.made] == [True, True]


async def test_a_turn_continues_from_an_earlier_state(writer: Agent, planner: Agent) -> None:
    office = Office(writer)
    await soon(planner.request("writer", "a", task_id="t1", context_id="c"))
    await soon(planner.request("writer", "b", task_id="t2", context_id="c", data="t1"))
    assert await soon(planner.request("writer", "c", context_id="c", data="t1")) == ["a", "c"]
    assert [clerk.closed for clerk in office.made] == [True, False]


async def test_a_turn_continues_from_each_of_many_states(writer: Agent, planner: Agent) -> None:
    office, words = Office(writer), [f"{number}".zfill(20) for number in range(40)]
    for number, word in enumerate(words):
        await soon(planner.request("writer", word, task_id=f"t{number}", context_id="c", data=last_of(number)))
    for number in (0, 1, 17, 39):
        branch = await soon(planner.request("writer", "b", context_id=f"d{number}", data=f"t{number}"))
        assert branch == [*words[: number + 1], "b"]
    assert len(office.made) == 5


def last_of(number: int) -> str | None:
    return f"t{number - 1}" if number else None


async def test_a_state_is_stored_whole_again_after_a_while(writer: Agent, planner: Agent) -> None:
    office = Office(writer, whole_every=0)
    for number, word in enumerate(["a" * 100, "b", "c"]):
        await soon(planner.request("writer", word, task_id=f"t{number}", context_id="c", data=last_of(number)))
    stored = [await saved_by_task(writer, f"t{number}", "planner") for number in range(3)]
    assert [each["told"] for each in stored] == [["a" * 100], ["a" * 100, "b"], ["a" * 100, "b", "c"]]
    assert len(office.made) == 1


async def test_a_turn_continues_from_a_state_that_an_older_version_stored(writer: Agent, planner: Agent) -> None:
    office = Office(writer)
    office.stores_as_before = True
    await soon(planner.request("writer", "a", task_id="t1", context_id="c"))
    office.stores_as_before = False
    assert await soon(planner.request("writer", "b", task_id="t2", context_id="c", data="t1")) == ["a", "b"]
    assert await soon(planner.request("writer", "c", context_id="d", data="t2")) == ["a", "b", "c"]


async def test_a_turn_whose_previous_state_is_not_stored_fails(writer: Agent, planner: Agent) -> None:
    office = Office(writer)
    with pytest.raises(TaskFailed, match="the state after turn t1 is not stored any more") as failed:
        await soon(planner.request("writer", "b", context_id="c", data="t1"))
    assert failed.value.code == "CONVERSATION_LOST"
    assert office.made == []


async def test_an_instance_whose_turn_failed_is_closed_and_the_next_turn_has_the_state_before(
    writer: Agent, planner: Agent
) -> None:
    office = Office(writer)
    await soon(planner.request("writer", "a", task_id="t1", context_id="c"))
    with pytest.raises(TaskFailed, match="no paper"):
        await soon(planner.request("writer", "fail", context_id="c", data="t1"))
    assert office.made[0].closed
    assert office.instances.count == 0
    assert await soon(planner.request("writer", "b", context_id="c", data="t1")) == ["a", "b"]


async def test_an_instance_is_at_work_only_during_its_turn_and_few_turns_run_at_once(
    writer: Agent, planner: Agent
) -> None:
    office = Office(writer, max_concurrency=1)
    turns = [asyncio.ensure_future(planner.request("writer", "wait", context_id=name)) for name in ("c", "d")]
    await until(lambda: office.working and office.arrived == 2)
    working = [name for name in ("c", "d") if office.instances.at_work(name) is not None]
    assert len(working) == office.working == 1
    office.go_on.set()
    assert await soon(asyncio.gather(*turns)) == [["wait"], ["wait"]]
    assert office.instances.at_work("c") is office.instances.at_work("d") is None


async def test_a_host_that_died_after_a_turn_sends_the_stored_answer(make_agent: MakeAgent, planner: Agent) -> None:
    agent = make_agent("writer")
    office = Office(agent)
    office.stuck = asyncio.Event()
    await soon(agent.start())
    waiting = asyncio.ensure_future(planner.request("writer", "a", wait_online=True))
    await soon(office.stuck.wait())
    await soon(agent.stop())
    again = make_agent("writer", store=agent.store)
    again.on_task(office.handle)
    await soon(again.start())
    assert await soon(waiting) == ["a"]
    assert len(office.made) == 1


async def test_an_instance_that_cannot_be_closed_is_told_and_the_conversation_goes_on(
    writer: Agent, planner: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    Office(writer, limit=0)
    await soon(planner.request("writer", "break", task_id="t1", context_id="c"))
    assert await soon(planner.request("writer", "b", context_id="c", data="t1")) == ["break", "b"]
    assert "the instance of conversation c could not be closed" in caplog.text
