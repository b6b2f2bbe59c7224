"""Messages of hostile and broken peers to agents: no message does any harm, and each fault is logged once."""

from __future__ import annotations

import gc
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from brokers import ROOMY_BROKERS, Broker, Ejabberd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mqtt_agent import errors
from mqtt_agent.transport import Bound
from mqtt_agent.wire import TaskState
from support import becomes, soon, until

from .agents import AgentStage
from .payloads import NO_JSON_OBJECT, fuzzed
from .peer import properties

RUN_ON = ROOMY_BROKERS
LONG_ON = [Ejabberd]

ODD_IDS = ["", "a/b", "#", "+", "$SYS", "a\x00b", "x" * 300, "\ufeff"]
DEEP = b'{"task_id": "t-1", "from": "peer", "status": "completed", "data": ' + b"[" * 5000 + b"]" * 5000 + b"}"
LARGE = json.dumps({"task_id": "t-1", "from": "peer", "status": "completed", "prompt": "x" * 1_100_000}).encode()
JUNK = [*(payload for payload, _ in NO_JSON_OBJECT.values()), b"", DEEP, LARGE, b'{"task_id": 7, "status": []}']


@pytest.fixture
def bound() -> Bound:
    """Whether the honest agents speak sender-bound topics."""
    return "prefer"


@pytest.fixture
async def silent(
    broker: Broker, namespace: str, caplog: pytest.LogCaptureFixture, bound: Bound
) -> AsyncIterator[AgentStage]:
    """A stage that the test starts itself."""
    caplog.set_level(logging.DEBUG, "mqtt_agent")
    stage = AgentStage(broker, namespace, caplog, bound)
    yield stage
    await stage.stop()


@pytest.fixture
async def stage(silent: AgentStage) -> AgentStage:
    await silent.start()
    return silent


@pytest.mark.rule("TASK-9")
async def test_a_response_topic_anywhere_else_is_refused_and_never_used(stage: AgentStage) -> None:
    topics, inbox = stage.topics, stage.topics.inbox("writer")
    wrong = [f"{stage.namespace}/tasks/+/results", f"{stage.namespace}/#", "#"]
    elsewhere = [
        *(wrong if stage.broker.keeps_wrong_response_topics else []),
        *("somewhere", f"{stage.namespace}/elsewhere"),
        *("$SYS/broker", "$share/g/x", topics.results("planner"), topics.inbox("planner"), topics.inbox("writer")),
        *(topics.task_result("other"), topics.agent_status("planner"), topics.control("planner"), "x" * 60_000),
        topics.bound.results("victim", "writer"),  # the executor may write it, but the plain inbox proves no requester
    ]
    for number, reply_to in enumerate(elsewhere):
        packed = stage.properties(response_topic=reply_to, correlation=f"t-{number}".encode())
        await stage.attack(inbox, stage.task(f"t-{number}"), packed)
    await stage.settle()
    results = stage.results()
    assert {result["task_id"] for result in results} <= {f"t-{number}" for number in range(len(elsewhere))}
    assert {(result["status"], result["error"]["type"]) for result in results} == {("rejected", "invalid_task")}
    assert not any(run.startswith("t-") for run in stage.runs)
    own = [topics.task_result(f"t-{number}") for number in range(len(elsewhere))]
    await stage.check((inbox, "a task that is refused"), business=own)


@pytest.mark.rule("ABOUND-4", "ABOUND-3")
async def test_the_answer_to_a_sender_bound_task_goes_to_its_sender_whatever_the_task_says(stage: AgentStage) -> None:
    topics = stage.topics
    inbox, answers = topics.bound.inbox("writer", "peer"), topics.bound.results("peer", "writer")
    elsewhere = [
        *("somewhere", f"{stage.namespace}/elsewhere", topics.results("planner"), topics.inbox("planner")),
        *(topics.bound.results("planner", "writer"), topics.bound.inbox("planner", "writer"), topics.results("peer")),
        *(topics.task_result("other"), topics.agent_status("planner"), topics.bound.control("planner", "planner")),
    ]
    for number, reply_to in enumerate(elsewhere):
        packed = stage.properties(response_topic=reply_to, correlation=f"t-{number}".encode())
        await stage.attack(inbox, stage.task(f"t-{number}", data=number), packed)
        await stage.attack(inbox, b"junk", packed)
        await stage.attack(inbox, stage.task(f"forged-{number}", **{"from": "planner"}), packed)
    for odd in ODD_IDS:
        await stage.attack(inbox, stage.task(odd), stage.properties(correlation=odd.encode()))
    await stage.settle()
    ended = {result["task_id"]: result["result"] for result in stage.results(answers) if "result" in result}
    assert ended == {f"t-{number}": number for number in range(len(elsewhere))}
    refused = [result for result in stage.results(answers) if "result" not in result]
    assert {(result["status"], result["error"]["type"]) for result in refused} == {("rejected", "invalid_task")}
    assert len(refused) == len(elsewhere)
    assert not any(run.startswith("forged") for run in stage.runs)
    assert stage.results() == []
    events = [topics.bound.events("peer", f"t-{number}", "writer") for number in range(len(elsewhere))]
    await stage.check(
        (inbox, "an unreadable task"),
        (inbox, "a message in the name of another agent"),
        (inbox, "a task that is refused"),
        business=[answers, *events],
    )


@pytest.mark.rule("AHOST-2", "NAME-3")
async def test_impossible_ids_become_no_topic(stage: AgentStage) -> None:
    topics = stage.topics
    for odd in ODD_IDS:
        await stage.attack(topics.inbox("writer"), stage.task(odd), stage.properties(correlation=odd.encode()))
        await stage.attack(topics.control("writer"), {"task_id": odd, "action": "cancel", "from": "peer"})
        await stage.attack(topics.control("writer"), {"task_id": "t-9", "action": "get", "from": odd or "/"})
        result = {"task_id": odd, "status": "completed", "from": "writer"}
        await stage.attack(topics.results("planner"), result, properties(correlation=odd.encode()))
    for odd in ODD_IDS[1:]:
        await stage.attack(topics.inbox("writer"), stage.task("t-1", **{"from": odd}), stage.properties())
    await stage.settle()
    assert stage.results() == []
    assert {result["error"]["type"] for result in stage.results(topics.task_result("t-1"))} == {"invalid_task"}
    faults = [
        (topics.inbox("writer"), "a task that is refused"),
        (topics.inbox("writer"), "an unreadable task"),
        (topics.control("writer"), "an unreadable control message"),
        (topics.control("writer"), "impossible names"),
        (topics.results("planner"), "a result that is retained, or has an impossible task id"),
        (topics.results("planner"), "an unreadable result"),
    ]
    await stage.check(*faults, business=[topics.task_result("t-1")])


@pytest.mark.rule("HOST-1", "HOST-2", "AHOST-1", "AHOST-4", "ALIMIT-1", "LIMIT-4")
@pytest.mark.parametrize("bound", ["prefer", "off"])
async def test_junk_on_every_topic_is_told_once_and_harms_nothing(stage: AgentStage, bound: Bound) -> None:
    topics = stage.topics
    stage.expect("busy")
    task = await soon(stage.planner.delegate("writer", "wait", task_id="busy", wait_online=True))
    assert task.bound == (bound == "prefer")
    await until(lambda: "busy" in stage.runs)
    where = {
        topics.inbox("writer"): "an unreadable task",
        topics.overview_inbox("writer"): "an unreadable task",
        topics.control("writer"): "an unreadable control message",
        topics.results("planner"): "an unreadable result",
        topics.agent_card("peer"): "an unreadable card or status",
        topics.agent_status("peer"): "an unreadable card or status",
    }
    if bound == "off":
        where[topics.task_events("busy")] = "an unreadable event"
    else:
        where |= {
            topics.bound.inbox("writer", "peer"): "an unreadable task",
            topics.bound.control("writer", "peer"): "an unreadable control message",
            topics.bound.results("planner", "peer"): "an unreadable result",
            topics.bound.events("planner", "busy", "peer"): "an unreadable event",
            topics.bound.events("planner", "busy", "writer"): "an unreadable event",
        }
    for topic in where:
        for payload in JUNK:
            await stage.attack(topic, payload)
    await stage.settle()
    told = [line for line in stage.faults() if "unreadable" in line]
    for topic, reason in where.items():
        readers = 2 if topic.endswith(("card", "status")) else 1  # both agents follow their peers
        assert sum(f"{reason} on {topic}: " in line for line in told) == readers, (topic, told)
    stage.go_on.set()
    assert await soon(task.result()) is None
    stage.check_connections()
    assert stage.errors() == []
    answers = {topics.task_result("t-1"), topics.task_result("x"), topics.bound.results("peer", "writer")}
    assert stage.strays() <= answers


@pytest.mark.rule("HOST-11")
async def test_odd_properties_cost_no_connection(stage: AgentStage) -> None:
    topics = stage.topics
    for text in ("\ufeff", "a\x00b", "\uffff", b"\xff\xfe", ""):
        suffix = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        for packed in (
            properties(user=[("key", text)]),
            properties(content_type=text),
            properties(response_topic=b"some/topic/" + suffix),
            properties(correlation=b"\xff" * 10_000, user=[("traceparent", text)] * 50),
        ):
            for topic in (topics.inbox("writer"), topics.control("writer"), topics.results("planner")):
                await stage.attack(topic, stage.task("t-odd"), packed)
    await stage.settle()
    stage.check_connections()
    assert stage.errors() == []


@pytest.mark.rule("RESULT-6", "RESULT-5", "RESULT-11", "AHOST-6")
@pytest.mark.parametrize("bound", ["off"])
async def test_results_that_are_none_of_the_readers_change_nothing(stage: AgentStage) -> None:
    topics = stage.topics
    stage.expect("busy")
    task = await soon(stage.planner.delegate("writer", "wait", task_id="busy", data="right", wait_online=True))
    await until(lambda: "busy" in stage.runs)
    where, forged = topics.results("planner"), {"task_id": "busy", "status": "completed", "result": "forged"}
    for _ in range(50):
        await stage.attack(where, {**forged, "task_id": "never-given"})
        await stage.attack(where, {**forged, "from": "peer"})
        await stage.attack(where, {**forged, "from": "writer", "to": "somebody"})
        await stage.attack(where, {**forged, "status": "working"})
        await stage.attack(where, forged)
        await stage.attack(where, {**forged, "to": "planner"})
        await stage.attack(where, {**forged, "from": "writer"})
    await stage.settle()
    stage.go_on.set()
    assert await soon(task.result()) == "right"
    for _ in range(50):
        await stage.attack(where, {**forged, "from": "writer", "to": "planner"})
        await stage.attack(where, {**forged, "status": "failed"})
    await stage.check(
        (where, "a result of a task that was not delegated"),
        (where, "a result from another agent"),
        (where, "a result for another agent"),
        (where, "a result of a task that is not over"),
        (where, "a result without 'from'"),
        (where, "a result without 'to'"),
    )
    assert await (await stage.planner.resume("busy")).result() == "right"


@pytest.mark.rule("ABOUND-3", "ABOUND-7", "RESULT-6", "RESULT-5")
async def test_only_the_executor_s_own_topic_gives_the_result_of_a_sender_bound_task(stage: AgentStage) -> None:
    topics = stage.topics
    stage.expect("busy")
    task = await soon(stage.planner.delegate("writer", "wait", task_id="busy", data="right", wait_online=True))
    await until(lambda: "busy" in stage.runs)
    plain, own = topics.results("planner"), topics.bound.results("planner", "writer")
    peers = topics.bound.results("planner", "peer")
    forged = {"task_id": "busy", "status": "completed", "result": "forged", "to": "planner"}
    for _ in range(50):
        for topic in (plain, peers):
            await stage.attack(topic, {**forged, "from": "writer"}, properties(correlation=b"busy"))
            await stage.attack(topic, {**forged, "from": None}, properties(correlation=b"busy"))
            await stage.attack(topic, b"junk", properties(correlation=b"busy"))
        await stage.attack(own, {**forged, "task_id": "never-given"})
        await stage.attack(own, {**forged, "from": "peer"})
        await stage.attack(own, {**forged, "to": "somebody"})
        await stage.attack(own, {**forged, "status": "working"})
        await stage.attack(own, b"junk", properties(correlation=b"never-given"))
    await stage.settle()
    assert not task.done
    stage.go_on.set()
    assert await soon(task.result()) == "right"
    for _ in range(50):
        await stage.attack(own, {**forged, "from": "writer"})
        await stage.attack(own, {**forged, "status": "failed"})
        await stage.attack(own, b"junk", properties(correlation=b"busy"))
    await stage.check(
        (plain, "a result on a plain topic of a task that was given on a sender-bound topic"),
        (plain, "an unreadable result"),
        (peers, "a result in the name of another agent"),
        (peers, "a result from another agent than the task's"),
        (peers, "an unreadable result"),
        (own, "a result of a task that was not delegated"),
        (own, "a result in the name of another agent"),
        (own, "a result for another agent"),
        (own, "a result of a task that is not over"),
        (own, "an unreadable result"),
    )
    assert await (await stage.planner.resume("busy")).result() == "right"


@pytest.mark.rule("CTRL-2", "CTRL-5", "CTRL-8", "ABOUND-3", "ABOUND-5", "TASK-19")
@pytest.mark.parametrize("bound", ["prefer", "off"])
async def test_words_of_strangers_and_words_about_nothing_are_left_out(stage: AgentStage, bound: Bound) -> None:
    topics, where = stage.topics, stage.topics.control("writer")
    own, business = topics.bound.control("writer", "peer"), [topics.bound.results("peer", "writer")]
    stage.expect("busy")
    task = await soon(stage.planner.delegate("writer", "ask", task_id="busy", wait_online=True))
    await until(lambda: task.question)
    for _ in range(20):
        for action in ("cancel", "input", "get", "dance"):
            word = {"task_id": "busy", "action": action, "from": "peer", "input": 1, "input_id": "1"}
            for topic in (where, own):
                await stage.attack(topic, word, properties(response_topic=topics.results("peer")))
                await stage.attack(topic, {**word, "from": None, "reason": "x" * 10_000})
            await stage.attack(own, {**word, "from": "planner"})
            if bound == "prefer":
                await stage.attack(where, {**word, "from": "planner"})
        await stage.attack(where, {"task_id": "busy", "action": "dance", "from": "planner"})
        await stage.attack(where, {"task_id": "busy", "action": "input", "from": "planner", "input_id": "7"})
        for topic in (where, own):
            await stage.attack(topic, {"task_id": "unknown", "action": "input", "from": "peer", "input": 1})
    await stage.settle()
    assert not task.done
    await soon(task.send("yes"))
    assert await soon(task.result()) == "yes"
    faults = [
        (where, "an unknown action"),
        (where, "an answer to a question that was not asked"),
    ]
    if bound == "prefer":
        faults += [
            (where, "a control message on a plain topic about a task that was given on a sender-bound topic"),
            (own, "a message in the name of another agent"),
            (own, "an unknown action"),
            (own, "an answer to a question that was not asked"),
        ]
    await stage.check(*faults, business=business)
    # A task id is each requester's own: the peer hears only that it has canceled a task of its own, which never ran.
    heard = [answer for topic in (topics.results("peer"), *business) for answer in stage.results(topic)]
    assert {(answer["task_id"], answer["status"], answer.get("to")) for answer in heard} == {
        ("busy", "canceled", "peer")
    }
    assert stage.runs.count("busy") == 1


@pytest.mark.rule("TASK-6", "TASK-4", "AHOST-6")
async def test_a_task_that_comes_a_hundred_times_runs_once_and_conflicts_do_not_touch_it(stage: AgentStage) -> None:
    inbox, overview = stage.topics.inbox("writer"), stage.topics.overview_inbox("writer")
    batch = [(topic, stage.task("t-1", prompt="wait"), stage.properties()) for topic in (inbox, overview)] * 50
    await stage.attack_often(batch)
    await stage.attack_often([(inbox, stage.task("t-1", data=number), stage.properties()) for number in range(50)])
    await stage.settle()
    stage.go_on.set()
    await until(lambda: any(result["status"] == "completed" for result in stage.results()))
    assert stage.runs.count("t-1") == 1
    assert sum(result["status"] == "rejected" for result in stage.results()) == 50
    await stage.check(business=[stage.topics.task_events("t-1")])


@pytest.mark.rule("TASK-16", "CTRL-8", "RESULT-6")
async def test_what_was_retained_long_ago_does_nothing(silent: AgentStage) -> None:
    stage, topics = silent, silent.topics
    await stage.attack(topics.inbox("writer"), stage.task("old"), retain=True)
    await stage.attack(topics.overview_inbox("writer"), stage.task("old"), retain=True)
    await stage.attack(topics.control("writer"), {"task_id": "t-1", "action": "cancel", "from": "peer"}, retain=True)
    await stage.attack(topics.results("planner"), {"task_id": "t-1", "status": "failed"}, retain=True)
    await stage.start()
    await stage.attack(topics.inbox("writer"), stage.task("t-1", data=1), stage.properties())
    await until(lambda: stage.results())
    assert stage.results()[0]["result"] == 1
    assert "old" not in stage.runs


@pytest.mark.rule("ONLINE-7", "AHOST-4")
async def test_forged_cards_and_statuses_of_our_own_are_put_right_without_a_flood(stage: AgentStage) -> None:
    topics = stage.topics
    card, status = topics.agent_card("writer"), topics.agent_status("writer")
    await stage.settle()
    right = {topic: json.loads(stage.messages(topic)[-1].payload) for topic in (card, status)}
    future = datetime(9999, 1, 1, tzinfo=timezone.utc).isoformat()
    for _ in range(10):
        await stage.attack(status, {**right[status], "status": "offline", "epoch": 10**9}, retain=True)
        await stage.attack(status, {**right[status], "started": future}, retain=True)
        await stage.attack(card, {**right[card], "name": "other", "capabilities": ["mischief"]}, retain=True)
        await stage.attack(card, b"junk", retain=True)
    sent = {topic: len(stage.messages(topic)) for topic in right}
    stage._retained.clear()

    def is_right(topic: str) -> bool:
        latest = stage.messages(topic)[-1].payload
        try:
            shown = json.loads(latest)
        except ValueError:
            return False
        return all(
            shown.get(name) == value for name, value in right[topic].items() if name not in ("timestamp", "last_seen")
        )

    await until(lambda: is_right(card) and is_right(status))
    await stage.settle()
    assert all(len(stage.messages(topic)) <= sent[topic] + 3 for topic in right)
    assert stage.writer.connection.connected

    async def seen_online() -> bool:
        peer = await stage.planner.peer("writer")
        return peer is not None and peer.status == "online" and peer.capabilities == []

    await becomes(seen_online)
    assert stage.errors() == []


async def test_words_about_unknown_tasks_and_late_results_leave_no_memory_behind(stage: AgentStage) -> None:
    topics = stage.topics

    async def flood(name: str) -> None:
        batch: list[tuple[Any, Any, bytes]] = []
        for number in range(400):
            task_id = f"{name}-{number}"
            batch.append((topics.results("planner"), {"task_id": task_id, "status": "completed"}, b""))
            batch.append((topics.control("writer"), {"task_id": task_id, "action": "get", "from": "peer"}, b""))
            batch.append((topics.task_events(task_id), {"task_id": task_id, "seq": 1}, b""))
        await stage.attack_often(batch)
        await stage.settle()
        if stage.watcher is not None:
            stage.watcher.seen.clear()

    stage._caplog.set_level(logging.ERROR, "mqtt_agent")  # pytest keeps every log record
    await flood("warm")
    gc.collect()
    tracemalloc.start()
    try:
        await flood("first")
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3):
            await flood(f"more{number}")
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 1_000_000, f"{grown:,} bytes more after 1,200 tasks that nobody knows"


# Anything at all

text = st.text(max_size=12)
odd = st.sampled_from([*ODD_IDS, "peer", "planner", "writer", "busy", "completed", "cancel", "input", "barrier-1"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text | odd
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v, max_size=3), max_leaves=5)
TEMPLATES: list[dict[str, Any]] = [
    {"task_id": "f", "from": "peer", "to": "writer", "prompt": "go", "created_at": "t", "messages": [], "data": 1},
    {"task_id": "f", "from": "peer", "type": "t", "context_id": "c", "metadata": {}, "expires_at": "2099-01-01"},
    {"task_id": "f"},
    {"task_id": "unknown", "from": "writer", "to": "planner", "status": "completed", "result": 1, "seq": 1},
    {"task_id": "unknown", "status": "failed", "error": {"type": "t", "message": "m"}, "artifacts": []},
    {"task_id": "busy", "seq": 1, "type": "status", "status": "input-required", "data": {"input_id": "1"}},
    {"task_id": "busy", "seq": 0, "type": "progress", "progress": 1, "total": 2, "content": "c", "attempt": 1},
    {"task_id": "f", "action": "cancel", "from": "peer", "reason": "r"},
    {"task_id": "f", "action": "input", "from": "peer", "input": 1, "input_id": "1"},
    {"task_id": "f", "action": "get", "from": "peer"},
    {"name": "peer", "status": "online", "capabilities": [], "skills": [{"id": "s"}], "started": "s"},
    {"name": "writer", "status": "offline", "started": "s", "epoch": 1, "timestamp": "t"},
]
TOPICS: list[Callable[[AgentStage], str]] = [
    lambda stage: stage.topics.inbox("writer"),
    lambda stage: stage.topics.overview_inbox("writer"),
    lambda stage: stage.topics.inbox("planner"),
    lambda stage: stage.topics.control("writer"),
    lambda stage: stage.topics.control("planner"),
    lambda stage: stage.topics.results("planner"),
    lambda stage: stage.topics.results("writer"),
    lambda stage: stage.topics.task_events("busy"),
    lambda stage: stage.topics.bound.inbox("writer", "peer"),
    lambda stage: stage.topics.bound.control("writer", "peer"),
    lambda stage: stage.topics.bound.results("planner", "writer"),
    lambda stage: stage.topics.bound.results("planner", "peer"),
    lambda stage: stage.topics.bound.events("planner", "busy", "writer"),
    lambda stage: stage.topics.agent_card("peer"),
    lambda stage: stage.topics.agent_status("peer"),
    lambda stage: stage.topics.agent_card("writer"),
    lambda stage: stage.topics.agent_status("writer"),
    lambda stage: f"{stage.namespace}/agents//card",
]


def packed(stage: AgentStage, number: int) -> bytes:
    return [
        b"",
        properties(response_topic=stage.topics.results("peer"), correlation=b"f"),
        properties(response_topic=stage.topics.task_result("f"), correlation=b"\xff" * 1000, expiry=60),
        properties(response_topic=f"{stage.namespace}/elsewhere", user=[("a", "b")] * 50),
        properties(response_topic=stage.topics.results("planner"), correlation=b"unknown"),
        properties(content_type="image/png", expiry=60),
    ][number]


batches = st.lists(
    st.tuples(
        st.integers(0, len(TOPICS) - 1),
        fuzzed(TEMPLATES, values),
        st.integers(0, 5),
    ),
    min_size=60,
    max_size=120,
)


@pytest.mark.rule("HOST-1")
@settings(
    max_examples=20,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # the agents keep state between examples, so shrinking is not possible
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
@given(batch=batches)
async def test_thousands_of_random_messages_to_agents_do_no_harm(
    batch: list[tuple[int, bytes, int]], stage: AgentStage
) -> None:
    stage.expect("busy")
    busy = await soon(stage.planner.delegate("writer", "wait", task_id="busy", wait_online=True))
    await stage.attack_often([(TOPICS[topic](stage), payload, packed(stage, n)) for topic, payload, n in batch])
    await stage.request()
    stage.check_connections()
    assert stage.errors() == []
    published = {topic for topic in stage.strays() if not topic.startswith(f"{stage.namespace}/tasks/")}
    assert published == set()
    assert not busy.done or busy.state is not TaskState.WORKING
    others = {topic for topic in stage.strays() if not topic.endswith(("/result", "/results", "/events"))}
    own = stage.topics.bound.events("peer", "x", "writer").removesuffix("x")
    assert {t for t in others - {stage.topics.bound.results("peer", "writer")} if not t.startswith(own)} == set()


async def test_nobody_but_the_peer_is_told_that_a_task_is_unknown(stage: AgentStage) -> None:
    await stage.attack(stage.topics.inbox("writer"), {"task_id": "t-9", "from": "peer"}, stage.properties())
    await until(lambda: stage.results())
    assert stage.results()[0]["error"]["type"] == "not_found"
    with pytest.raises(errors.TaskNotFound):
        await stage.planner.resume("t-9")
    await stage.check()
