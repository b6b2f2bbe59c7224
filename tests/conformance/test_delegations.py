"""Our agent as a foreign executor sees it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker, Mosquitto, password_line
from mqtt_agent import Agent, MemoryStore, Password, TaskContext, TaskHandle, TaskState, errors
from mqtt_agent.agents.requesting import handle, inputs, reminders, resender
from mqtt_agent.agents.store import TaskKey
from mqtt_agent.wire import Task, TaskEvent
from proxy import Proxy
from support import becomes, soon, until

from ..agents.conftest import MakeAgent
from .foreign import Foreign, ForeignExecutor, Heard

RUN_ON = ALL_BROKERS


@pytest.fixture
async def scout(broker: Broker, namespace: str) -> AsyncIterator[ForeignExecutor]:
    peer = ForeignExecutor(broker.url, namespace, "scout")
    await soon(peer.start())
    yield peer
    await soon(peer.stop())


@pytest.fixture
async def planner(make_agent: MakeAgent, scout: ForeignExecutor) -> Agent:
    agent = make_agent("planner")
    await soon(agent.start())
    await becomes(lambda: agent.peer("scout"))
    return agent


@pytest.fixture
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays: 10 s become a tenth of a second."""
    monkeypatch.setattr(resender, "_ANSWERED_WITHIN", 0.01)
    monkeypatch.setattr(reminders, "_FIRST", 0.1)
    monkeypatch.setattr(reminders, "_EXPIRY_GRACE", 0.2)


async def over(task: TaskHandle) -> TaskState:
    await until(lambda: task.done)
    return task.state


@pytest.mark.rule("INBOX-1", "TASK-1", "TASK-17", "TASK-18", "TASK-2", "TASK-11", "TASK-13", "ASK-1")
async def test_a_task_is_as_in_the_document(broker: Broker, planner: Agent, scout: ForeignExecutor) -> None:
    expires = datetime.now(timezone.utc) + timedelta(seconds=100)
    options: dict[str, Any] = {"type": "t", "title": "A line", "context_id": "talk", "metadata": {"k": 1}}
    task = await soon(planner.delegate("scout", "go", data={"n": [1]}, expires_at=expires, task_id="t-1", **options))
    heard = await scout.next_task()
    sent = heard.json
    assert sent.pop("created_at").endswith("Z")
    assert sent.pop("expires_at").endswith("Z")
    expected = {
        "task_id": "t-1",
        "from": "planner",
        "to": "scout",
        "prompt": "go",
        "data": {"n": [1]},
        "max_result": 1024 * 1024,
    }
    assert sent == {**expected, **options}
    assert heard.response_topic == f"{scout.namespace}/tasks/planner/results"
    assert (heard.correlation, heard.qos, heard.retain) == (b"t-1", 1, False)
    assert heard.content_type == "application/json"
    if broker.expiry_stops_groups:
        assert heard.expiry is None
    else:
        assert heard.expiry is not None
        assert 90 < heard.expiry <= 100
    assert await planner.store.get(TaskKey(f"{planner.namespace}/planner", "delegated", "t-1")) is not None
    await scout.answer(heard, result=7)
    assert await soon(task.result()) == 7
    asking = asyncio.create_task(planner.request("scout", "go", task_id="t-2"))
    heard = await scout.next_task(2)
    assert heard.response_topic == f"{scout.namespace}/tasks/t-2/result"
    assert heard.json["stream"] is False
    await scout.answer(heard, result=8)
    assert await soon(asking) == 8
    assert scout.on("agents/scout/inbox") == []


@pytest.mark.rule("TASK-11")
async def test_a_task_may_expire_in_the_far_future(planner: Agent, scout: ForeignExecutor, broker: Broker) -> None:
    task = await soon(planner.delegate("scout", expires_at="9999-01-01T00:00:00Z"))
    heard = await scout.next_task()
    assert heard.expiry == broker.longest_life
    await scout.answer(heard, result=1)
    assert await soon(task.result()) == 1


@pytest.mark.rule("RESULT-1", "RESULT-10", "FAULT-1")
@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"result": {"n": None}}, {"n": None}),
        ({}, None),
        ({"status": "done", "result": 1}, 1),
        ({"status": "failed", "error": {"type": "OSError", "message": "no disk", "code": "E"}}, errors.TaskFailed),
        ({"status": "error", "error": "no disk"}, errors.TaskFailed),
        ({"status": "odd", "error": {"message": "no disk"}}, errors.TaskFailed),
        ({"status": "rejected"}, errors.TaskRejected),
        ({"status": "cancelled"}, errors.TaskCanceled),
        ({"status": "failed", "error": {"type": "expired"}}, errors.TaskExpired),
    ],
)
async def test_whatever_a_foreign_result_says_is_a_value_or_an_error(
    fields: dict[str, Any], outcome: Any, planner: Agent, scout: ForeignExecutor
) -> None:
    task = await soon(planner.delegate("scout"))
    await scout.answer(await scout.next_task(), **fields)
    if isinstance(outcome, type):
        with pytest.raises(outcome) as raised:
            await soon(task.result())
        assert task.task_id in str(raised.value)
        if "error" in fields and "no disk" in str(fields["error"]):
            assert "no disk" in str(raised.value)
    else:
        assert await soon(task.result()) == outcome


@pytest.mark.rule("RESULT-6", "RESULT-5", "RESULT-10", "STATE-2", "AHOST-5")
async def test_what_is_not_the_result_is_left_out_and_the_first_result_counts(
    planner: Agent, scout: ForeignExecutor
) -> None:
    task = await soon(planner.delegate("scout"))
    heard = await scout.next_task()
    await scout.answer(heard, result="forged", to="somebody")
    await scout.answer(heard, result="forged", **{"from": "eve"})
    await scout.answer(heard, status="working")
    await scout.answer(heard, task_id="never-given")
    await scout.answer(heard, task_id="a/b")
    await scout.event(heard, 0, "status", status="completed")
    await scout.answer(heard, result="right", **{"from": "scout", "to": "planner"})
    assert await soon(task.result()) == "right"
    await scout.answer(heard, result="late")
    await scout.answer(heard, status="failed")
    last = await soon(planner.delegate("scout"))
    await scout.answer(await scout.next_task(2))
    await soon(last.result())
    assert await (await planner.resume(task.task_id)).result() == "right"


@pytest.mark.rule("RESULT-11")
async def test_an_executor_whose_card_has_features_must_name_itself_in_a_result(
    planner: Agent, scout: ForeignExecutor
) -> None:
    await scout.say("agents/scout/card", {"name": "scout", "features": ["events"]}, retain=True)
    await becomes(lambda: _has_features(planner))
    task = await soon(planner.delegate("scout"))
    heard = await scout.next_task()
    await scout.answer(heard, result="forged")
    await scout.answer(heard, result="forged", **{"from": "scout"})
    await scout.answer(heard, result="forged", to="planner")
    await scout.answer(heard, result="right", to="planner", **{"from": "scout"})
    assert await soon(task.result()) == "right"


async def _has_features(planner: Agent) -> bool:
    card = await planner.peer("scout")
    return card is not None and card.features is not None


@pytest.mark.rule("RESULT-6")
async def test_a_retained_result_answers_nothing(make_agent: MakeAgent, scout: ForeignExecutor) -> None:
    result = {"task_id": "t-1", "status": "completed", "result": "old"}
    await scout.say("tasks/planner/results", result, retain=True)
    await scout.say("tasks/t-1/result", result, retain=True)
    planner = make_agent("planner")
    await soon(planner.start())
    asking = asyncio.create_task(planner.request("scout", task_id="t-1"))
    await scout.answer(await scout.next_task(), result="new")
    assert await soon(asking) == "new"


@pytest.mark.rule("RESULT-9", "ALIMIT-1")
@pytest.mark.parametrize("payload", [b"null", b'{"task_id": 7}', b'{"task_id": "t-1", "status": 5}', b"x" * 1_100_000])
async def test_a_result_that_cannot_be_read_fails_its_task(
    payload: bytes, broker: Broker, planner: Agent, scout: ForeignExecutor
) -> None:
    task = await soon(planner.delegate("scout", task_id="t-1"))
    await scout.next_task()
    if broker.most_waiting_bytes is None or len(payload) < broker.most_waiting_bytes:
        await scout.say("tasks/planner/results", payload)
        await scout.say("tasks/planner/results", payload, correlation=b"other")
    for number in range(1, 4):  # nothing proves who has sent the first: the executor is asked again
        heard = await scout.next_task(number)
        assert not task.done
        await scout.say("tasks/planner/results", payload, correlation=heard.correlation)
    with pytest.raises(errors.TaskFailed) as failed:
        await soon(task.result())
    assert failed.value.type == "unreadable_result"
    assert failed.value.task_id == "t-1"


@pytest.mark.rule("EVENT-2", "EVENT-4", "EVENT-5", "EVENT-7", "RESULT-7")
async def test_events_of_a_foreign_executor_are_passed_on_in_order(planner: Agent, scout: ForeignExecutor) -> None:
    task = await soon(planner.delegate("scout"))
    heard = await scout.next_task()
    await scout.event(heard, 1, "status", status="working")
    await scout.event(heard, 3, content="three")
    await scout.event(heard, 2, content="late")
    await scout.event(heard, 3, content="again")
    await scout.event(heard, 4, "thought", content="four")
    await scout.say(f"tasks/{task.task_id}/events", b"junk")
    await scout.say(f"tasks/{task.task_id}/events", {"task_id": "other", "seq": 9})
    await scout.answer(heard, result=1, seq=6)
    await scout.event(heard, 5, content="after the result")

    async def read() -> list[TaskEvent]:
        return [event async for event in task.events()]

    events = await soon(read())
    contents = [event.content for event in events if event.type != "status"]
    assert contents == ["three", "four", "after the result"]
    assert [event.type for event in events][:3] == ["status", "partial", "thought"]
    assert task.state is TaskState.COMPLETED


@pytest.mark.rule("EVENT-5", "RESULT-7")
async def test_where_events_got_lost_the_reader_makes_the_last_of_the_result(
    planner: Agent, scout: ForeignExecutor
) -> None:
    task = await soon(planner.delegate("scout"))
    await scout.answer(await scout.next_task(), result=1, seq=9)

    async def read() -> list[TaskEvent]:
        return [event async for event in task.events()]

    assert [(event.type, event.status) for event in await soon(read())] == [("status", "completed")]


@pytest.mark.rule("EVENT-9")
async def test_the_reader_makes_no_second_event_of_a_state_that_it_was_told_when_it_asked(
    planner: Agent, scout: ForeignExecutor
) -> None:
    task = await soon(planner.delegate("scout"))
    heard = await scout.next_task()
    await scout.event(heard, 0, "status", status="working", attempt=1)
    await until(lambda: task.state is TaskState.WORKING)
    await scout.answer(heard, result=1, seq=1, attempt=1)

    async def read() -> list[str | None]:
        return [event.status async for event in task.events()]

    assert await soon(read()) == ["working", "completed"]


@pytest.mark.rule("EVENT-9", "EVENT-5", "RESULT-7")
async def test_the_reader_makes_both_events_of_a_short_task_from_its_result_and_does_not_wait(
    planner: Agent, scout: ForeignExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "_LATE_EVENTS", 3600)
    task = await soon(planner.delegate("scout"))
    await scout.answer(await scout.next_task(), result=1, seq=1, attempt=1)

    async def read() -> list[TaskEvent]:
        return [event async for event in task.events()]

    assert [(event.status, event.attempt, event.seq) for event in await soon(read())] == [
        ("working", 1, 0),
        ("completed", 1, 1),
    ]
    assert task.attempt == 1


@pytest.mark.rule("CTRL-1", "CTRL-3", "EVENT-6", "CTRL-5", "ASK-6")
async def test_words_are_as_in_the_document(
    planner: Agent, scout: ForeignExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await soon(planner.delegate("scout", task_id="t-1"))
    heard = await scout.next_task()
    question = {"status": "input-required", "content": "Which year?", "data": {"input_id": "q-1"}}
    await scout.event(heard, 1, "status", **question)
    await until(lambda: task.question)
    await soon(task.send({"year": 2024}))
    await until(lambda: scout.words("input"))
    await scout.event(heard, 0, "status", **question)  # the question may have crossed the answer on the network
    await scout.event(heard, 2, content="a mark")
    await until(lambda: task._seq == 2)
    assert len(scout.words("input")) == 1
    monkeypatch.setattr(inputs, "_CROSSED_WITHIN", 0)
    await soon(scout.event(heard, 0, "status", status="working"))
    await scout.event(heard, 0, "status", **question)  # the answer was lost
    await until(lambda: len(scout.words("input")) == 2)
    for word in scout.words("input"):
        assert word.pop("timestamp").endswith("Z")
        expected = {"task_id": "t-1", "action": "input", "from": "planner", "input": {"year": 2024}, "input_id": "q-1"}
        assert word == expected
    await soon(task.cancel("too late"))
    await until(lambda: scout.words("cancel"))
    (word,) = scout.words("cancel")
    assert (word["task_id"], word["from"], word["reason"]) == ("t-1", "planner", "too late")
    said = scout.raw("tasks/scout/control")[-1]
    assert (said.correlation, said.response_topic) == (b"t-1", f"{scout.namespace}/tasks/planner/results")
    await scout.answer(heard, status="canceled")
    assert await over(task) is TaskState.CANCELED


def same_work(one: Heard, other: Heard) -> bool:
    return one.json == other.json


@pytest.mark.rule("ASK-2", "ASK-3")
async def test_a_task_without_result_is_sent_again_until_it_has_one(
    in_no_time: None, planner: Agent, scout: ForeignExecutor
) -> None:
    asking = asyncio.create_task(planner.request("scout", "go"))
    first, *others = [await scout.next_task(count) for count in range(1, 5)]
    assert all(same_work(first, other) for other in others)
    assert {other.response_topic for other in others} == {f"{scout.namespace}/tasks/planner/results"}
    gaps = [later.at - earlier.at for earlier, later in pairwise(others)]
    assert gaps[0] < gaps[1]
    await scout.answer(others[-1], result=1)
    assert await soon(asking) == 1


@pytest.mark.rule("ASK-2")
def test_the_times_of_asking_again_are_those_of_the_document() -> None:
    assert (reminders._FIRST, reminders._MAX, reminders._EXPIRY_GRACE) == (10, 300, 5)


@pytest.mark.rule("ASK-2", "STATUS-4", "ACARD-4")
async def test_a_task_is_sent_again_when_its_executor_comes_back(planner: Agent, scout: ForeignExecutor) -> None:
    await scout.show("online", started="2026-04-21T10:00:00.000Z", epoch=1)
    task = await soon(planner.delegate("scout"))
    first = await scout.next_task()
    await scout.show("offline", started="2026-04-21T10:00:00.000Z", epoch=1)
    await scout.show("online", started="2026-04-21T10:00:00.000Z", epoch=2)
    assert same_work(await scout.next_task(2, seconds=5), first)
    await scout.show("online", started="2026-04-21T10:00:09.000Z", epoch=1)
    again = await scout.next_task(3, seconds=5)
    await scout.answer(again, result=1)
    assert await soon(task.result()) == 1


@pytest.mark.rule("ASK-2", "ASK-5")
async def test_the_next_process_sends_what_is_open_and_cancels_what_was_to_be_canceled(
    make_agent: MakeAgent, scout: ForeignExecutor
) -> None:
    store = MemoryStore()
    planner = make_agent("planner", store=store)
    await soon(planner.start())
    await soon(planner.delegate("scout", task_id="open"))
    unwanted = await soon(planner.delegate("scout", task_id="unwanted"))
    first = await scout.next_task()
    await scout.next_task(2)
    await soon(unwanted.cancel())
    await until(lambda: len(scout.words("cancel")) == 1)
    await soon(planner.stop())
    await soon(planner.start())
    assert same_work(await scout.next_task(3), first)
    await until(lambda: len(scout.words("cancel")) == 2)
    assert len(scout.tasks()) == 3


@pytest.mark.rule("ASK-2")
async def test_after_a_reconnect_what_is_open_is_sent_again(
    make_agent: MakeAgent, broker: Broker, scout: ForeignExecutor
) -> None:
    async with Proxy(broker.url) as proxy:
        planner = make_agent("planner", broker=proxy.url)
        await soon(planner.start())
        task = await soon(planner.delegate("scout"))
        first = await scout.next_task()
        proxy.drop()
        again = await scout.next_task(2, seconds=5)  # sooner than the reminder after 10 s
        assert same_work(first, again)
        await scout.answer(again, result=1)
        assert await soon(task.result()) == 1


@pytest.mark.rule("ASK-4")
async def test_events_put_asking_again_off(in_no_time: None, planner: Agent, scout: ForeignExecutor) -> None:
    def asked(task_id: str) -> int:
        return sum(each.json["task_id"] == task_id for each in scout.tasks())

    await soon(planner.delegate("scout", task_id="lively"))
    lively = await scout.next_task()
    await soon(planner.delegate("scout", task_id="silent"))
    number = 0
    while asked("silent") < 4:
        number += 1
        await scout.event(lively, number, "progress", progress=number)
    assert asked("lively") <= 2


@pytest.mark.rule("ASK-7")
async def test_a_task_without_result_ends_after_its_time(
    in_no_time: None, planner: Agent, scout: ForeignExecutor
) -> None:
    task = await soon(planner.delegate("scout", expires_at=datetime.now(timezone.utc) + timedelta(seconds=0.3)))
    with pytest.raises(errors.TaskExpired) as expired:
        await soon(task.result())
    assert expired.value.task_id == task.task_id


@pytest.mark.rule("APEER-1", "APEER-2", "ACARD-3", "ACARD-4", "STATUS-1", "STATUS-3")
async def test_foreign_cards_and_statuses_are_understood(planner: Agent, scout: ForeignExecutor) -> None:
    async def online() -> list[str]:
        return [card.name for card in await planner.peers()]

    assert await soon(online()) == ["scout"]
    await scout.say("agents/scout/status", {"status": "offline"}, retain=True)
    await becomes(lambda: is_equal(online, []))
    await scout.say("agents/scout/status", {"status": "online"}, retain=True)
    await becomes(lambda: is_equal(online, ["scout"]))
    await scout.say("agents/scout/status", b"", retain=True)
    await scout.say("agents/scout/card", {"name": "scout", "status": "offline"}, retain=True)
    await becomes(lambda: is_equal(online, []))
    await scout.say("agents/scout/card", b"", retain=True)
    await becomes(lambda: is_equal(lambda: planner.peer("scout"), None))
    await scout.show("online", started="2026-04-21T10:00:00.000Z", epoch=2)
    await becomes(lambda: is_equal(online, ["scout"]))
    await scout.say(
        "agents/scout/status", {"status": "offline", "started": "2026-04-21T10:00:00.000Z", "epoch": 1}, retain=True
    )
    await scout.say("agents/last/card", {"name": "last"}, retain=True)
    await becomes(lambda: is_equal(online, ["last", "scout"]))


async def is_equal(ask: Callable[[], Any], expected: Any) -> bool:
    return await ask() == expected


@pytest.mark.rule("APEER-2")
async def test_the_list_is_complete_when_a_word_to_oneself_is_back(
    make_agent: MakeAgent, scout: ForeignExecutor
) -> None:
    for number in range(50):
        await scout.say(f"agents/peer-{number}/card", {"name": f"peer-{number}"}, retain=True)
    await scout.listen("tasks/planner/control/planner")
    planner = make_agent("planner")
    await soon(planner.start())
    assert len(await soon(planner.peers())) == 51
    await until(lambda: scout.on("tasks/planner/control/planner"))
    for word in scout.on("tasks/planner/control/planner"):
        assert word["task_id"].startswith("barrier-")
        assert (word["action"], word["from"]) == ("get", "planner")
    with pytest.raises(errors.InvalidIdentifier, match="barrier-"):
        await planner.delegate("scout", task_id="barrier-1")


@pytest.mark.rule("AHOST-4", "ALIMIT-2")
async def test_odd_cards_and_statuses_leave_the_good_ones(planner: Agent, scout: ForeignExecutor) -> None:
    for payload in (b"null", b"{", b'{"name": 5}', b'{"status": "sideways"}', b"x" * 300_000):
        await scout.say("agents/scout/card", payload)
        await scout.say("agents/scout/status", payload)
    await scout.say("agents/scout/card", {"name": "eve", "status": "offline", "capabilities": ["mischief"]})
    await scout.say("agents/last/card", {"name": "last"}, retain=True)
    await becomes(lambda: planner.peer("last"))
    card = await planner.peer("scout")
    assert card is not None
    assert (card.status, card.capabilities) == ("online", [])


@pytest.mark.rule("STATUS-3")
async def test_a_late_last_will_of_an_earlier_connection_is_ignored(planner: Agent, scout: ForeignExecutor) -> None:
    began, before = "2026-04-21T10:00:09.000Z", "2026-04-21T10:00:00.000Z"
    await scout.show("online", started=began, epoch=2)
    for number, late in enumerate([{"started": began, "epoch": 1}, {"started": before, "epoch": 7}]):
        await scout.say("agents/scout/status", {"name": "scout", "status": "offline", "timestamp": began, **late})
        await scout.say(f"agents/last-{number}/card", {"name": f"last-{number}"}, retain=True)
        await becomes(lambda number=number: planner.peer(f"last-{number}"))
        assert "scout" in [card.name for card in await soon(planner.peers())]
    await scout.say(
        "agents/scout/status", {"name": "scout", "status": "offline", "timestamp": began, "started": began, "epoch": 2}
    )

    async def offline() -> bool:
        return "scout" not in [card.name for card in await planner.peers()]

    await becomes(offline)


@pytest.mark.rule("ALIMIT-3")
async def test_more_cards_than_may_be_kept_are_left_out(make_agent: MakeAgent, scout: ForeignExecutor) -> None:
    for number in range(10):
        await scout.say(f"agents/peer-{number}/card", {"name": f"peer-{number}"}, retain=True)
    planner = make_agent("planner", max_peers=5)
    await soon(planner.start())
    assert len(await soon(planner.peers(online_only=False))) <= 5


@pytest.mark.rule("ALIMIT-3")
async def test_the_status_of_an_agent_takes_no_place_from_a_card(make_agent: MakeAgent, scout: ForeignExecutor) -> None:
    names = [f"peer-{number}" for number in range(10)]
    for name in names:
        await scout.say(f"agents/{name}/card", {"name": name}, retain=True)
        await scout.say(f"agents/{name}/status", {"name": name, "status": "online"}, retain=True)
    planner = make_agent("planner", max_peers=12)  # with the agents "planner" and "scout"
    await soon(planner.start())
    assert {card.name for card in await soon(planner.peers())} >= set(names)


@pytest.mark.rule("ALIMIT-6")
async def test_of_events_that_nobody_reads_the_latest_are_kept(planner: Agent, scout: ForeignExecutor) -> None:
    task = await soon(planner.delegate("scout"))
    heard = await scout.next_task()
    for number in range(1, 1101):
        scout._client.publish(
            f"{scout.namespace}/tasks/{task.task_id}/events",
            json.dumps({"task_id": task.task_id, "seq": number, "type": "partial"}),
            1,
        )
    await until(lambda: task.dropped_events == 100, 30)
    await scout.answer(heard)
    await soon(task.result())


@pytest.mark.rule("AHOST-2", "AHOST-3")
async def test_what_a_peer_calls_itself_is_taken_as_it_is_and_never_as_a_topic(
    planner: Agent, scout: ForeignExecutor
) -> None:
    task = await soon(planner.delegate("scout"))
    heard = await scout.next_task()
    for odd in ("a/b", "#", "+", "$SYS", "", "x" * 300):
        await scout.answer(heard, task_id=odd or "/")
        await scout.answer(heard, **{"from": odd})
        await scout.say("tasks/planner/inbox", {"task_id": odd, "from": "scout", "prompt": "x"})
        await scout.say("tasks/planner/control", {"task_id": odd, "from": odd, "action": "cancel"})
    await scout.answer(heard, result=1, **{"from": "scout"})
    assert await soon(task.result()) == 1
    assert planner.connection.epoch == 1


@pytest.mark.rule("ONLINE-4", "ONLINE-5", "ONLINE-1", "ONLINE-8")
async def test_card_and_status_come_again_after_each_reconnect(
    make_agent: MakeAgent, broker: Broker, namespace: str, scout: ForeignExecutor
) -> None:
    await scout.listen("agents/+/card", "agents/+/status")
    async with Proxy(broker.url) as proxy:
        planner = make_agent("planner", broker=proxy.url, will_delay=30)
        assert planner.connection.client_id == f"planner@{namespace.replace('/', '.')}"
        await soon(planner.start())
        for epoch in (1, 2, 3):
            await until(lambda epoch=epoch: epoch in epochs(scout))
            proxy.drop()
        await until(lambda: 4 in epochs(scout))
        shown = [heard for heard in scout.heard if heard.topic.startswith("agents/planner/")]
        kinds = "".join(heard.topic.rpartition("/")[2][0] for heard in shown)
        # Messages that the broker had not confirmed when the connection broke are sent again.
        assert re.fullmatch("(c+s+){4,}", kinds), kinds
        assert {heard.json["status"] for heard in shown} == {"online"}
        before = len(scout.on("agents/scout/status"))
        await scout.show("offline")
        await scout.show("online")
        await until(lambda: len(scout.on("agents/scout/status")) == before + 2)
    assert Agent("planner", store=MemoryStore()).connection.client_id == "planner"


def epochs(scout: Foreign) -> list[int]:
    return [status["epoch"] for status in scout.on("agents/planner/status")]


@pytest.mark.rule("ONLINE-10")
async def test_of_two_processes_the_first_ends_and_does_not_fight_back(
    make_agent: MakeAgent, scout: ForeignExecutor
) -> None:
    first = make_agent("planner")
    await soon(first.start())
    task = await soon(first.delegate("scout"))
    second = make_agent("planner")
    await soon(second.start())
    with pytest.raises(errors.SessionTakenOver, match=task.task_id):
        await soon(task.result(), 20)
    assert not first.connection.connected
    await until(lambda: second.connection.connected)
    resumed = await soon(second.resume(task.task_id, peer="scout"))
    await until(lambda: any(Task.model_validate(each.json).bare for each in scout.tasks()))
    await scout.answer(scout.tasks()[-1], result=1)
    assert await soon(resumed.result()) == 1


AGENT_RIGHTS = """\
topic write ns/agents/{name}/card
topic write ns/agents/{name}/status
topic write ns/tasks/+/results
topic write ns/tasks/+/result
topic read ns/tasks/{name}/inbox
topic read ns/agents/{name}/inbox
topic write ns/tasks/+/events
topic write ns/tasks/{name}/control
topic read ns/tasks/{name}/control
topic read ns/agents/{name}/card
topic read ns/agents/{name}/status
topic write ns/tasks/+/inbox
topic read ns/tasks/{name}/results
topic read ns/tasks/+/result
topic read ns/agents/+/card
topic read ns/agents/+/status
topic write ns/tasks/+/control
topic read ns/tasks/+/events
"""


@pytest.mark.rule("AACCESS-1")
async def test_the_rights_of_the_document_are_enough_for_agents(
    make_mosquitto: Callable[..., Mosquitto], caplog: pytest.LogCaptureFixture
) -> None:
    broker = start_with_rights(make_mosquitto, {name: AGENT_RIGHTS.format(name=name) for name in ("planner", "writer")})
    planner, writer = (agent_with_rights(broker, name) for name in ("planner", "writer"))

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        await task.stream("part")
        return await task.ask("Well?") if task.data == "ask" else task.data

    async with writer, planner:
        seen: list[TaskEvent] = []
        assert await soon(planner.request("writer", data=1, on_event=seen.append)) == 1
        assert [event.type for event in seen] == ["status", "partial", "status"]
        task = await soon(planner.delegate("writer", data="ask"))
        await until(lambda: task.question)
        await soon(task.send("yes"))
        assert await soon(task.result()) == "yes"
        task = await soon(planner.delegate("writer", data="ask"))
        await until(lambda: task.question)
        await soon(task.cancel())
        with pytest.raises(errors.TaskCanceled):
            await soon(task.result())
    assert [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("mqtt_agent") and record.levelno >= 30
    ] == []


@pytest.mark.rule("ASK-8")
async def test_a_task_that_the_broker_refuses_has_failed(make_mosquitto: Callable[..., Mosquitto]) -> None:
    rights = AGENT_RIGHTS.format(name="planner").replace("topic write ns/tasks/+/inbox\n", "")
    broker = start_with_rights(make_mosquitto, {"planner": rights, "writer": AGENT_RIGHTS.format(name="writer")})
    planner, writer = (agent_with_rights(broker, name) for name in ("planner", "writer"))
    async with writer, planner:
        with pytest.raises(errors.TopicNotAuthorized, match="t-1"):
            await soon(planner.request("writer", task_id="t-1"))
        with pytest.raises(errors.TopicNotAuthorized, match="t-2"):
            await soon(planner.delegate("writer", task_id="t-2"))

        async def failed() -> bool:
            return len(await planner.delegations("failed")) == 2

        await becomes(failed)


def start_with_rights(make_mosquitto: Callable[..., Mosquitto], rights: dict[str, str]) -> Mosquitto:
    """A broker on which each user has only the given rights."""
    return make_mosquitto(
        ["acl_file {folder}/acl", "password_file {folder}/passwords"],
        anonymous=False,
        files={
            "acl": "\n".join(f"user {name}\n{allowed}" for name, allowed in rights.items()),
            "passwords": "".join(password_line(name, "secret") for name in rights),
        },
        credentials={"username": next(iter(rights)), "password": "secret"},
    )


def agent_with_rights(broker: Mosquitto, name: str) -> Agent:
    return Agent(
        name,
        broker=broker.url,
        namespace="ns",
        store=MemoryStore(),
        credentials=Password(name, "secret"),
        drain_timeout=0,
    )
