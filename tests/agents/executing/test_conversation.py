"""The name of a conversation: no requester gets into the conversation of a requester whose name is proven."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent import Agent, TaskContext
from mqtt_agent.agents.executing.context import SyncTaskContext
from mqtt_agent.agents.executing.conversation import context_of, conversation_of
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.agents.store.base import VERIFIED
from support import soon

from tests.agents.conftest import MakeAgent


@dataclass
class Asked:
    id: str = "t1"
    sender: str | None = "planner"
    bound: bool = False
    verified: str | None = None


BOUND = Asked(bound=True)
SIGNED = Asked(verified="planner")
names = st.one_of(st.none(), st.text(), st.from_regex(r"(bound|signed|plain)(-task)?:(planner|spy)/.*"))
strangers = st.builds(Asked, st.sampled_from(["t1", "t2"]), st.sampled_from([None, "planner", "spy"]))


@pytest.mark.rule("ABOUND-9")
@pytest.mark.parametrize("victim", [BOUND, SIGNED], ids=["bound", "signed"])
@given(name=names, stranger=strangers, its_name=names)
def test_no_name_of_an_unproven_stranger_is_that_of_a_proven_conversation(
    victim: Asked, name: str | None, stranger: Asked, its_name: str | None
) -> None:
    assert conversation_of(stranger, its_name) != conversation_of(victim, name)


@given(name=names, its_name=names)
def test_no_name_of_another_proven_requester_is_that_of_a_proven_conversation(
    name: str | None, its_name: str | None
) -> None:
    for stranger in (Asked(sender="spy", bound=True), Asked(sender="spy", verified="spy")):
        for victim in (BOUND, SIGNED):
            assert conversation_of(stranger, its_name) != conversation_of(victim, name)
    assert conversation_of(BOUND, its_name) != conversation_of(SIGNED, name)


@given(name=names)
def test_a_name_that_was_made_once_stays_as_it_is(name: str | None) -> None:
    for asked in (BOUND, SIGNED):
        made = conversation_of(asked, name)
        assert conversation_of(asked, made) == made


def test_without_proof_a_conversation_has_the_name_that_its_requesters_give() -> None:
    assert conversation_of(Asked(), "trip") == conversation_of(Asked(sender="other"), "trip") == "trip"
    assert conversation_of(Asked(), None) == conversation_of(Asked(), "") == "planner/t1"
    assert conversation_of(BOUND, "trip") == "bound:planner/trip"
    assert conversation_of(SIGNED, None) == "signed-task:planner/t1"


async def test_a_handler_knows_the_conversation_of_its_task(writer: Agent, make_agent: MakeAgent) -> None:
    told: list[str] = []

    @writer.on_task("async")
    async def handle(task: TaskContext) -> None:
        told.append(task.conversation)

    @writer.on_task("plain")
    def handle_in_a_thread(task: SyncTaskContext) -> None:
        told.append(task.conversation)

    planner, older = make_agent("planner"), make_agent("older", bound="off")
    await soon(planner.start())
    await soon(older.start())
    for kind in ("async", "plain"):
        await soon(planner.request("writer", type=kind, context_id="trip", wait_online=True))
        await soon(older.request("writer", type=kind, context_id="trip", wait_online=True))
    await soon(older.request("writer", type="async", context_id="bound:planner/trip"))
    assert told == ["bound:planner/trip", "trip"] * 2 + ["plain:bound:planner/trip"]


async def test_a_task_on_a_plain_topic_never_counts_as_bound(make_agent: MakeAgent) -> None:
    """The result topic of a task with the id ``results`` ends like a sender-bound topic of the agent ``result``."""
    executor, older = make_agent("result"), make_agent("older", bound="off")

    @executor.on_task
    async def handle(task: TaskContext) -> bool:
        return task.bound

    await soon(executor.start())
    await soon(older.start())
    assert not executor._replies.is_bound(older._topics.task_result("results"))
    assert executor._replies.is_bound(older._topics.bound.results("older", "result"))


def test_the_tasks_of_two_proven_requesters_are_never_in_one_context() -> None:
    def record(requester: str, **task: object) -> TaskRecord:
        given = {"task_id": "t1", "from": requester, "context_id": "main", **task}
        return TaskRecord(TaskKey("ns/writer", "received", "t1", requester), requester, given, "digest")

    assert context_of(record("planner"), bound=True) != context_of(record("spy"), bound=True)
    signed = [context_of(record(name, **{VERIFIED: True}), bound=False) for name in ("planner", "spy")]
    assert len(set(signed)) == 2
    assert context_of(record("planner"), bound=False) == context_of(record("spy"), bound=False) == "main"
    assert context_of(record("planner", context_id=None), bound=True) is None
