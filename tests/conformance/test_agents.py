"""Our agent as a foreign requester sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import Agent, MemoryStore, TaskContext, errors
from mqtt_agent.wire import TaskState
from skips import inapplicable
from support import becomes, soon, until

from ..agents.conftest import MakeAgent
from .foreign import ForeignRequester

RUN_ON = ALL_BROKERS

TASK_RESULT = "tasks/t-1/result"


class Writer:
    """The handler of our executor, with a record of its runs."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.seen: list[TaskContext] = []
        self.began = asyncio.Event()
        self.go = asyncio.Event()

    async def handle(self, task: TaskContext) -> Any:
        self.runs.append(task.id)
        self.seen.append(task)
        self.began.set()
        if task.prompt == "wait":
            await self.go.wait()
        elif task.prompt == "fail":
            raise errors.TaskFailed("no disk", code="E_DISK", data={"free": 0})
        elif task.prompt == "bug":
            raise KeyError("page")
        elif task.prompt == "reject":
            raise errors.TaskRejected("not my job")
        elif task.prompt == "tell":
            await task.progress(1, 3, "reading")
            await task.stream("part")
            await task.stream({"n": 1})
            await task.artifact("notes", "one paper")
        elif task.prompt == "ask":
            return await task.ask("Which year?", {"type": "integer"})
        elif task.prompt == "no json":
            return object()
        return task.data


@pytest.fixture
def work() -> Writer:
    return Writer()


@pytest.fixture
async def writer(make_agent: MakeAgent, work: Writer) -> AsyncIterator[Agent]:
    agent = make_agent("writer")
    agent.on_task(work.handle)
    await soon(agent.start())
    yield agent
    work.go.set()


@pytest.fixture
async def foreign(broker: Broker, namespace: str) -> AsyncIterator[ForeignRequester]:
    peer = ForeignRequester(broker.url, namespace, "scout")
    await soon(peer.start("tasks/t-1/result", "tasks/t-1/events", "agents/+/card", "agents/+/status"))
    yield peer
    await soon(peer.stop())


async def everything_is_done(foreign: ForeignRequester, task_id: str = "last") -> None:
    """Wait until all earlier messages have been processed: a later task has its result."""
    await foreign.give(task_id, data=task_id)
    await foreign.result(task_id)


@pytest.mark.rule("INBOX-1", "TASK-1", "TASK-2", "RESULT-1", "RESULT-2", "MQTT-2", "MQTT-3")
@pytest.mark.parametrize("inbox", ["tasks/writer/inbox", "agents/writer/inbox"])
async def test_a_task_on_either_inbox_is_done_and_answered(
    inbox: str, writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    asked = {"type": "t", "title": "A line", "context_id": "talk", "data": {"n": [1, None]}, "metadata": {"k": "v"}}
    said = [{"role": "user", "content": "hello", "extra": 1}]
    await foreign.give("t-1", inbox=inbox, messages=said, **asked)
    result = await foreign.result("t-1")
    assert result.pop("elapsed_ms") >= 0
    assert result.pop("timestamp").endswith("Z")
    assert result == {
        "task_id": "t-1",
        "from": "writer",
        "to": "scout",
        "status": "completed",
        "result": {"n": [1, None]},
        "seq": 1,
        "attempt": 1,
    }
    (heard,) = foreign.raw("tasks/scout/results")
    assert (heard.correlation, heard.qos, heard.retain) == (b"t-1", 1, False)
    assert heard.content_type == "application/json"
    (task,) = work.seen
    assert (task.sender, task.type, task.title, task.context_id) == ("scout", "t", "A line", "talk")
    assert (task.prompt, task.metadata) == ("write", {"k": "v"})
    assert [message.model_dump(exclude_none=True) for message in task.messages] == said
    assert foreign.on(TASK_RESULT) == []


@pytest.mark.rule("RESULT-2", "TASK-9")
@pytest.mark.parametrize(
    ("reply_to", "sender", "where"),
    [
        (None, "scout", ["tasks/scout/results", TASK_RESULT]),
        (None, None, [TASK_RESULT]),
        (TASK_RESULT, "scout", [TASK_RESULT]),
        (TASK_RESULT, None, [TASK_RESULT]),
        ("tasks/scout/results", "scout", ["tasks/scout/results"]),
    ],
)
async def test_the_result_goes_where_it_is_wanted(
    reply_to: str | None, sender: str | None, where: list[str], writer: Agent, foreign: ForeignRequester
) -> None:
    await foreign.give("t-1", reply_to=reply_to, data=7, **{"from": sender})  # pyright: ignore[reportArgumentType]
    for topic in where:
        assert (await foreign.next_on(topic))["result"] == 7
    await everything_is_done(foreign)
    for topic in ("tasks/scout/results", TASK_RESULT):
        assert len(foreign.results("t-1", topic)) == (topic in where)


@pytest.mark.rule("TASK-8", "CTRL-7")
async def test_a_task_id_alone_is_looked_up(writer: Agent, work: Writer, foreign: ForeignRequester) -> None:
    await foreign.listen("tasks/t-2/result")
    await foreign.say("tasks/writer/inbox", {"task_id": "t-1"})
    unknown = await foreign.next_on(TASK_RESULT)
    assert (unknown["status"], unknown["error"]["type"]) == ("rejected", "not_found")
    await foreign.give("t-1", prompt="wait")
    await soon(work.began.wait())
    await foreign.say("tasks/writer/inbox", {"task_id": "t-1", "from": "scout"})
    await until(lambda: any(event["seq"] == 0 for event in foreign.on("tasks/t-1/events")))
    work.go.set()
    first = await foreign.result("t-1")
    await foreign.say("tasks/writer/inbox", {"task_id": "t-1", "from": "scout"}, reply_to="tasks/scout/results")
    assert await foreign.result("t-1", 2) == first
    await foreign.say("tasks/writer/inbox", {"task_id": "t-2", "prompt": "write", "data": "no name"})
    unnamed = await foreign.next_on("tasks/t-2/result")
    assert unnamed["result"] == "no name"
    await foreign.say("tasks/writer/inbox", {"task_id": "t-2"})
    assert await foreign.next_on("tasks/t-2/result", 2) == unnamed
    assert work.runs == ["t-1", "t-2"]


@pytest.mark.rule("TASK-7", "TASK-10")
async def test_only_the_requester_of_a_task_gets_its_result(
    writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    await foreign.listen("tasks/eve/results")
    await foreign.give("t-1", prompt="wait", data="secret")
    await soon(work.began.wait())
    await foreign.say("tasks/writer/inbox", {"task_id": "t-1", "from": "eve"}, reply_to="tasks/eve/results")
    assert (await foreign.next_on("tasks/eve/results"))["error"]["type"] == "not_found"
    await foreign.word("t-1", "get", reply_to="tasks/eve/results", **{"from": "eve"})
    assert (await foreign.next_on("tasks/eve/results", 2))["error"]["type"] == "not_found"
    await foreign.say("tasks/writer/inbox", {"task_id": "t-1"}, reply_to=TASK_RESULT)
    assert (await foreign.next_on(TASK_RESULT))["error"]["type"] == "not_found"
    await foreign.give("t-1", prompt="wait", data="secret", reply_to=TASK_RESULT)
    await foreign.say("tasks/writer/inbox", {"task_id": "t-1", "from": "scout"}, reply_to=TASK_RESULT)
    await foreign.word("t-1", "get", reply_to=TASK_RESULT)
    work.go.set()
    assert (await foreign.result("t-1"))["result"] == "secret"
    for number in range(2, 4):
        await foreign.word("t-1", "get", reply_to=TASK_RESULT)
        assert (await foreign.result("t-1", number))["result"] == "secret"
    assert not any("secret" in str(told) for told in (*foreign.on(TASK_RESULT), *foreign.on("tasks/eve/results")))


@pytest.mark.rule("TASK-4", "TASK-5", "TASK-17", "AHOST-6")
async def test_a_repeat_runs_nothing_and_gets_status_or_result_again(
    writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    await foreign.give("t-1", prompt="wait", data={"a": 1, "b": 2})
    await soon(work.began.wait())
    await foreign.give("t-1", prompt="wait", data={"b": 2, "a": 1}, created_at="2027-01-01T00:00:00.000Z", unknown=1)
    await until(lambda: any(event["seq"] == 0 for event in foreign.on("tasks/t-1/events")))
    (asked,) = [event for event in foreign.on("tasks/t-1/events") if event["seq"] == 0]
    assert (asked["type"], asked["status"], asked["attempt"]) == ("status", "working", 1)
    said = [{"role": "user", "content": "wait"}]
    await foreign.give("t-1", prompt="wait", messages=said, data={"a": 1, "b": 2})
    await until(lambda: len([event for event in foreign.on("tasks/t-1/events") if event["seq"] == 0]) == 2)
    work.go.set()
    first = await foreign.result("t-1")
    for count in range(2, 5):
        await foreign.give("t-1", prompt="wait", data={"a": 1, "b": 2}, expires_at="2099-01-01T00:00:00.000Z")
        assert await foreign.result("t-1", count) == first
    assert work.runs == ["t-1"]


@pytest.mark.rule("TASK-6", "FAULT-1")
async def test_the_same_id_with_other_content_is_a_conflict_and_the_task_goes_on(
    writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    await foreign.give("t-1", prompt="wait", data=1)
    await soon(work.began.wait())
    await foreign.give("t-1", prompt="wait", data=2, reply_to=TASK_RESULT)
    rejected = await foreign.next_on(TASK_RESULT)
    assert (rejected["status"], rejected["error"]["type"]) == ("rejected", "conflict")
    work.go.set()
    assert (await foreign.result("t-1"))["result"] == 1
    assert work.runs == ["t-1"]


@pytest.mark.rule("TASK-19")
async def test_each_requester_has_task_ids_of_its_own(writer: Agent, work: Writer, foreign: ForeignRequester) -> None:
    await foreign.listen("tasks/eve/results")
    await foreign.give("t-1", prompt="write", data="of eve", reply_to="tasks/eve/results", **{"from": "eve"})
    assert (await foreign.next_on("tasks/eve/results"))["result"] == "of eve"
    await foreign.give("t-1", prompt="write", data="of scout")
    assert (await foreign.result("t-1"))["result"] == "of scout"
    assert [task.sender for task in work.seen] == ["eve", "scout"]


@pytest.mark.rule("TASK-7")
async def test_the_result_goes_where_the_latest_repeat_wants_it(
    writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    await foreign.give("t-1", prompt="wait", reply_to=TASK_RESULT)
    await soon(work.began.wait())
    await foreign.give("t-1", prompt="wait")
    await until(lambda: any(event["seq"] == 0 for event in foreign.on("tasks/t-1/events")))
    work.go.set()
    await foreign.result("t-1")
    await everything_is_done(foreign)
    assert foreign.on(TASK_RESULT) == []


@pytest.mark.rule("TASK-14", "TASK-16", "FAULT-1")
@pytest.mark.parametrize(
    "fields",
    [
        {"to": "somebody"},
        {"expires_at": "tomorrow"},
        {"expires_at": "20991231"},
        {"task_id": "barrier-1"},
        {"from": "a/b"},
    ],
)
async def test_a_task_that_cannot_be_taken_is_rejected(
    fields: dict[str, Any], writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    await foreign.listen("tasks/barrier-1/result")
    fields = {"task_id": "t-1", **fields}
    task_id = fields.pop("task_id")
    await foreign.give(task_id, **fields)

    def answers() -> list[dict[str, Any]]:
        return [*foreign.on("tasks/scout/results"), *foreign.on(f"tasks/{task_id}/result")]

    await until(answers)
    (rejected,) = answers()
    assert (rejected["status"], rejected["error"]["type"]) == ("rejected", "invalid_task")
    assert work.runs == []


@pytest.mark.rule("TASK-11", "TASK-12")
async def test_a_task_is_not_begun_after_its_time_and_stopped_at_it(
    writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    def after(seconds: float) -> str:
        return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()

    await foreign.give("t-0", expires_at=after(-5))
    expired = await foreign.result("t-0")
    assert (expired["status"], expired["error"]["type"]) == ("failed", "expired")
    await foreign.give("t-1", prompt="wait", expires_at=after(1))
    expired = await foreign.result("t-1")
    assert (expired["status"], expired["error"]["type"]) == ("failed", "expired")
    assert work.runs == ["t-1"]


@pytest.mark.rule("FAULT-1", "RESULT-8", "TASK-15")
@pytest.mark.parametrize(
    ("prompt", "status", "error"),
    [
        ("fail", "failed", {"type": "TaskFailed", "message": "no disk", "code": "E_DISK", "data": {"free": 0}}),
        ("bug", "failed", {"type": "KeyError", "message": "page"}),
        ("reject", "rejected", {"type": "rejected", "message": "not my job"}),
        ("no json", "failed", {"code": "RESULT_NOT_JSON"}),
    ],
)
async def test_a_fault_says_what_went_wrong(
    prompt: str, status: str, error: dict[str, Any], writer: Agent, foreign: ForeignRequester
) -> None:
    await foreign.give("t-1", prompt=prompt)
    result = await foreign.result("t-1")
    assert result["status"] == status
    assert "result" not in result
    told = {name: value for name, value in result["error"].items() if name in error}
    if "message" in error:
        assert error["message"] in told.pop("message")
        error = {name: value for name, value in error.items() if name != "message"}
    assert told == error


@pytest.mark.rule("TASK-15", "TASK-3")
async def test_a_task_for_no_handler_or_over_the_limit_is_rejected(
    make_agent: MakeAgent, work: Writer, foreign: ForeignRequester
) -> None:
    agent = make_agent("writer", max_concurrency=1, max_waiting_tasks=1)
    agent.on_task("known")(work.handle)
    await soon(agent.start())
    await foreign.give("t-0", type="unknown")
    rejected = await foreign.result("t-0")
    assert (rejected["error"]["type"], rejected["error"]["code"]) == ("rejected", "no_handler")
    for number in range(1, 4):
        await foreign.give(f"t-{number}", type="known", prompt="wait", data=number)
    rejected = await foreign.result("t-3")
    assert (rejected["status"], rejected["error"]["type"]) == ("rejected", "overloaded")
    assert await agent._received.find("t-3", "scout") is None
    work.go.set()
    assert (await foreign.result("t-2"))["result"] == 2
    await foreign.give("t-3", type="known", prompt="wait", data=3)
    assert (await foreign.result("t-3", 2))["result"] == 3


class Refusing(MemoryStore):
    """A store that cannot be written until the test allows it."""

    writable = True

    async def add(self, record: Any) -> Any:
        if not self.writable:
            raise errors.StoreError("disk full")
        return await super().add(record)


@pytest.mark.rule("TASK-3")
async def test_tasks_that_arrive_while_the_store_fails_are_done_when_it_works_again(
    make_agent: MakeAgent, work: Writer, foreign: ForeignRequester
) -> None:
    store = Refusing()
    agent = make_agent("writer", store=store)
    agent.on_task(work.handle)
    await soon(agent.start())
    store.writable = False
    for number in range(40):  # more than the broker's limit of unacknowledged messages
        await foreign.give(f"t-{number}", data=number)
    assert work.runs == []
    store.writable = True
    for number in range(40):
        assert (await foreign.result(f"t-{number}"))["result"] == number


@pytest.mark.rule("EVENT-1", "EVENT-2", "EVENT-3", "EVENT-5", "RESULT-7", "RESULT-1")
async def test_events_are_numbered_and_end_with_the_terminal_state(writer: Agent, foreign: ForeignRequester) -> None:
    await foreign.give("t-1", prompt="tell")
    result = await foreign.result("t-1")
    await until(lambda: len(foreign.on("tasks/t-1/events")) == 5)
    await everything_is_done(foreign)
    events = foreign.on("tasks/t-1/events")
    assert {heard.qos for heard in foreign.raw("tasks/t-1/events")} == {1}
    assert all(event.pop("timestamp").endswith("Z") and event.pop("task_id") == "t-1" for event in events)
    assert {(event.pop("from"), event.pop("to")) for event in events} == {("writer", "scout")}
    assert events == [
        {"seq": 1, "type": "status", "status": "working", "attempt": 1},
        {"seq": 2, "type": "progress", "progress": 1.0, "total": 3.0, "content": "reading"},
        {"seq": 3, "type": "partial", "content": "part"},
        {"seq": 4, "type": "partial", "data": {"n": 1}},
        {"seq": 5, "type": "artifact", "content": "notes", "data": "one paper"},
    ]
    assert (result["seq"], result["attempt"]) == (6, 1)
    assert result["artifacts"] == [{"name": "notes", "data": "one paper"}]


@pytest.mark.rule("EVENT-9", "EVENT-5", "RESULT-7")
async def test_only_the_result_tells_of_a_short_handler(writer: Agent, foreign: ForeignRequester) -> None:
    await foreign.give("t-1", data="short")
    result = await foreign.result("t-1")
    assert (result["status"], result["seq"], result["attempt"]) == ("completed", 1, 1)
    await everything_is_done(foreign)
    assert foreign.on("tasks/t-1/events") == []


@pytest.mark.rule("EVENT-9")
async def test_an_event_tells_that_a_long_handler_has_begun(make_agent: MakeAgent, foreign: ForeignRequester) -> None:
    agent, go_on = make_agent("writer"), asyncio.Event()

    @agent.on_task
    async def handle(task: TaskContext) -> None:
        await go_on.wait()

    await soon(agent.start())
    await foreign.give("t-1")
    await until(lambda: foreign.on("tasks/t-1/events"))
    (event,) = foreign.on("tasks/t-1/events")
    assert (event["seq"], event["status"], event["attempt"]) == (1, "working", 1)
    go_on.set()
    assert (await foreign.result("t-1"))["seq"] == 2
    await everything_is_done(foreign)
    assert foreign.on("tasks/t-1/events") == [event]


@pytest.mark.rule("TASK-13")
async def test_nobody_is_told_what_nobody_listens_to(writer: Agent, foreign: ForeignRequester) -> None:
    await foreign.give("t-1", prompt="tell", stream=False)
    assert "seq" not in await foreign.result("t-1")
    await everything_is_done(foreign)
    assert foreign.on("tasks/t-1/events") == []


@pytest.mark.rule("EVENT-6", "CTRL-1", "CTRL-5", "STATE-1")
async def test_a_question_is_asked_until_an_answer_fits(writer: Agent, foreign: ForeignRequester) -> None:
    def questions() -> list[dict[str, Any]]:
        return [event for event in foreign.on("tasks/t-1/events") if event.get("status") == "input-required"]

    await foreign.give("t-1", prompt="ask")
    await until(lambda: len(questions()) == 1)
    assert questions()[0]["content"] == "Which year?"
    assert questions()[0]["data"] == {"input_id": "1", "schema": {"type": "integer"}}
    await foreign.word("t-1", "input", input=1999, input_id="other")
    await foreign.word("t-1", "input", input="last year", input_id="1")
    await until(lambda: len(questions()) == 2)
    assert questions()[1]["data"]["fault"]
    await foreign.word("t-1", "input", input=2024)
    await foreign.word("t-1", "input", input=2025, input_id="1")
    assert (await foreign.result("t-1"))["result"] == 2024


@pytest.mark.rule("CTRL-6", "STATE-3", "EVENT-3")
async def test_after_a_restart_the_attempt_is_higher_and_the_answer_is_known(
    make_agent: MakeAgent, foreign: ForeignRequester
) -> None:
    agent = make_agent("writer", drain_timeout=0)
    answered = asyncio.Event()

    @agent.on_task
    async def handle(task: TaskContext) -> Any:
        year = await task.ask("Which year?")
        if task.attempt == 1:
            answered.set()
            await asyncio.Event().wait()
        return [task.attempt, year]

    await soon(agent.start())
    await foreign.give("t-1")
    await until(lambda: any(event.get("status") == "input-required" for event in foreign.on("tasks/t-1/events")))
    await foreign.word("t-1", "input", input=2024, input_id="1")
    await soon(answered.wait())
    await soon(agent.stop())
    await soon(agent.start())
    result = await foreign.result("t-1")
    assert result["result"] == [2, 2024]
    assert result["attempt"] == 2
    await until(lambda: foreign.on("tasks/t-1/events")[-1]["seq"] == result["seq"] - 1)
    numbers = [event["seq"] for event in foreign.on("tasks/t-1/events")]
    assert numbers == sorted(set(numbers))


@pytest.mark.rule("CTRL-3", "CTRL-2", "FAULT-1", "STATE-2", "AHOST-6")
async def test_a_cancel_from_who_gave_the_task_stops_it_and_no_other(
    writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    await foreign.give("t-1", prompt="wait")
    await soon(work.began.wait())
    await foreign.word("t-1", "cancel", **{"from": "eve"})
    await foreign.word("t-1", "cancel", **{"from": None})
    await foreign.word("t-1", "input", input=1, **{"from": "eve"})
    await everything_is_done(foreign)
    assert foreign.results("t-1") == []
    await foreign.word("t-1", "cancel", reason="too late")
    result = await foreign.result("t-1")
    assert (result["status"], result["error"]["type"]) == ("canceled", "canceled")
    assert "too late" in result["error"]["message"]
    work.go.set()
    await foreign.word("t-1", "cancel")
    assert await foreign.result("t-1", 2) == result
    await foreign.give("t-1", prompt="wait")
    assert await foreign.result("t-1", 3) == result
    assert work.runs.count("t-1") == 1


@pytest.mark.rule("CTRL-3")
async def test_a_cancel_that_comes_too_late_is_answered_with_the_result(
    writer: Agent, foreign: ForeignRequester
) -> None:
    await foreign.give("t-1", data="done")
    first = await foreign.result("t-1")
    await foreign.word("t-1", "cancel")
    assert await foreign.result("t-1", 2) == first


@pytest.mark.rule("CTRL-4")
async def test_a_cancel_that_overtakes_its_task_counts_for_its_sender_alone(
    writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    await foreign.listen("tasks/eve/results", "tasks/t-2/result")
    await foreign.word("t-1", "cancel")
    canceled = await foreign.result("t-1")
    assert canceled["status"] == "canceled"
    await foreign.give("t-1")
    assert await foreign.result("t-1", 2) == canceled
    await foreign.word("t-2", "cancel", **{"from": "eve"})
    assert (await foreign.next_on("tasks/eve/results"))["status"] == "canceled"
    await foreign.give("t-2")
    assert (await foreign.result("t-2"))["status"] == "completed"
    assert work.runs == ["t-2"]


@pytest.mark.rule("CTRL-7")
async def test_get_is_answered_with_where_the_task_stands(
    writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    await foreign.word("t-1", "get", reply_to="tasks/scout/results")
    unknown = await foreign.result("t-1")
    assert (unknown["status"], unknown["error"]["type"]) == ("rejected", "not_found")
    await foreign.give("t-1", prompt="wait")
    await soon(work.began.wait())
    await foreign.word("t-1", "get")
    await until(lambda: any(event["seq"] == 0 for event in foreign.on("tasks/t-1/events")))
    work.go.set()
    first = await foreign.result("t-1", 2)
    await foreign.word("t-1", "get")
    assert await foreign.result("t-1", 3) == first


@pytest.mark.rule("CTRL-8", "TASK-16")
async def test_retained_tasks_and_words_are_left_out(
    make_agent: MakeAgent, work: Writer, foreign: ForeignRequester, broker: Broker
) -> None:
    old = {"task_id": "old", "from": "scout", "prompt": "write"}
    await foreign.say("tasks/writer/inbox", old, retain=True)
    await foreign.say("tasks/writer/control", {"task_id": "t-1", "action": "cancel", "from": "scout"}, retain=True)
    agent = make_agent("writer")
    agent.on_task(work.handle)
    await soon(agent.start())
    await foreign.word("t-1", "dance")
    await foreign.word("a/b", "cancel")
    await foreign.give("t-1", data=1)
    assert (await foreign.result("t-1"))["result"] == 1
    assert work.runs == ["t-1"]


@pytest.mark.rule("RESULT-3", "RESULT-4")
async def test_a_result_that_nobody_got_is_sent_again_by_the_next_process(
    broker: Broker, make_agent: MakeAgent, work: Writer, foreign: ForeignRequester
) -> None:
    store = MemoryStore()
    agent = make_agent("writer", store=store)
    agent.on_task(work.handle)
    await soon(agent.start())
    await foreign.give("t-2", data=1, reply_to="tasks/t-2/result")

    async def is_over() -> bool:
        record = await agent._received.find("t-2", "scout")
        return record is not None and record.state.terminal

    await becomes(is_over)
    await everything_is_done(foreign)
    record = await agent._received.find("t-2", "scout")
    assert record is not None
    if record.settled:
        assert broker.name != "mosquitto", "Mosquitto says when nobody is subscribed"
        inapplicable("this broker does not say when nobody is subscribed")
    await soon(agent.stop())
    await foreign.listen("tasks/t-2/result")
    await soon(agent.start())
    assert (await foreign.next_on("tasks/t-2/result"))["result"] == 1
    assert work.runs.count("t-2") == 1


@pytest.mark.rule("AHOST-1", "ALIMIT-1")
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"{",
        b'{"task_id": 7}',
        b'{"task_id": "t-1", "messages": 5}',
        b'{"prompt": "no id"}',
        b"x" * 1_100_000,
    ],
)
@pytest.mark.parametrize("reply_to", [None, TASK_RESULT, "tasks/scout/results", "elsewhere", "tasks/scout/inbox"])
async def test_an_unreadable_task_is_refused_where_somebody_may_wait(
    payload: bytes, reply_to: str | None, writer: Agent, work: Writer, foreign: ForeignRequester
) -> None:
    await foreign.listen("elsewhere", "tasks/scout/inbox")
    await foreign.say("tasks/writer/inbox", payload, reply_to=reply_to, correlation=b"t-1")
    where = reply_to if reply_to in (TASK_RESULT, "tasks/scout/results") else TASK_RESULT
    refused = await foreign.next_on(where)
    assert (refused["task_id"], refused["status"], refused["error"]["type"]) == ("t-1", "rejected", "invalid_task")
    assert foreign.raw("elsewhere") == foreign.raw("tasks/scout/inbox") == []
    assert work.runs == []


@pytest.mark.rule("ACARD-1", "ACARD-2", "STATUS-1", "STATUS-2", "ONLINE-2", "ONLINE-6")
async def test_the_card_and_the_status_are_as_in_the_document(make_agent: MakeAgent, foreign: ForeignRequester) -> None:
    skill = {"id": "papers", "name": "Papers", "tags": ["science"]}
    options: dict[str, Any] = {"description": "d", "capabilities": ["research"], "skills": [skill], "meta": {"k": 1}}
    agent = make_agent("writer", input_modes=["text/plain"], output_modes=["application/json"], **options)
    await soon(agent.start())
    await until(lambda: foreign.on("agents/writer/status"))
    first = [heard.topic for heard in foreign.heard if heard.topic.startswith("agents/writer/")]
    assert first[:2] == ["agents/writer/card", "agents/writer/status"]
    (card,), (status,) = foreign.on("agents/writer/card"), foreign.on("agents/writer/status")
    assert (card["version"], card["name"], card["status"]) == ("1", "writer", "online")
    assert card["skills"] == [{**skill, "description": ""}]
    assert (card["input_modes"], card["output_modes"]) == (["text/plain"], ["application/json"])
    assert card["features"] == ["ask", "bound", "cancel", "events", "get", "input", "parts"]
    assert {"namespace", "last_seen", "version_info", "started"} <= set(card)
    assert (status["name"], status["status"], status["epoch"]) == ("writer", "online", 1)
    assert status["started"] == card["started"]
    await soon(agent.stop())
    await until(lambda: foreign.on("agents/writer/card")[-1]["status"] == "offline")
    last = [heard for heard in foreign.heard if heard.topic.startswith("agents/writer/")][-2:]
    assert [(heard.topic, heard.json["status"]) for heard in last] == [
        ("agents/writer/status", "offline"),
        ("agents/writer/card", "offline"),
    ]


@pytest.mark.rule("ONLINE-2")
async def test_card_and_status_are_there_for_who_comes_later(
    broker: Broker, namespace: str, writer: Agent, work: Writer
) -> None:
    late = ForeignRequester(broker.url, namespace, "late")
    await soon(late.start("agents/writer/card", "agents/writer/status"))
    for topic in ("agents/writer/card", "agents/writer/status"):
        assert (await late.next_on(topic))["status"] == "online"
        assert late.raw(topic)[0].retain
    await soon(late.stop())


@pytest.mark.rule("ONLINE-3")
async def test_who_sees_the_agent_online_can_give_it_a_task_at_once(
    make_agent: MakeAgent, work: Writer, foreign: ForeignRequester
) -> None:
    agent = make_agent("writer")
    agent.on_task(work.handle)
    starting = asyncio.ensure_future(agent.start())
    await until(lambda: foreign.on("agents/writer/status"))
    await foreign.give("t-1", data=1)
    assert (await foreign.result("t-1"))["result"] == 1
    await soon(starting)


@pytest.mark.rule("ONLINE-7")
async def test_what_somebody_else_writes_on_the_agents_card_and_status_is_put_right(
    writer: Agent, foreign: ForeignRequester
) -> None:
    card, status = await foreign.next_on("agents/writer/card"), await foreign.next_on("agents/writer/status")
    forged: list[tuple[str, dict[str, Any] | bytes]] = [
        ("agents/writer/status", {**status, "status": "offline"}),
        ("agents/writer/status", {**status, "epoch": 10**9}),
        ("agents/writer/status", {"status": "online"}),
        ("agents/writer/status", {**status, "more": 1}),
        ("agents/writer/status", {**status, "started": "9999-01-01T00:00:00.000Z"}),
        ("agents/writer/status", b""),
        ("agents/writer/card", {**card, "capabilities": ["mischief"]}),
        ("agents/writer/card", {**card, "status": "offline"}),
        ("agents/writer/card", {**card, "more": 1}),
        ("agents/writer/card", b"junk"),
        ("agents/writer/card", b""),
    ]

    def right(topic: str, expected: dict[str, Any], since: int) -> bool:
        told: list[dict[str, Any]] = []
        for heard in list(foreign.heard)[since:]:
            if heard.topic == topic:
                with contextlib.suppress(ValueError):
                    told.append({k: v for k, v in heard.json.items() if k not in ("timestamp", "last_seen")})
        return {k: v for k, v in expected.items() if k not in ("timestamp", "last_seen")} in told

    for topic, payload in forged:
        before = len(foreign.heard)
        await foreign.say(topic, payload, retain=True)
        foreign._retained.discard(topic)
        expected = card if topic.endswith("card") else status
        await until(lambda t=topic, e=expected, b=before: right(t, e, b))
    await everything_is_done(foreign)
    assert writer.connection.connected


@pytest.mark.rule("TASK-3")
async def test_the_record_is_there_when_the_result_arrives(writer: Agent, foreign: ForeignRequester) -> None:
    await foreign.give("t-1", data=json.loads("[1]"))
    await foreign.result("t-1")
    record = await writer._received.find("t-1", "scout")
    assert record is not None
    assert record.state is TaskState.COMPLETED
