"""A requester asks for its tasks by their ids, and nobody else learns anything by asking."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import Agent, MemoryStore, TaskContext, TaskState
from mqtt_agent.agents.executing import early_cancels, executor, inbox
from mqtt_agent.agents.peers import Peers
from mqtt_agent.agents.requesting import reminders, resender
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.transport import Connection
from mqtt_agent.wire import Task
from support import soon, until

from ..agents.conftest import MakeAgent
from .foreign import Foreign, ForeignExecutor, ForeignRequester, Heard

RUN_ON = ALL_BROKERS
ANSWERS = "tasks/scout/results/writer"


class SlowStore(MemoryStore):
    """A store that reads nothing before the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.works = asyncio.Event()

    async def get(self, key: TaskKey) -> TaskRecord | None:
        await self.works.wait()
        return await super().get(key)


class Executor(ForeignExecutor):
    """A foreign executor ``scout`` that speaks sender-bound topics, and has these features too."""

    def __init__(self, *args: Any, features: Iterable[str]) -> None:
        super().__init__(*args)
        self._features = ["bound", *features]

    async def start(self, *topics: str) -> None:
        await super().start("tasks/scout/inbox/+", "tasks/scout/control/+", *topics)
        card = {"name": self.name, "status": "online", "features": self._features}
        await self.say("agents/scout/card", card, retain=True)

    def given(self) -> list[Heard]:
        return self.raw("tasks/scout/inbox/planner")

    def questions(self) -> list[Heard]:
        return [each for each in self.raw("tasks/scout/control/planner") if each.json["action"] == "get"]

    async def question(self, count: int = 1) -> dict[str, Any]:
        await until(lambda: len(self.questions()) >= count)
        return self.questions()[count - 1].json

    async def say_unknown(self, *task_ids: str, topic: str = "tasks/planner/results/scout") -> None:
        fault = {"type": "not_found", "code": "UNKNOWN_TASK", "message": "?", "data": {"task_ids": list(task_ids)}}
        answer = {"task_id": task_ids[0], "from": "scout", "to": "planner", "status": "rejected", "error": fault}
        await self.say(topic, answer)


@pytest.fixture
async def scout(broker: Broker, namespace: str, request: pytest.FixtureRequest) -> AsyncIterator[Executor]:
    peer = Executor(broker.url, namespace, "scout", features=getattr(request, "param", ["ask", "events", "get"]))
    await soon(peer.start())
    yield peer
    await soon(peer.stop())


@pytest.fixture
async def requester(broker: Broker, namespace: str) -> AsyncIterator[ForeignRequester]:
    peer = ForeignRequester(broker.url, namespace, "scout")
    await soon(peer.start("tasks/scout/results/+", "tasks/scout/events/+/+"))
    yield peer
    await soon(peer.stop())


@pytest.fixture
async def eve(broker: Broker, namespace: str) -> AsyncIterator[Foreign]:
    """A client that reads what any client with its name may read, and all topics of single tasks."""
    peer = Foreign(broker.url, namespace, "eve")
    await soon(peer.start("tasks/eve/results", "tasks/eve/results/+", "tasks/eve/events/+/+", "tasks/+/result"))
    yield peer
    await soon(peer.stop())


@pytest.fixture
async def writer(make_agent: MakeAgent) -> AsyncIterator[Agent]:
    agent, go = make_agent("writer"), asyncio.Event()

    @agent.on_task
    async def handle(task: TaskContext) -> Any:
        if task.prompt == "wait":
            await go.wait()
        return task.data

    await soon(agent.start())
    yield agent
    go.set()


@pytest.fixture
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays: 10 s become a fifth of a second."""
    monkeypatch.setattr(resender, "_ANSWERED_WITHIN", 0.01)
    monkeypatch.setattr(reminders, "_FIRST", 0.2)


async def started(make_agent: MakeAgent, **options: Any) -> Agent:
    planner = make_agent("planner", **options)
    await soon(planner.start())
    return planner


# The requester


@pytest.mark.rule("ASK-10", "ACARD-2")
async def test_a_requester_asks_with_the_ids_of_its_tasks_and_sends_none_again(
    make_agent: MakeAgent, scout: Executor
) -> None:
    store = MemoryStore()
    planner = await started(make_agent, store=store)
    for number in range(3):
        await soon(planner.delegate("scout", "write", task_id=f"t-{number}"))
    await soon(planner.stop())
    await soon(planner.start())
    asked = await scout.question()
    assert asked["task_ids"] == ["t-0", "t-1", "t-2"]
    assert (asked["task_id"], asked["from"]) == ("t-0", "planner")
    heard = scout.questions()[0]
    assert heard.response_topic == f"{scout.namespace}/tasks/planner/results/scout"
    assert heard.correlation == b"t-0"
    assert [task.json["task_id"] for task in scout.given()] == ["t-0", "t-1", "t-2"]


@pytest.mark.rule("ASK-10")
@pytest.mark.parametrize("scout", [["events", "get"], []], indirect=True, ids=["old", "oldest"])
async def test_an_executor_that_does_not_know_questions_gets_the_tasks(
    in_no_time: None, make_agent: MakeAgent, scout: Executor
) -> None:
    planner = await started(make_agent)
    task = await soon(planner.delegate("scout", "write", task_id="t-1"))
    await until(lambda: len(scout.given()) >= 3)
    assert scout.questions() == []
    await scout.say("tasks/planner/results/scout", {"task_id": "t-1", "status": "completed", "result": 1})
    assert await soon(task.result()) == 1


async def test_the_peers_of_open_tasks_are_looked_up_at_the_same_time(
    make_agent: MakeAgent, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, names = MemoryStore(), [f"scout-{number}" for number in range(5)]
    for name in names:
        task = Task(task_id=name, sender="planner", to=name, prompt="write")
        key = TaskKey(f"{namespace}/planner", "delegated", name)
        await store.add(TaskRecord(key, name, task.as_json(), task.digest))
    is_away, begun, running, most = Peers.is_away, 0, 0, 0

    async def counted(self: Peers, name: str) -> bool:
        nonlocal begun, running, most
        begun, running = begun + 1, running + 1
        if begun <= len(names):
            most = max(most, running)
        try:
            return await is_away(self, name)
        finally:
            running -= 1

    monkeypatch.setattr(Peers, "is_away", counted)
    await started(make_agent, store=store)
    await until(lambda: begun >= len(names))
    assert most == len(names)


@pytest.mark.rule("ASK-10", "ASK-5")
async def test_a_cancel_is_sent_again_and_not_a_question(
    in_no_time: None, make_agent: MakeAgent, scout: Executor
) -> None:
    planner = await started(make_agent)
    task = await soon(planner.delegate("scout", "write", task_id="t-1"))
    await soon(task.cancel())
    asked = len(scout.questions())
    await until(lambda: sum(each["action"] == "cancel" for each in scout.on("tasks/scout/control/planner")) >= 3)
    assert len(scout.questions()) == asked


@pytest.mark.rule("CTRL-10")
async def test_many_cancels_share_a_message(make_agent: MakeAgent, scout: Executor) -> None:
    planner = await started(make_agent)
    tasks = [await soon(planner.delegate("scout", "write", task_id=f"t-{number}")) for number in range(120)]
    await soon(asyncio.gather(*(task.cancel("too late") for task in tasks)))

    def told() -> list[dict[str, Any]]:
        return [each for each in scout.on("tasks/scout/control/planner") if each["action"] == "cancel"]

    def canceled() -> list[str]:
        return [task_id for each in told() for task_id in each.get("task_ids", [each["task_id"]])]

    await until(lambda: len(canceled()) >= 120)
    assert sorted(canceled()) == sorted(task.task_id for task in tasks)
    assert {each["reason"] for each in told()} == {"too late"}
    assert all(each["task_id"] == each.get("task_ids", [each["task_id"]])[0] for each in told())
    assert len(told()) <= 10


@pytest.mark.rule("CTRL-10")
async def test_cancels_that_are_too_large_for_one_message_are_sent_one_by_one_and_also_again(
    in_no_time: None, make_agent: MakeAgent, scout: Executor, broker: Broker, namespace: str
) -> None:
    client_id = f"planner-{namespace.replace('/', '-')}"
    connection = Connection(broker.url, client_id=client_id, max_packet_size=2000)
    planner = await started(make_agent, connection=connection)
    names = [str(number) * 200 for number in range(10)]
    tasks = [await soon(planner.delegate("scout", "write", task_id=name)) for name in names]
    await soon(asyncio.gather(*(task.cancel() for task in tasks)))

    def told() -> Counter[str]:
        said = [each for each in scout.on("tasks/scout/control/planner") if each["action"] == "cancel"]
        return Counter(task_id for each in said for task_id in each.get("task_ids", [each["task_id"]]))

    await until(lambda: all(told()[name] >= 2 for name in names))


@pytest.mark.rule("CTRL-10")
@pytest.mark.parametrize("scout", [["cancel", "events", "get"]], indirect=True, ids=["old"])
async def test_an_executor_that_does_not_know_questions_gets_a_cancel_of_each_task(
    make_agent: MakeAgent, scout: Executor
) -> None:
    planner = await started(make_agent)
    tasks = [await soon(planner.delegate("scout", "write", task_id=f"t-{number}")) for number in range(5)]
    await soon(asyncio.gather(*(task.cancel() for task in tasks)))
    await until(lambda: len(scout.on("tasks/scout/control/planner")) >= 5)
    told = scout.on("tasks/scout/control/planner")
    assert sorted(each["task_id"] for each in told) == [f"t-{number}" for number in range(5)]
    assert not any("task_ids" in each for each in told)


@pytest.mark.rule("ASK-11")
async def test_a_task_that_its_executor_does_not_know_is_sent_as_a_whole_and_does_not_end(
    in_no_time: None, make_agent: MakeAgent, scout: Executor
) -> None:
    planner = await started(make_agent)
    lost, kept = [await soon(planner.delegate("scout", "write", task_id=task_id)) for task_id in ("lost", "kept")]
    await scout.question()
    await scout.say_unknown("lost", "nonsense", "a/b")
    await until(lambda: len(scout.given()) >= 3)
    assert {task.json["task_id"] for task in scout.given()[2:]} == {"lost"}
    assert scout.given()[2].json == scout.given()[0].json
    assert (lost.state, kept.state) == (TaskState.SUBMITTED, TaskState.SUBMITTED)
    # When the executor has spoken of the task, the requester asks for it by its id again.
    asked = len(scout.questions())
    event = {"task_id": "lost", "seq": 0, "type": "status", "status": "submitted"}
    await scout.say("tasks/planner/events/scout/lost", event)
    await until(lambda: any("lost" in each.json["task_ids"] for each in scout.questions()[asked:]))
    await scout.say("tasks/planner/results/scout", {"task_id": "lost", "status": "completed", "result": 1})
    assert await soon(lost.result()) == 1


@pytest.mark.rule("ASK-11")
async def test_a_process_of_an_older_version_that_does_not_know_a_task_does_not_end_it(
    in_no_time: None, make_agent: MakeAgent, scout: Executor
) -> None:
    planner = await started(make_agent)
    task = await soon(planner.delegate("scout", "write", task_id="t-1"))
    await scout.question()
    error = {"type": "not_found", "message": "scout does not know task t-1"}
    for _ in range(2):
        await scout.say("tasks/planner/results/scout", {"task_id": "t-1", "status": "rejected", "error": error})
    await until(lambda: len(scout.given()) >= 2)
    assert not task.done
    await scout.say("tasks/planner/results/scout", {"task_id": "t-1", "status": "completed", "result": 1})
    assert await soon(task.result()) == 1


@pytest.mark.rule("ASK-11", "ABOUND-7")
async def test_only_the_executor_of_a_task_can_say_that_the_task_is_unknown(
    in_no_time: None, make_agent: MakeAgent, scout: Executor, eve: Foreign
) -> None:
    planner = await started(make_agent)
    task = await soon(planner.delegate("scout", "write", task_id="t-1"))
    fault = {"type": "not_found", "code": "UNKNOWN_TASK", "data": {"task_ids": ["t-1"]}}
    for topic, names in (
        ("tasks/planner/results/eve", {"to": "planner"}),
        ("tasks/planner/results", {"from": "scout", "to": "planner"}),
    ):
        await eve.say(topic, {"task_id": "t-1", "status": "rejected", "error": fault, **names})
    asked = len(scout.questions())
    await until(lambda: len(scout.questions()) >= asked + 2)
    assert len(scout.given()) == 1
    assert not task.done


@pytest.mark.rule("ASK-11")
@pytest.mark.parametrize("data", [None, 7, {"task_ids": "t-1"}, {"task_ids": [7, None]}, {}])
async def test_an_answer_that_names_no_unknown_task_is_a_result(
    make_agent: MakeAgent, scout: Executor, data: Any
) -> None:
    planner = await started(make_agent)
    task = await soon(planner.delegate("scout", "write", task_id="t-1"))
    error = {"type": "not_found", "code": "UNKNOWN_TASK", "data": data}
    await scout.say("tasks/planner/results/scout", {"task_id": "t-1", "status": "rejected", "error": error})
    await until(lambda: task.done)
    assert task.state is TaskState.REJECTED


# The executor


async def ask(peer: Foreign, *task_ids: Any, to: str = "tasks/writer/control/scout", **fields: Any) -> None:
    word = {"task_id": str(task_ids[0]), "action": "get", "task_ids": list(task_ids), **fields}
    await peer.say(to, word, reply_to=f"tasks/{peer.name}/results")


@pytest.mark.rule("ASK-11", "ASK-10", "CTRL-7", "FAULT-1")
async def test_known_tasks_are_answered_one_by_one_and_unknown_tasks_in_one_message(
    writer: Agent, requester: ForeignRequester
) -> None:
    assert "ask" in (writer.card.features or ())
    await requester.say("tasks/writer/inbox/scout", {"task_id": "runs", "prompt": "wait"})
    await requester.say("tasks/writer/inbox/scout", {"task_id": "over", "data": 7})
    result = await requester.next_on(ANSWERS)
    before = len(requester.on("tasks/scout/events/writer/runs"))
    await ask(requester, "no-1", "runs", "over", "no-2", "no-1")
    await until(lambda: len(requester.on(ANSWERS)) >= 3)
    await until(lambda: any(each["seq"] == 0 for each in requester.on("tasks/scout/events/writer/runs")[before:]))
    unknown = [each for each in requester.on(ANSWERS)[1:] if each["status"] == "rejected"]
    assert [each for each in requester.on(ANSWERS)[1:] if each["status"] != "rejected"] == [result]
    (answer,) = unknown
    # Readers that do not know the code must not take the answer for the result of a task.
    assert answer["task_id"].startswith("barrier-")
    assert answer["to"] == "scout"
    assert (answer["error"]["type"], answer["error"]["code"]) == ("not_found", "UNKNOWN_TASK")
    assert answer["error"]["data"] == {"task_ids": ["no-1", "no-2"]}


@pytest.mark.rule("ASK-12", "TASK-10")
async def test_a_stranger_learns_nothing_by_asking(writer: Agent, requester: ForeignRequester, eve: Foreign) -> None:
    await requester.say("tasks/writer/inbox/scout", {"task_id": "runs", "prompt": "wait"})
    await requester.say("tasks/writer/inbox/scout", {"task_id": "over", "data": "secret"})
    await requester.next_on(ANSWERS)
    # With its own name, a stranger gets the same answer about the tasks of others and about no tasks.
    await ask(eve, "runs", "over", "none", to="tasks/writer/control/eve")
    answer = await eve.next_on("tasks/eve/results/writer")
    assert answer["error"]["data"] == {"task_ids": ["runs", "over", "none"]}
    # With the name of the requester, its topic says who has written it; on a plain topic, the tasks are unknown.
    await ask(eve, "runs", to="tasks/writer/control/eve", **{"from": "scout"})
    await ask(eve, "runs", "over", "none", to="tasks/writer/control", **{"from": "scout"})
    answer = await requester.next_on("tasks/scout/results")
    assert answer["error"]["data"] == {"task_ids": ["runs", "over", "none"]}
    await ask(eve, "end", to="tasks/writer/control/eve")
    await eve.next_on("tasks/eve/results/writer", 2)
    assert [each.topic for each in eve.heard] == ["tasks/eve/results/writer"] * 2
    assert not any(b"secret" in each.payload for each in eve.heard)


@pytest.mark.rule("CTRL-10", "CTRL-4", "ASK-12")
async def test_one_cancel_of_many_tasks_stops_those_of_its_sender_and_no_others(
    writer: Agent, requester: ForeignRequester, eve: Foreign
) -> None:
    for task_id in ("t-1", "t-2", "t-3"):
        await requester.say("tasks/writer/inbox/scout", {"task_id": task_id, "prompt": "wait"})
    await until(lambda: writer.running_tasks == 3)
    many = {"action": "cancel", "task_id": "t-1", "task_ids": ["t-1", "t-2", "early"]}
    await eve.say("tasks/writer/control/eve", many)  # the tasks of eve, of which none has arrived
    await eve.say("tasks/writer/control", {**many, "from": "scout"})  # a plain topic proves nothing
    await until(lambda: len(eve.on("tasks/eve/results/writer")) >= 3)
    assert writer.running_tasks == 3
    await requester.say("tasks/writer/control/scout", {**many, "reason": "too late"})
    await until(lambda: len({each["task_id"] for each in requester.on(ANSWERS)}) >= 3)
    assert {(each["task_id"], each["status"]) for each in requester.on(ANSWERS)} == {
        ("t-1", "canceled"),
        ("t-2", "canceled"),
        ("early", "canceled"),
    }
    await until(lambda: writer.running_tasks == 1)


@pytest.mark.rule("ALIMIT-8", "CTRL-4")
async def test_a_stranger_fills_no_store_with_cancels_of_tasks_that_never_arrive(
    make_agent: MakeAgent,
    requester: ForeignRequester,
    eve: Foreign,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(early_cancels, "_MOST_OF_ONE", 3)
    store, week = MemoryStore(), 7 * 24 * 3600.0
    writer = make_agent("writer", store=store, retention=week)
    await soon(writer.start())
    names = [f"e-{number}" for number in range(5)]
    await eve.say("tasks/writer/control/eve", {"action": "cancel", "task_id": names[0], "task_ids": names})
    await eve.next_on("tasks/eve/results/writer", 3)
    await until(lambda: "too many such cancels are kept" in caplog.text)
    await eve.say("tasks/writer/control/eve", {"action": "cancel", "task_id": "e-9"})
    await requester.say("tasks/writer/control/scout", {"action": "cancel", "task_id": "t-1"})
    assert (await requester.next_on(ANSWERS))["status"] == "canceled"
    owner = writer._scope.owner
    kept = await store.find(owner, "received")
    assert sorted(each.task_id for each in kept) == ["e-0", "e-1", "e-2", "t-1"]
    assert await store.sweep(owner, time.time() - week) == 0
    assert await store.sweep(owner, time.time() - week + 3601) == 4  # an hour later


@pytest.mark.rule("CTRL-10")
async def test_a_handler_that_ends_slowly_holds_up_no_message_about_many_tasks(
    make_agent: MakeAgent, requester: ForeignRequester, eve: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_CANCELED_WITHIN", 3600.0)
    go, canceled = asyncio.Event(), asyncio.Event()
    writer = make_agent("writer")

    @writer.on_task
    async def stubborn(task: TaskContext) -> None:
        try:
            await go.wait()
        except asyncio.CancelledError:
            canceled.set()
            await go.wait()

    await soon(writer.start())
    await requester.say("tasks/writer/inbox/scout", {"task_id": "t-1", "prompt": "wait"})
    await until(lambda: writer.running_tasks == 1)
    cancel = {"action": "cancel", "task_id": "t-1", "task_ids": ["t-1", "t-2"]}
    await requester.say("tasks/writer/control/scout", cancel)
    await soon(canceled.wait())
    await ask(eve, "e-1", to="tasks/writer/control/eve")
    answer = await eve.next_on("tasks/eve/results/writer")
    assert answer["error"]["data"]["task_ids"] == ["e-1"]
    go.set()
    await requester.next_on(ANSWERS, 2)


@pytest.mark.rule("ASK-12", "CTRL-8")
async def test_a_question_that_cannot_be_answered_is_ignored(writer: Agent, requester: ForeignRequester) -> None:
    await ask(requester, *(f"no-{number}" for number in range(101)))
    await ask(requester, "no-1", "a/b")
    await ask(requester, "no-1", to="tasks/writer/control")  # without a name
    await ask(requester, *(f"yes-{number}" for number in range(100)))
    answer = await requester.next_on(ANSWERS)
    assert answer["error"]["data"]["task_ids"] == [f"yes-{number}" for number in range(100)]
    assert requester.on("tasks/scout/results") == []


@pytest.mark.rule("ASK-12")
async def test_questions_of_one_requester_do_not_wait_without_end_and_keep_nobody_else_out(
    make_agent: MakeAgent,
    requester: ForeignRequester,
    eve: Foreign,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(inbox, "_MOST_OF_ONE", 3)
    store = SlowStore()
    await soon(make_agent("writer", store=store).start())
    for number in range(4):
        await ask(requester, f"t-{number}")
    await until(lambda: "too many of them wait" in caplog.text)
    await ask(eve, "e-1", to="tasks/writer/control/eve")
    store.works.set()
    answer = await eve.next_on("tasks/eve/results/writer")
    assert answer["error"]["data"]["task_ids"] == ["e-1"]
    await ask(requester, "last")
    await requester.next_on(ANSWERS, 4)
    asked = [each["error"]["data"]["task_ids"] for each in requester.on(ANSWERS)]
    assert asked == [["t-0"], ["t-1"], ["t-2"], ["last"]]


@pytest.mark.rule("ASK-12", "ABOUND-8")
async def test_an_agent_that_may_give_no_tasks_gets_no_answer(
    make_agent: MakeAgent, requester: ForeignRequester, eve: Foreign
) -> None:
    guarded = make_agent("writer", allowed_requesters=["scout"])
    await soon(guarded.start())
    await ask(eve, "t-1", to="tasks/writer/control/eve")
    await ask(requester, "t-1")
    await requester.next_on(ANSWERS)
    assert eve.heard == []


@pytest.mark.rule("ASK-10", "ASK-11")
@pytest.mark.parametrize("bound", ["prefer", "off"])
async def test_an_executor_that_has_lost_its_store_gets_its_tasks_again(make_agent: MakeAgent, bound: Any) -> None:
    runs: list[str] = []
    go = asyncio.Event()

    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        await go.wait()
        return task.id

    first, planner = make_agent("writer", bound=bound), make_agent("planner", bound=bound)
    first.on_task(handle)
    await soon(first.start())
    await soon(planner.start())
    tasks = [await soon(planner.delegate("writer", "write", task_id=f"t-{number}")) for number in range(5)]
    await until(lambda: len(runs) == 5)
    await soon(first.stop())
    second = make_agent("writer", bound=bound)
    second.on_task(handle)
    await soon(second.start())
    await until(lambda: len(runs) == 10)
    go.set()
    assert await soon(asyncio.gather(*(task.result() for task in tasks))) == [f"t-{number}" for number in range(5)]
