"""Tasks on sender-bound topics: the topic says who speaks, and nobody else is believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import Agent, MemoryStore, TaskContext, errors
from mqtt_agent.wire import TaskState
from support import soon, until

from ..agents.conftest import MakeAgent
from .foreign import Foreign, ForeignExecutor, ForeignRequester

RUN_ON = ALL_BROKERS


class Work:
    def __init__(self) -> None:
        self.seen: list[TaskContext] = []
        self.go = asyncio.Event()

    async def handle(self, task: TaskContext) -> Any:
        self.seen.append(task)
        if task.prompt == "wait":
            await self.go.wait()
        if task.prompt == "ask":
            return await task.ask("Which year?")
        return task.data


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def writer(make_agent: MakeAgent, work: Work) -> AsyncIterator[Agent]:
    agent = make_agent("writer")
    agent.on_task(work.handle)
    await soon(agent.start())
    yield agent
    work.go.set()


@pytest.fixture
async def scout(broker: Broker, namespace: str) -> AsyncIterator[ForeignRequester]:
    """A foreign requester, which hears everything about its tasks."""
    peer = ForeignRequester(broker.url, namespace, "scout")
    await soon(peer.start("tasks/scout/results/+", "tasks/scout/events/+/+", "tasks/t-1/result", "tasks/t-1/events"))
    yield peer
    await soon(peer.stop())


@pytest.fixture
async def eve(broker: Broker, namespace: str) -> AsyncIterator[Foreign]:
    """A client that reads and writes whatever it likes, as on an open broker."""
    peer = Foreign(broker.url, namespace, "eve")
    await soon(peer.start("tasks/#"))
    yield peer
    await soon(peer.stop())


class BoundExecutor(ForeignExecutor):
    """A foreign executor ``scout`` that speaks sender-bound topics."""

    async def start(self, *topics: str) -> None:
        await super().start(f"tasks/{self.name}/inbox/+", f"tasks/{self.name}/control/+", *topics)
        card = {"name": self.name, "status": "online", "features": ["bound", "events", "get"]}
        await self.say(f"agents/{self.name}/card", card, retain=True)

    async def bound_task(self, count: int = 1) -> dict[str, Any]:
        return await self.next_on(f"tasks/{self.name}/inbox/planner", count)

    async def reply(self, task: dict[str, Any], topic: str, **fields: Any) -> None:
        result = {"task_id": task["task_id"], "status": "completed", **fields}
        await self.say(topic, result, correlation=task["task_id"].encode())


@pytest.fixture
async def executor(broker: Broker, namespace: str) -> AsyncIterator[BoundExecutor]:
    peer = BoundExecutor(broker.url, namespace, "scout")
    await soon(peer.start())
    yield peer
    await soon(peer.stop())


def about(heard: Foreign, task_id: str) -> set[str]:
    """The topics of the messages about a task."""
    readable = [each for each in list(heard.heard) if each.payload.startswith(b"{")]
    return {each.topic for each in readable if each.json["task_id"] == task_id}


@pytest.mark.rule("ABOUND-1", "ABOUND-2", "ABOUND-6")
@pytest.mark.parametrize("bound", ["prefer", "require"])
async def test_agents_that_speak_them_use_only_sender_bound_topics(
    bound: Any, make_agent: MakeAgent, work: Work, eve: Foreign
) -> None:
    writer, planner = make_agent("writer", bound=bound), make_agent("planner", bound=bound)
    writer.on_task(work.handle)
    for agent in (writer, planner):
        await soon(agent.start())
        assert agent.card.features is not None
        assert "bound" in agent.card.features
    task = await soon(planner.delegate("writer", "ask", task_id="t-1"))
    assert task.bound
    await until(lambda: task.question is not None)
    await soon(task.send(2024))
    assert await soon(task.result()) == 2024
    assert [event.status async for event in task.events()][-1] == "completed"
    assert await soon(planner.request("writer", data=1, task_id="t-2")) == 1
    assert [(task.sender, task.bound) for task in work.seen] == [("planner", True), ("planner", True)]
    await until(lambda: about(eve, "t-2") >= {"tasks/planner/results/writer"})
    assert about(eve, "t-1") == {
        "tasks/writer/inbox/planner",
        "tasks/writer/control/planner",
        "tasks/planner/events/writer/t-1",
        "tasks/planner/results/writer",
    }
    assert about(eve, "t-2") == {"tasks/writer/inbox/planner", "tasks/planner/results/writer"}


@pytest.mark.rule("ABOUND-3")
async def test_a_message_that_names_another_agent_than_its_topic_is_refused(
    writer: Agent, work: Work, scout: ForeignRequester
) -> None:
    task = {"task_id": "t-1", "prompt": "wait", "data": "secret"}
    await scout.say("tasks/writer/inbox/scout", {**task, "from": "planner"})
    await scout.say("tasks/writer/inbox/scout", {**task, "from": "scout"})
    await until(lambda: work.seen)
    await scout.say("tasks/writer/control/scout", {"task_id": "t-1", "action": "cancel", "from": "planner"})
    await scout.say("tasks/writer/control/eve", {"task_id": "t-1", "action": "cancel", "from": "scout"})
    await scout.say("tasks/writer/inbox/scout", {"task_id": "t-2", "data": 2})  # the topic is enough
    assert (await scout.next_on("tasks/scout/results/writer"))["task_id"] == "t-2"
    work.go.set()
    assert (await scout.next_on("tasks/scout/results/writer", 2))["result"] == "secret"
    assert [(task.id, task.sender) for task in work.seen] == [("t-1", "scout"), ("t-2", "scout")]


@pytest.mark.rule("ABOUND-4")
async def test_the_answer_goes_only_to_the_sender_in_the_topic(
    writer: Agent, work: Work, scout: ForeignRequester, eve: Foreign
) -> None:
    await scout.say("tasks/writer/inbox/scout", {"task_id": "t-1", "data": 1}, reply_to="tasks/eve/results")
    assert (await scout.next_on("tasks/scout/results/writer"))["result"] == 1
    await scout.say("tasks/writer/inbox/scout", b"junk", reply_to="tasks/planner/results", correlation=b"t-2")
    rejected = await scout.next_on("tasks/scout/results/writer", 2)
    assert (rejected["task_id"], rejected["to"], rejected["error"]["type"]) == ("t-2", "scout", "invalid_task")
    assert about(eve, "t-1") <= {
        "tasks/writer/inbox/scout", "tasks/scout/results/writer", "tasks/scout/events/writer/t-1"
    }  # fmt: skip


@pytest.mark.rule("ABOUND-5")
async def test_no_message_on_a_plain_topic_is_about_a_sender_bound_task(
    writer: Agent, work: Work, scout: ForeignRequester, eve: Foreign
) -> None:
    task = {"task_id": "t-1", "prompt": "wait", "data": "secret", "from": "scout"}
    await scout.say("tasks/writer/inbox/scout", task)
    await until(lambda: work.seen)
    await eve.say("tasks/writer/inbox", task, reply_to="tasks/t-1/result")
    assert (await eve.next_on("tasks/t-1/result"))["error"]["type"] == "conflict"
    await eve.say("tasks/writer/inbox", {"task_id": "t-1", "from": "scout"}, reply_to="tasks/t-1/result")
    assert (await eve.next_on("tasks/t-1/result", 2))["error"]["type"] == "not_found"
    for action in ("cancel", "get", "input"):
        word = {"task_id": "t-1", "action": action, "from": "scout"}
        await eve.say("tasks/writer/control", word, reply_to="tasks/t-1/result")
    work.go.set()
    assert (await scout.next_on("tasks/scout/results/writer"))["result"] == "secret"
    assert not any("secret" in str(each) for each in eve.on("tasks/t-1/result"))


@pytest.mark.rule("ABOUND-5")
async def test_a_requester_that_begins_to_speak_them_gets_its_open_task_on_them(
    writer: Agent, work: Work, scout: ForeignRequester
) -> None:
    task = {"task_id": "t-1", "prompt": "wait", "data": 1, "from": "scout"}
    await scout.say("tasks/writer/inbox", task, reply_to="tasks/scout/results")
    await until(lambda: work.seen)
    await scout.say("tasks/writer/inbox/scout", task)
    await scout.next_on("tasks/scout/events/writer/t-1")
    work.go.set()
    assert (await scout.next_on("tasks/scout/results/writer"))["result"] == 1
    assert len(work.seen) == 1


@pytest.mark.rule("ABOUND-5", "ABOUND-6")
async def test_the_events_of_a_task_arrive_when_its_peer_comes_back_without_them(
    make_agent: MakeAgent, executor: BoundExecutor
) -> None:
    planner = make_agent("planner")
    await soon(planner.start())
    task = await soon(planner.delegate("scout", task_id="t-1"))
    await executor.bound_task()
    assert task.bound
    await executor.show("offline")
    await executor.show("online", started="2999-01-01T00:00:00.000Z")  # a version that knows plain topics only
    again = await executor.next_task()
    assert not task.bound
    await executor.event(again, 1, "progress", content="half", progress=0.5)
    await executor.answer(again, **{"from": "scout", "to": "planner", "result": "done"})
    assert [event.content async for event in task.events() if event.type == "progress"] == ["half"]
    assert await soon(task.result()) == "done"


@pytest.mark.rule("ABOUND-7")
async def test_only_the_peer_of_a_sender_bound_task_is_believed(
    make_agent: MakeAgent, executor: BoundExecutor, eve: Foreign
) -> None:
    planner = make_agent("planner")
    await soon(planner.start())
    task = await soon(planner.delegate("scout", task_id="t-1"))
    heard = await executor.bound_task()
    assert heard["from"] == "planner"
    names = {"from": "scout", "to": "planner"}
    await executor.reply(heard, "tasks/planner/results", result="forged", **names)
    await executor.reply(heard, "tasks/t-1/result", result="forged", **names)
    await executor.reply(heard, "tasks/planner/results/eve", result="forged", to="planner")
    await executor.reply(heard, "tasks/planner/results/eve", result="forged", **names)
    for topic in ("tasks/planner/results", "tasks/planner/results/eve"):
        for _ in range(4):
            await eve.say(topic, b"junk", correlation=b"t-1")
    event = {"task_id": "t-1", "seq": 1, "type": "partial", "content": "forged"}
    for topic in ("tasks/t-1/events", "tasks/planner/events/eve/t-1"):
        await eve.say(topic, event)
    await executor.say("tasks/planner/events/scout/t-1", {**event, "seq": 2, "content": "right"})
    await executor.reply(heard, "tasks/planner/results/scout", result="right", seq=3)
    assert await soon(task.result()) == "right"
    assert [event.content async for event in task.events() if event.type == "partial"] == ["right"]


@pytest.mark.rule("ABOUND-7")
async def test_an_unreadable_result_of_the_peer_itself_ends_a_sender_bound_task(
    make_agent: MakeAgent, executor: BoundExecutor
) -> None:
    planner = make_agent("planner")
    await soon(planner.start())
    task = await soon(planner.delegate("scout", task_id="t-1"))
    await executor.bound_task()
    await executor.say("tasks/planner/results/scout", b"junk", correlation=b"t-1")
    with pytest.raises(errors.TaskFailed) as failed:
        await soon(task.result())
    assert failed.value.type == "unreadable_result"


@pytest.mark.rule("ABOUND-6")
async def test_agents_that_require_them_hear_and_send_nothing_on_plain_topics(
    make_agent: MakeAgent, work: Work, scout: ForeignRequester, broker: Broker, namespace: str
) -> None:
    writer = make_agent("writer", bound="require")
    writer.on_task(work.handle)
    await soon(writer.start())
    await scout.give("t-1", data=1)
    await scout.word("t-1", "get")
    await scout.say("tasks/writer/inbox/scout", {"task_id": "t-2", "data": 2})
    assert (await scout.next_on("tasks/scout/results/writer"))["task_id"] == "t-2"
    assert [task.id for task in work.seen] == ["t-2"]
    old = make_agent("old", bound="off")
    await soon(old.start())
    with pytest.raises(errors.PeerUnavailable, match="only on plain topics.*bound='require'"):
        await soon(writer.delegate("old"))


@pytest.mark.rule("ABOUND-6")
@pytest.mark.parametrize(("gives", "takes"), [("prefer", "off"), ("off", "prefer"), ("off", "off")])
async def test_agents_of_which_one_does_not_speak_them_use_plain_topics(
    gives: Any, takes: Any, make_agent: MakeAgent, work: Work, eve: Foreign
) -> None:
    writer, planner = make_agent("writer", bound=takes), make_agent("planner", bound=gives)
    writer.on_task(work.handle)
    await soon(writer.start())
    await soon(planner.start())
    task = await soon(planner.delegate("writer", "wait", data=1, task_id="t-1"))
    await until(lambda: "tasks/t-1/events" in about(eve, "t-1"))
    work.go.set()
    assert await soon(task.result()) == 1
    assert not task.bound
    assert not work.seen[0].bound
    plain = {"tasks/writer/inbox", "tasks/planner/results", "tasks/t-1/events"}
    await until(lambda: about(eve, "t-1") >= plain)
    assert about(eve, "t-1") == plain


@pytest.mark.rule("ABOUND-8")
async def test_only_allowed_requesters_give_tasks(make_agent: MakeAgent, work: Work, scout: ForeignRequester) -> None:
    writer = make_agent("writer", allowed_requesters=["planner"])
    writer.on_task(work.handle)
    planner = make_agent("planner")
    await soon(writer.start())
    await soon(planner.start())
    await scout.say("tasks/writer/inbox/scout", {"task_id": "t-1", "data": 1})
    rejected = await scout.next_on("tasks/scout/results/writer")
    assert (rejected["error"]["type"], rejected["error"]["code"]) == ("unauthorized", "NOT_ALLOWED")
    await scout.say("tasks/writer/control/scout", {"task_id": "t-1", "action": "cancel"})
    assert await soon(planner.request("writer", data=2)) == 2
    assert [task.sender for task in work.seen] == ["planner"]


@pytest.mark.rule("ABOUND-7")
async def test_a_restarted_requester_still_believes_only_the_peer(
    make_agent: MakeAgent, executor: BoundExecutor, eve: Foreign
) -> None:
    store = MemoryStore()
    planner = make_agent("planner", store=store)
    await soon(planner.start())
    await soon(planner.delegate("scout", task_id="t-1"))
    heard = await executor.bound_task()
    await soon(planner.stop())
    await executor.reply(heard, "tasks/planner/results", result="forged", to="planner", **{"from": "scout"})
    again = make_agent("planner", store=store)
    await soon(again.start())
    task = await soon(again.resume("t-1"))
    assert task.bound
    heard = await executor.bound_task(2)  # still on the sender-bound topic
    assert task.state is not TaskState.COMPLETED
    await executor.reply(heard, "tasks/planner/results/scout", result="right")
    assert await soon(task.result()) == "right"
