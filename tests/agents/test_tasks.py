"""Tasks between two agents: they are given, executed, looked up and canceled."""

from __future__ import annotations

import asyncio
import sys
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import Agent, Connection, MemoryStore, TaskContext, TaskState, errors
from mqtt_agent.agents.store import TaskKey
from mqtt_agent.wire import Control, TaskEvent, Topics, encode
from pydantic import BaseModel
from support import soon, until

from .conftest import MakeAgent

RUN_ON = ALL_BROKERS


async def test_a_request_gets_what_the_handler_returns(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> dict[str, Any]:
        return {
            "prompt": task.prompt,
            "sender": task.sender,
            "title": task.title,
            "data": task.data,
            "context_id": task.context_id,
            "attempt": task.attempt,
            "metadata": task.metadata,
            "messages": [(message.role, message.content) for message in task.messages],
        }

    asked = {"title": "A line", "data": {"n": 1}, "context_id": "talk", "metadata": {"k": "v"}}
    assert await soon(planner.request("writer", "write", **asked)) == {
        "prompt": "write",
        "sender": "planner",
        "attempt": 1,
        "messages": [["user", "write"]],
        **asked,
    }


async def test_a_prompt_travels_once(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> list[int]:
        return [len(task.prompt or ""), *(len(message.content) for message in task.messages)]

    assert await soon(planner.request("writer", "x" * 1_000_000)) == [1_000_000, 1_000_000]


async def test_a_plain_function_can_be_a_handler_and_gets_a_blocking_context(writer: Agent, planner: Agent) -> None:
    seen: list[TaskEvent] = []

    @writer.on_task
    def handle(task: Any) -> str:
        task.progress(1, total=2, message="half")
        task.save({"page": 3})
        assert threading.current_thread() is not threading.main_thread()
        return f"page {task.saved['page']}"

    assert await soon(planner.request("writer", on_event=seen.append)) == "page 3"
    assert [(event.type, event.progress, event.total, event.content) for event in seen][1] == ("progress", 1, 2, "half")


async def test_events_come_in_order_and_end_with_the_terminal_state(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str:
        for number in range(50):
            await task.stream(f"part {number}")
        await task.stream({"not": "text"})
        await task.artifact("notes", "all of it")
        return "done"

    task = await soon(planner.delegate("writer", "write"))

    async def read() -> list[TaskEvent]:
        return [event async for event in task.events()]

    events = await soon(read())
    assert [event.seq for event in events] == list(range(1, 55))  # the last is made from the result
    assert [event.status for event in events if event.type == "status"] == ["working", "completed"]
    assert [event.content for event in events if event.type == "partial"][:50] == [f"part {n}" for n in range(50)]
    assert events[-3].data == {"not": "text"}
    assert await task.result() == "done"
    assert task.state is TaskState.COMPLETED
    assert task.response is not None
    assert task.response.artifacts == [{"name": "notes", "data": "all of it"}]


async def test_a_thousand_events_and_more_keep_their_numbers_unique(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> None:
        for number in range(1200):
            await task.progress(number)

    numbers: list[int] = []
    await soon(planner.request("writer", on_event=lambda event: numbers.append(event.seq)), 30)
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 1202


async def test_tasks_of_a_type_go_to_the_handler_for_it(writer: Agent, planner: Agent) -> None:
    @writer.on_task("research")
    async def research(task: TaskContext) -> str:
        return "research"

    @writer.on_task
    async def other(task: TaskContext) -> str:
        return "other"

    assert await soon(planner.request("writer", type="research")) == "research"
    assert await soon(planner.request("writer", type="more")) == "other"
    assert await soon(planner.request("writer")) == "other"
    with pytest.raises(ValueError, match="already"):
        writer.on_task("research")(other)
    with pytest.raises(TypeError, match="one argument"):
        writer.on_task("none")(lambda: None)


async def test_a_task_without_a_handler_is_rejected(writer: Agent, planner: Agent) -> None:
    with pytest.raises(errors.TaskRejected, match="takes no tasks") as rejected:
        await soon(planner.request("writer", "write", task_id="t-1"))
    assert rejected.value.task_id == "t-1"
    assert rejected.value.code == "no_handler"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in Python 3.11")
async def test_the_only_exception_of_a_task_group_is_the_answer_to_the_requester(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        raise ExceptionGroup("in a group", [errors.TaskRejected("not my job")])  # noqa: F821  # pyright: ignore

    with pytest.raises(errors.TaskRejected, match="not my job"):
        await soon(planner.request("writer", "write"))


async def test_each_way_to_fail_has_its_own_error(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        if task.data == "reject":
            raise errors.TaskRejected("not my job")
        if task.data == "fail":
            raise errors.TaskFailed("no disk", code="E_DISK", data={"free": 0})
        if task.data == "cancel":
            raise asyncio.CancelledError
        if task.data == "no json":
            return object()
        raise KeyError("page")

    with pytest.raises(errors.TaskRejected, match="not my job"):
        await soon(planner.request("writer", data="reject"))
    with pytest.raises(errors.TaskFailed, match="no disk") as failed:
        await soon(planner.request("writer", data="fail"))
    assert (failed.value.code, failed.value.data) == ("E_DISK", {"free": 0})
    with pytest.raises(errors.TaskFailed, match="page") as failed:
        await soon(planner.request("writer", data="bug"))
    assert failed.value.type == "KeyError"
    assert failed.value.task_id
    assert failed.value.peer == "writer"
    with pytest.raises(errors.TaskFailed, match="raised CancelledError"):
        await soon(planner.request("writer", data="cancel"))
    with pytest.raises(errors.TaskFailed) as failed:
        await soon(planner.request("writer", data="no json"))
    assert failed.value.code == "RESULT_NOT_JSON"


async def test_a_peer_that_never_existed_is_known_at_once(planner: Agent) -> None:
    for give in (planner.request, planner.delegate):
        with pytest.raises(errors.PeerUnavailable, match="no agent 'nobody'") as unavailable:
            await soon(give("nobody", "write", task_id="t-1"))
        assert unavailable.value.task_id == "t-1"
    assert await planner.delegations() == []


async def test_a_request_to_an_offline_peer_fails_and_a_delegated_task_waits(
    make_agent: MakeAgent, planner: Agent
) -> None:
    writer = make_agent("writer")

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        return "done"

    await soon(writer.start())
    await soon(writer.stop())
    with pytest.raises(errors.PeerUnavailable, match="offline"):
        await soon(planner.request("writer", "write"))
    task = await soon(planner.delegate("writer", "write"))
    assert task.queued
    patient = asyncio.create_task(planner.request("writer", "more", wait_online=True))
    await soon(writer.start())
    assert await soon(task.result()) == "done"
    assert await soon(patient) == "done"


async def test_a_peer_that_comes_later_gets_what_waited_for_it(make_agent: MakeAgent, planner: Agent) -> None:
    task = await soon(planner.delegate("writer", "write", wait_online=True))
    writer = make_agent("writer")

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        return "done"

    await soon(writer.start())
    assert await soon(task.result()) == "done"


async def test_a_timeout_leaves_the_task_running(writer: Agent, planner: Agent) -> None:
    go = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        await go.wait()
        return "late"

    with pytest.raises(errors.TaskTimeout) as timeout:
        await soon(planner.request("writer", "write", timeout=0.1))
    assert isinstance(timeout.value, TimeoutError)
    task = await soon(planner.resume(timeout.value.task_id or ""))
    go.set()
    assert await soon(task.result()) == "late"


async def test_the_same_id_with_the_same_content_runs_once(writer: Agent, planner: Agent) -> None:
    runs: list[str] = []

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        return "done"

    first = await soon(planner.delegate("writer", "write", task_id="t-1"))
    second = await soon(planner.delegate("writer", "write", task_id="t-1"))
    assert await soon(first.result()) == "done"
    assert await soon(second.result()) == "done"
    third = await soon(planner.delegate("writer", "write", task_id="t-1"))
    assert await soon(third.result()) == "done"
    assert runs == ["t-1"]


async def test_the_same_id_with_other_content_is_rejected(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str:
        return "done"

    assert await soon(planner.request("writer", "write", task_id="t-1")) == "done"
    with pytest.raises(errors.TaskRejected, match="another task") as rejected:
        await soon(planner.request("writer", "write something else", task_id="t-1"))
    assert rejected.value.code == "conflict"


async def test_each_requester_has_task_ids_of_its_own(writer: Agent, planner: Agent, make_agent: MakeAgent) -> None:
    other = make_agent("other")
    await soon(other.start())

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        return f"{task.prompt} for {task.sender}"

    assert await soon(other.request("writer", "a poem", task_id="t-1")) == "a poem for other"
    assert await soon(planner.request("writer", "a letter", task_id="t-1")) == "a letter for planner"
    assert await soon(other.request("writer", "a poem", task_id="t-1")) == "a poem for other"


async def test_cancelling_stops_the_handler_and_the_result_says_so(writer: Agent, planner: Agent) -> None:
    began, stopped = asyncio.Event(), asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert task.canceled
            assert not task.interrupted
            stopped.set()

    task = await soon(planner.delegate("writer", "write"))
    await soon(began.wait())
    await soon(task.cancel("changed my mind"))
    with pytest.raises(errors.TaskCanceled, match="changed my mind"):
        await soon(task.result())
    await soon(stopped.wait())
    assert task.state is TaskState.CANCELED
    await task.cancel()


async def test_a_request_whose_task_is_canceled_cancels_its_peers_task(writer: Agent, planner: Agent) -> None:
    began, stopped = asyncio.Event(), asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    request = asyncio.create_task(planner.request("writer", "write"))
    await soon(began.wait())
    request.cancel()
    await soon(stopped.wait())
    with pytest.raises(asyncio.CancelledError):
        await soon(request)


async def test_a_task_that_waits_can_be_canceled(make_agent: MakeAgent, planner: Agent) -> None:
    writer = make_agent("writer", max_concurrency=1)
    go = asyncio.Event()
    runs: list[object] = []

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.data)
        await go.wait()
        return "done"

    await soon(writer.start())
    first = await soon(planner.delegate("writer", data=1))
    await until(lambda: writer.running_tasks)
    second = await soon(planner.delegate("writer", data=2))
    third = await soon(planner.delegate("writer", data=3))
    await soon(second.cancel())
    with pytest.raises(errors.TaskCanceled):
        await soon(second.result())
    go.set()
    assert await soon(first.result()) == "done"
    assert await soon(third.result()) == "done"
    assert runs == [1, 3]


async def test_a_sync_handler_sees_that_it_is_canceled_and_keeps_its_place_until_then(
    make_agent: MakeAgent, planner: Agent
) -> None:
    writer = make_agent("writer", max_concurrency=1)
    began, may_end = threading.Event(), threading.Event()
    seen: list[bool] = []

    @writer.on_task
    def handle(task: Any) -> str:
        if task.data == "next":
            return "next"
        began.set()
        may_end.wait(10)
        seen.append(task.canceled)
        return "ignored"

    await soon(writer.start())
    task = await soon(planner.delegate("writer"))
    await until(began.is_set)
    await soon(task.cancel())
    with pytest.raises(errors.TaskCanceled):
        await soon(task.result())
    following = await soon(planner.delegate("writer", data="next"))
    assert writer.running_tasks == 0
    may_end.set()
    assert await soon(following.result()) == "next"
    assert seen == [True]


async def test_a_cancel_that_overtakes_its_task_is_not_forgotten(writer: Agent, planner: Agent, namespace: str) -> None:
    runs: list[str] = []

    @writer.on_task
    async def handle(task: TaskContext) -> None:
        runs.append(task.id)

    word = Control(task_id="t-1", action="cancel", sender="planner")
    await soon(planner.connection.publish(Topics(namespace).control("writer"), encode(word)))
    with pytest.raises(errors.TaskCanceled):
        await soon(planner.request("writer", "write", task_id="t-1"))
    assert runs == []


async def test_a_question_is_answered_and_the_handler_goes_on(writer: Agent, planner: Agent) -> None:
    class Year(BaseModel):
        year: int

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        first = await task.ask("Which city?")
        second = await task.ask("Which year?", Year)
        return [first, second.year]

    @writer.on_task("ping")
    async def pong(task: TaskContext) -> None: ...

    task = await soon(planner.delegate("writer", "write"))
    asked: list[str | None] = []

    async def answer() -> None:
        async for event in task.events():
            if event.status == "input-required":
                asked.append(event.content)
                assert task.state is TaskState.INPUT_REQUIRED
                assert task.question is event
                if event.content == "Which city?":
                    await task.send("Oslo")
                elif "fault" not in event.data:
                    assert event.data["schema"]["properties"]["year"]["type"] == "integer"
                    await task.send("last year")
                else:
                    # A person may need a long time. In the meantime, the answer that did not fit is not sent again.
                    await planner.request("writer", type="ping")
                    await task.send({"year": 2024}, event.data["input_id"])

    await soon(answer())
    assert asked == ["Which city?", "Which year?", "Which year?"]
    assert await task.result() == ["Oslo", 2024]


async def test_a_question_opens_no_address_of_its_schema_and_must_be_answerable(writer: Agent, planner: Agent) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)

    fetched: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/schema.json"

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        return await task.ask("Which year?", task.data)

    try:
        with pytest.raises(errors.TaskFailed, match="schemas are not fetched: put that schema into"):
            await soon(planner.request("writer", data={"properties": {"year": {"$ref": address}}}))
        with pytest.raises(errors.TaskFailed, match="not valid JSON Schema"):
            await soon(planner.request("writer", data={"type": "year"}))
        assert fetched == []
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


async def test_an_answer_that_will_not_do_is_sent_once(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        return await task.ask("Which year?", {"type": "integer"})

    task = await soon(planner.delegate("writer"))
    faults = 0
    async for event in task.events():
        if event.status != "input-required":
            continue
        if "fault" in event.data:
            faults += 1
            assert task.answers == {}
            await task.send(2024)
        else:
            await task.send("last year")
    assert (faults, await soon(task.result())) == (1, 2024)


async def test_a_requester_can_keep_something_with_its_task(make_agent: MakeAgent, writer: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        return await task.ask("Well?")

    store = MemoryStore()
    first = make_agent("planner", store=store)
    await soon(first.start())
    task = await soon(first.delegate("writer"))
    assert task.saved is None
    await soon(task.save({"asked": 1}))
    await soon(first.stop())
    second = make_agent("planner", store=store)
    await soon(second.start())
    again = await soon(second.resume(task.task_id))
    assert again.saved == {"asked": 1}
    await until(lambda: again.question)
    await soon(again.send("done"))
    assert await soon(again.result()) == "done"
    await soon(again.save("too late"))
    assert again.saved == {"asked": 1}
    with pytest.raises(errors.WireError):
        await again.save(object())


async def test_a_task_that_waits_for_an_answer_takes_no_place(make_agent: MakeAgent, planner: Agent) -> None:
    writer = make_agent("writer", max_concurrency=1)

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        return await task.ask("Well?") if task.data == "ask" else "other"

    await soon(writer.start())
    waiting = await soon(planner.delegate("writer", data="ask"))
    await until(lambda: waiting.question)
    assert await soon(planner.request("writer")) == "other"
    await soon(waiting.send("yes"))
    assert await soon(waiting.result()) == "yes"
    with pytest.raises(errors.TaskError, match="over"):
        await waiting.send("more")


async def test_a_task_that_is_not_done_in_time_expires(writer: Agent, planner: Agent) -> None:
    stopped = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    soon_over = datetime.now(timezone.utc) + timedelta(seconds=1)
    task = await soon(planner.delegate("writer", "write", expires_at=soon_over))
    with pytest.raises(errors.TaskExpired) as expired:
        await soon(task.result())
    assert expired.value.task_id == task.task_id
    await soon(stopped.wait())


async def test_a_task_for_a_peer_that_never_comes_expires_at_its_requester(planner: Agent) -> None:
    past = datetime.now(timezone.utc) - timedelta(seconds=60)
    task = await soon(planner.delegate("nobody", "write", expires_at=past, wait_online=True))
    with pytest.raises(errors.TaskExpired, match="no result from nobody"):
        await soon(task.result(), 20)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2099, 12, 31, 22, 0, tzinfo=timezone.utc),
        "2099-12-31T22:00:00Z",
        "2099-12-31T23:00:00.000+01:00",
        "2099-12-31 22:00Z",
        4102437600,
        4102437600.0,
    ],
    ids=str,
)
async def test_a_time_can_be_given_in_three_forms(
    writer: Agent, planner: Agent, moment: datetime | str | float
) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str | None:
        return task.expires_at

    assert await soon(planner.request("writer", expires_at=moment)) == "2099-12-31T22:00:00.000Z"


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("20991231", "'20991231' is no ISO 8601 time: write it like"),
        ("4102437600", "no ISO 8601 time"),
        ("20991231T220000Z", "no ISO 8601 time"),
        ("2099", "no ISO 8601 time"),
        ("", "no ISO 8601 time"),
        (60, r"Unix seconds such as time\.time\(\) \+ 60"),
        (20991231, "Unix seconds"),
        (4102437600_000, "Unix seconds"),
        (float("nan"), "Unix seconds"),
        (True, "Unix seconds"),
        (timedelta(seconds=60), "no ISO 8601 time"),
        (datetime(2099, 12, 31), "has no time zone: use datetime"),
        ("2099-12-31T22:00:00", "has no time zone"),
        ("2099-12-31", "has no time zone"),
    ],
    ids=str,
)
async def test_a_time_that_may_mean_two_things_is_refused(planner: Agent, moment: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        await planner.delegate("writer", expires_at=moment, wait_online=True)
    assert await planner.delegations() == []


async def test_what_cannot_be_sent_is_refused_before_anything_is_stored(writer: Agent, planner: Agent) -> None:
    with pytest.raises(errors.InvalidIdentifier):
        await planner.delegate("a/b", "write")
    with pytest.raises(errors.InvalidIdentifier):
        await planner.delegate("writer", "write", task_id="#")
    with pytest.raises(errors.WireError):
        await planner.delegate("writer", data=object())
    with pytest.raises(ValueError, match="ISO 8601"):
        await planner.delegate("writer", expires_at="tomorrow")
    with pytest.raises(errors.PayloadTooLarge):
        await planner.delegate("writer", "x" * 40_000_000)
    assert await planner.delegations() == []


async def test_a_result_that_no_broker_takes_fails_the_task(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str:
        return "x" * 40_000_000

    with pytest.raises(errors.TaskFailed, match="too many") as failed:
        await soon(planner.request("writer"), 30)
    assert failed.value.code == "RESULT_TOO_LARGE"


@pytest.mark.parametrize("expires_at", [None, "2099-12-31T23:59:59Z"])
async def test_a_task_just_above_the_limit_is_refused_before_it_is_stored(
    expires_at: str | None, make_agent: MakeAgent, writer: Agent, broker: Broker
) -> None:
    connection = Connection(broker.url, client_id="small", max_packet_size=8000)
    planner = make_agent("planner", broker=None, connection=connection)
    await soon(planner.start())
    refused = 0
    for size in range(7300, 7800, 10):
        try:
            await soon(planner.delegate("writer", "x" * size, task_id=f"t-{size}", expires_at=expires_at))
        except errors.PayloadTooLarge:
            refused += 1
            assert await planner.store.get(planner._scope.key("delegated", f"t-{size}")) is None  # pyright: ignore[reportPrivateUsage]
    assert 0 < refused < 50


async def test_a_result_just_above_the_limit_fails_its_task(
    make_agent: MakeAgent, planner: Agent, broker: Broker
) -> None:
    connection = Connection(broker.url, client_id="small", max_packet_size=8000)
    small = make_agent("small", broker=None, connection=connection)

    @small.on_task
    async def handle(task: TaskContext) -> str:
        return "x" * task.data

    await soon(small.start())
    # FlashMQ drops results when more than 64 KiB wait for one client, and the requester asks for them after 10 s.
    asking = [planner.request("small", data=size, timeout=60) for size in range(7500, 8000, 10)]
    answers = await soon(asyncio.gather(*asking, return_exceptions=True), 60)
    failed = [answer for answer in answers if not isinstance(answer, str)]
    assert {getattr(error, "code", error) for error in failed} == {"RESULT_TOO_LARGE"}
    assert len(failed) < len(answers)


@pytest.mark.parametrize("size", [2_000_000, 10_500_000], ids=["over max_payload", "10 MiB"])
async def test_a_result_that_the_requester_cannot_take_fails_on_both_sides(
    size: int, writer: Agent, planner: Agent, namespace: str
) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str:
        assert task.max_result == 1024 * 1024
        return "x" * size

    task = await soon(planner.delegate("writer"))
    with pytest.raises(errors.TaskFailed, match=r"too many for the requester \(max_result 1,048,576\)") as failed:
        await soon(task.result(), 30)
    assert (failed.value.code, failed.value.type) == ("RESULT_TOO_LARGE", "result_too_large")
    received = await writer.store.get(TaskKey(f"{namespace}/writer", "received", task.task_id, "planner"))
    delegated = await planner.store.get(TaskKey(f"{namespace}/planner", "delegated", task.task_id))
    assert received is not None
    assert delegated is not None
    assert received.state is delegated.state is TaskState.FAILED
    assert received.result == delegated.result


async def test_a_result_that_the_requesters_client_cannot_take_fails_on_both_sides(
    make_agent: MakeAgent, writer: Agent, broker: Broker, namespace: str
) -> None:
    small = Connection(broker.url, client_id="small", max_packet_size=200_000)
    planner = make_agent("small", connection=small)
    await soon(planner.start())

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        return "x" * task.data

    assert len(await soon(planner.request("writer", data=190_000))) == 190_000
    task = await soon(planner.delegate("writer", data=300_000))
    with pytest.raises(errors.TaskFailed, match="too many for the requester"):
        await soon(task.result())
    received = await writer.store.get(TaskKey(f"{namespace}/writer", "received", task.task_id, "small"))
    assert received is not None
    assert received.state is TaskState.FAILED
    await soon(planner.stop())


async def test_a_requester_that_reads_more_gets_more(make_agent: MakeAgent, writer: Agent) -> None:
    planner = make_agent("planner", max_payload=8 * 1024 * 1024)
    await soon(planner.start())

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        return "x" * 5_000_000

    assert len(await soon(planner.request("writer"), 30)) == 5_000_000


async def test_tasks_are_listed_by_state_and_followed_again(writer: Agent, planner: Agent) -> None:
    go = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> object:
        if task.data == "wait":
            await go.wait()
        return task.data

    done = await soon(planner.delegate("writer", data="done"))
    waits = await soon(planner.delegate("writer", data="wait"))
    await soon(done.result())
    await until(lambda: waits.state is TaskState.WORKING)
    assert [task.task_id for task in await planner.delegations()] == [done.task_id, waits.task_id]
    assert [task.task_id for task in await planner.delegations("completed")] == [done.task_id]
    assert (await planner.delegations(TaskState.COMPLETED))[0].done
    assert await (await planner.resume(done.task_id)).result() == "done"
    with pytest.raises(errors.TaskNotFound, match="t-9"):
        await planner.resume("t-9")
    go.set()
    assert await soon(waits.result()) == "wait"


async def test_a_listed_task_that_is_not_over_can_be_followed(
    make_agent: MakeAgent, writer: Agent, planner: Agent
) -> None:
    go = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        await go.wait()
        await task.stream("part")
        return "done"

    asked = await soon(planner.delegate("writer", "write"))
    await until(lambda: asked.state is TaskState.WORKING)
    await soon(planner.stop())
    await soon(planner.start())
    [listed] = await planner.delegations()
    events = listed.events()
    assert (await soon(events.__anext__())).status == "working"
    assert await planner.resume(asked.task_id) is listed
    go.set()
    assert [event.content or event.status async for event in events] == ["part", "completed"]


async def test_a_task_can_be_resumed_from_its_peer_where_the_store_is_lost(
    make_agent: MakeAgent, writer: Agent, planner: Agent
) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str:
        return "kept"

    task = await soon(planner.delegate("writer", "write"))
    await soon(task.result())
    await soon(planner.stop())
    elsewhere = make_agent("planner", store=MemoryStore())
    await soon(elsewhere.start())
    assert await soon((await elsewhere.resume(task.task_id, peer="writer")).result()) == "kept"
    with pytest.raises(errors.TaskRejected, match="does not know"):
        await soon((await elsewhere.resume("t-9", peer="writer")).result())


async def test_an_agent_can_give_tasks_to_itself(writer: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> object:
        if task.data == "inner":
            return "inner"
        return ["outer", await writer.request("writer", data="inner")]

    assert await soon(writer.request("writer")) == ["outer", "inner"]


async def test_stopping_leaves_what_runs_for_the_next_start(make_agent: MakeAgent, planner: Agent) -> None:
    writer = make_agent("writer", drain_timeout=0)
    attempts: list[int] = []
    interrupted: list[bool] = []
    go = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> object:
        attempts.append(task.attempt)
        if task.attempt == 1:
            await task.save({"page": 7})
            try:
                await go.wait()
            finally:
                interrupted.append(task.interrupted)
        return task.saved

    await soon(writer.start())
    task = await soon(planner.delegate("writer", "write"))
    await until(lambda: attempts)
    await soon(writer.stop())
    await soon(writer.start())
    assert await soon(task.result()) == {"page": 7}
    assert attempts == [1, 2]
    assert interrupted == [True]


async def test_an_answer_given_before_a_crash_is_not_asked_for_again(make_agent: MakeAgent, planner: Agent) -> None:
    writer = make_agent("writer", drain_timeout=0)
    hang = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> object:
        year = await task.ask("Which year?")
        if task.attempt == 1:
            hang.set()
            await asyncio.Event().wait()
        return [task.attempt, year, await task.ask("Which month?")]

    await soon(writer.start())
    task = await soon(planner.delegate("writer", "write"))
    await until(lambda: task.question)
    await soon(task.send(2024))
    await soon(hang.wait())
    await soon(writer.stop())
    await soon(writer.start())
    await until(lambda: task.question and task.question.content == "Which month?")
    await soon(task.send("May"))
    assert await soon(task.result()) == [2, 2024, "May"]


async def test_a_stopped_requester_says_so_to_who_waits(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> None:
        await asyncio.Event().wait()

    task = await soon(planner.delegate("writer", "write"))
    waiting = asyncio.create_task(task.result())
    await soon(planner.stop())
    with pytest.raises(errors.ConnectionLost, match="resume"):
        await soon(waiting)
    with pytest.raises(errors.ConnectionLost, match="not started"):
        await planner.delegate("writer", "write")
    await soon(planner.start())
    await soon((await planner.resume(task.task_id)).cancel())


async def test_more_tasks_than_may_wait_are_rejected(make_agent: MakeAgent, planner: Agent) -> None:
    writer = make_agent("writer", max_concurrency=1, max_waiting_tasks=2)
    go = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> object:
        await go.wait()
        return task.data

    await soon(writer.start())
    tasks = [await soon(planner.delegate("writer", data=number)) for number in range(4)]
    with pytest.raises(errors.TaskRejected, match="waiting") as rejected:
        await soon(tasks[3].result())
    assert rejected.value.code == "overloaded"
    go.set()
    assert [await soon(task.result()) for task in tasks[:3]] == [0, 1, 2]


async def test_an_agent_without_its_broker_still_stops(own_broker: Broker, namespace: str) -> None:
    writer = Agent("writer", broker=own_broker.url, namespace=namespace, store=MemoryStore(), drain_timeout=0.5)
    go = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        await go.wait()
        return "done"

    await soon(writer.start())
    task = await soon(writer.delegate("writer"))
    await until(lambda: writer.running_tasks)
    own_broker.kill()
    await until(lambda: not writer.connection.connected)
    go.set()
    await until(lambda: not writer.running_tasks)
    other = await soon(writer.delegate("writer", data="kept"))
    await soon(writer.stop())
    own_broker.start()
    await soon(writer.start())
    try:
        for task_id in (task.task_id, other.task_id):
            assert await soon((await writer.resume(task_id)).result()) == "done"
    finally:
        await soon(writer.stop())
