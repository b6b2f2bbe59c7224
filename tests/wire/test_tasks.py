"""Agents and tasks on the wire: messages round-trip, equal tasks have equal digests, other data gives one error."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent import wire
from mqtt_agent.errors import InvalidIdentifier, WireError
from mqtt_agent.wire import (
    AgentCard,
    AgentSkill,
    AgentStatus,
    Control,
    Message,
    Task,
    TaskEvent,
    TaskFault,
    TaskMessage,
    TaskResult,
    TaskState,
    Topics,
    decode,
    encode,
    is_identifier,
    new_task_id,
    read_result_state,
)

from .test_messages import floats, json_objects, json_values, maybe, names, statuses, text, versions

MODELS: list[type[Message]] = [AgentCard, AgentStatus, Control, Task, TaskEvent, TaskResult]

texts = st.lists(text, max_size=3)
numbers = st.integers(0, 2**53)
skills = st.builds(AgentSkill, id=text, name=text, description=text, tags=texts, examples=maybe(texts))
cards = st.builds(
    AgentCard,
    name=text,
    namespace=text,
    description=text,
    capabilities=texts,
    status=statuses,
    version_info=maybe(versions),
    skills=maybe(st.lists(skills, max_size=2)),
    input_modes=maybe(texts),
    output_modes=maybe(texts),
    features=maybe(texts),
    meta=maybe(json_objects),
    started=maybe(text),
)
agent_statuses = st.builds(AgentStatus, name=text, status=statuses, started=maybe(text), epoch=maybe(numbers))
said = st.builds(TaskMessage, role=text, content=json_values)
tasks = st.builds(
    Task,
    task_id=names,
    sender=maybe(text),
    to=maybe(text),
    type=maybe(text),
    title=maybe(text),
    prompt=maybe(text),
    messages=maybe(st.lists(said, max_size=3)),
    context_id=maybe(text),
    data=json_values,
    created_at=maybe(text),
    expires_at=maybe(text),
    metadata=maybe(json_objects),
    stream=maybe(st.booleans()),
)
faults = st.builds(TaskFault, type=text, message=text, code=maybe(text), data=json_values)
results = st.builds(
    TaskResult,
    task_id=names,
    sender=maybe(text),
    to=maybe(text),
    status=text,
    result=json_values,
    error=maybe(faults),
    artifacts=maybe(st.lists(json_objects, max_size=2)),
    elapsed_ms=maybe(floats),
    seq=maybe(numbers),
)
events = st.builds(
    TaskEvent,
    task_id=names,
    seq=numbers,
    type=text,
    status=maybe(text),
    progress=maybe(floats),
    total=maybe(floats),
    content=maybe(text),
    data=json_values,
    attempt=maybe(numbers),
)
words = st.builds(
    Control,
    task_id=names,
    action=text,
    sender=maybe(text),
    input=json_values,
    input_id=maybe(text),
    reason=maybe(text),
)
messages = st.one_of(cards, agent_statuses, tasks, results, events, words)


def on_the_wire(model: type[Message], field: str) -> str:
    """The name of a field in the JSON."""
    return model.model_fields[field].serialization_alias or field


@pytest.mark.rule("JSON-1")
@given(messages)
def test_every_message_about_agents_survives_the_way_to_bytes_and_back(message: Message) -> None:
    assert decode(type(message), encode(message)) == message


@pytest.mark.rule("JSON-3")
@given(messages)
def test_no_field_of_theirs_that_is_none_is_written(message: Message) -> None:
    written = json.loads(encode(message))
    present = {name for name in type(message).model_fields if getattr(message, name) is not None}
    assert set(written) == {on_the_wire(type(message), name) for name in present}
    assert all(value is not None for value in written.values())


@pytest.mark.rule("JSON-2")
@given(messages, json_values)
def test_fields_from_the_future_are_ignored(message: Message, value: Any) -> None:
    fields = {**json.loads(encode(message)), "from_the_future": value}
    assert decode(type(message), json.dumps(fields).encode()) == message


@pytest.mark.rule("HOST-1")
@given(st.sampled_from(MODELS), st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_message_about_agents_or_one_clear_error(model: type[Message], payload: bytes) -> None:
    read_or_refused(model, payload)


@pytest.mark.rule("HOST-1")
@given(messages, st.data())
def test_a_message_with_odd_fields_is_read_whole_or_refused(message: Message, data: st.DataObject) -> None:
    fields = json.loads(encode(message))
    for field in data.draw(st.lists(st.sampled_from(sorted(fields)), max_size=3)):
        fields[field] = data.draw(json_values)
    read_or_refused(type(message), json.dumps(fields).encode())


@given(messages, st.data())
def test_a_message_about_agents_cut_short_is_an_error(message: Message, data: st.DataObject) -> None:
    payload = encode(message)
    with pytest.raises(WireError, match=f"^{type(message).__name__}"):
        decode(type(message), payload[: data.draw(st.integers(0, len(payload) - 1))])


def read_or_refused(model: type[Message], payload: bytes) -> None:
    """Every message that can be decoded can also be used: invalid data fails here, and not later."""
    try:
        message = decode(model, payload)
    except WireError as error:
        assert str(error).startswith(model.__name__)
        return
    assert isinstance(message, model)
    encode(message)
    if isinstance(message, Task):
        assert len(message.digest) == 64
        assert message.bare in (True, False)
    if isinstance(message, TaskResult):
        read_result_state(message)


@pytest.mark.rule("HOST-1", "LIMIT-4")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"data":' * 100_000,
        b'{"task_id": NaN, "name": NaN, "status": NaN}',
        b'{"task_id": "\\ud800", "name": "\\ud800", "status": "\\ud800"}',
        b'{"task_id": 1, "name": 1, "status": 1, "action": 1}',
        b'{"task_id": "", "action": "cancel", "status": ""}',
        b'{"task_id": "t", "name": "n", "status": 5, "action": [], "seq": ' + b"1" * 5000 + b', "epoch": "x", "to": 5}',
    ],
)
def test_what_is_no_message_about_agents_is_one_clear_error(model: type[Message], payload: bytes) -> None:
    with pytest.raises(WireError, match=f"^{model.__name__}: "):
        decode(model, payload)


@pytest.mark.rule("TASK-1", "TASK-8")
def test_a_task_id_alone_is_a_task_and_bare() -> None:
    task = decode(Task, b'{"task_id": "t"}')
    assert task == Task(task_id="t")
    assert task.bare
    assert decode(Task, b'{"task_id": "t", "from": "planner", "to": "writer", "stream": false, "new": 1}').bare


@given(tasks)
def test_a_task_is_bare_when_it_says_nothing_about_the_work(task: Task) -> None:
    written = json.loads(encode(task))
    assert task.bare == (set(written) <= {"task_id", "from", "to", "expires_at", "stream"})


def shuffled(value: Any, draw: st.DrawFn | Any) -> Any:
    """The same JSON with the keys of each object in another order."""
    if isinstance(value, dict):
        keys = draw(st.permutations(sorted(value)))
        return {key: shuffled(value[key], draw) for key in keys}
    if isinstance(value, list):
        return [shuffled(item, draw) for item in value]
    return value


@pytest.mark.rule("TASK-5")
@given(tasks, st.data())
def test_the_digest_does_not_depend_on_the_order_of_keys(task: Task, data: st.DataObject) -> None:
    again = decode(Task, json.dumps(shuffled(json.loads(encode(task)), data.draw)).encode())
    assert again.digest == task.digest


@pytest.mark.rule("TASK-5")
@given(tasks, maybe(text), maybe(text), maybe(text), maybe(st.booleans()), names)
def test_the_digest_does_not_depend_on_times_and_ways(
    task: Task, created: str | None, expires: str | None, to: str | None, stream: bool | None, task_id: str
) -> None:
    changes = {"created_at": created, "expires_at": expires, "to": to, "stream": stream, "task_id": task_id}
    changes["max_result"] = len(task_id)
    assert task.model_copy(update=changes).digest == task.digest


@pytest.mark.rule("TASK-5", "TASK-17")
def test_a_prompt_alone_and_with_its_conversation_are_the_same_work() -> None:
    alone = Task(task_id="t", prompt="write")
    both = Task(task_id="t", prompt="write", messages=[TaskMessage(role="user", content="write")])
    other = Task(task_id="t", prompt="write", messages=[TaskMessage(role="agent", content="write")])
    assert alone.digest == both.digest
    assert len({alone.digest, other.digest, Task(task_id="t", prompt="read").digest}) == 3


@pytest.mark.rule("TASK-5")
@given(tasks, tasks)
def test_other_work_has_another_digest(one: Task, other: Task) -> None:
    def content(task: Task) -> dict[str, Any]:
        kept = task.model_dump(exclude={"task_id", "to", "created_at", "expires_at", "stream"}, exclude_none=True)
        if task.prompt is not None:
            kept.setdefault("messages", [{"role": "user", "content": task.prompt}])
        return json.loads(json.dumps(kept, sort_keys=True))

    assert (one.digest == other.digest) == (repr(content(one)) == repr(content(other)))


@pytest.mark.rule("TASK-5")
def test_the_same_work_for_two_requesters_has_two_digests() -> None:
    digests = {Task(task_id="t", sender=sender, prompt="go").digest for sender in ("one", "other", None)}
    assert len(digests) == 3


@pytest.mark.rule("TASK-1")
def test_what_else_a_message_of_the_conversation_holds_is_kept() -> None:
    task = decode(Task, b'{"task_id": "t", "messages": [{"role": "agent", "content": "hi", "name": "Bo", "n": [1]}]}')
    assert json.loads(encode(task))["messages"] == [{"role": "agent", "content": "hi", "name": "Bo", "n": [1]}]


@pytest.mark.rule("RESULT-1")
def test_a_result_without_a_value_means_null() -> None:
    assert decode(TaskResult, b'{"task_id": "t", "status": "completed"}').result is None


@pytest.mark.rule("RESULT-10", "STATE-1")
@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"status": "completed"}, "completed"),
        ({"status": "COMPLETED"}, "completed"),
        ({"status": "TASK_STATE_COMPLETED"}, "completed"),
        ({"status": "ok"}, "completed"),
        ({"status": ""}, "completed"),
        ({"status": "ok", "error": {"message": "no"}}, "failed"),
        ({"status": "odd", "error": "no disk"}, "failed"),
        ({"status": "error"}, "failed"),
        ({"status": "failure"}, "failed"),
        ({"status": "Canceled"}, "canceled"),
        ({"status": "rejected"}, "rejected"),
        ({"status": "working"}, "working"),
        ({"status": "INPUT_REQUIRED"}, "input-required"),
        ({"status": "auth-required"}, "auth-required"),
    ],
)
def test_the_word_of_a_result_is_understood(fields: dict[str, Any], state: str) -> None:
    result = decode(TaskResult, json.dumps({"task_id": "t", **fields}).encode())
    assert read_result_state(result) is TaskState(state)
    if fields.get("error") == "no disk":
        assert result.error == TaskFault(message="no disk")


@pytest.mark.rule("STATE-1")
def test_the_states_are_those_of_a2a() -> None:
    assert [str(state) for state in TaskState if state.terminal] == ["completed", "failed", "canceled", "rejected"]
    assert [str(state) for state in TaskState if not state.terminal] == [
        *("submitted", "working", "input-required", "auth-required")
    ]


@pytest.mark.rule("ACARD-1", "ACARD-3", "STATUS-1")
def test_a_card_and_a_status_of_the_specification_are_read() -> None:
    card = decode(
        AgentCard,
        b'{"version": "1", "name": "scout", "namespace": "team", "description": "d", "capabilities": ["search"],'
        b' "status": "online", "last_seen": "2026-04-21T10:00:00Z", "version_info": {"sdk": "0.1.8"}}',
    )
    assert (card.name, card.capabilities, card.started) == ("scout", ["search"], None)
    assert decode(AgentCard, b'{"name": "scout"}').status == "online"
    assert decode(AgentStatus, b'{"status": "offline"}').status == "offline"


moments = st.sampled_from([None, "2026-04-21T10:00:00.000Z", "2026-04-21T10:00:01.000Z"])
epochs = st.none() | st.integers(0, 3)


@pytest.mark.rule("STATUS-3")
@given(*(st.builds(AgentStatus, status=statuses, started=moments, epoch=epochs) for _ in range(2)))
def test_statuses_are_ordered_by_process_and_connection(one: AgentStatus, other: AgentStatus) -> None:
    assert not (one.speaks_before(other) and other.speaks_before(one))
    if one.started and one.epoch and other.started and other.epoch:
        assert one.speaks_before(other) == ((one.started, one.epoch) < (other.started, other.epoch))
    else:
        assert not one.speaks_before(other)


@pytest.mark.rule("ATOPIC-1", "ATOPIC-2", "ATOPIC-3", "ATOPIC-4", "ATOPIC-5", "ATOPIC-6", "ATOPIC-7", "ATOPIC-8")
@pytest.mark.rule("ATOPIC-9")
def test_the_topics_of_agents_are_those_of_the_specification() -> None:
    topics = Topics()
    assert topics.agent_card("a") == "a2a/v1/agents/a/card"
    assert topics.agent_status("a") == "a2a/v1/agents/a/status"
    assert topics.inbox("a") == "a2a/v1/tasks/a/inbox"
    assert topics.overview_inbox("a") == "a2a/v1/agents/a/inbox"
    assert topics.results("a") == "a2a/v1/tasks/a/results"
    assert topics.task_result("t") == "a2a/v1/tasks/t/result"
    assert topics.task_events("t") == "a2a/v1/tasks/t/events"
    assert topics.control("a") == "a2a/v1/tasks/a/control"
    assert topics.all_agent_cards == "a2a/v1/agents/+/card"
    assert topics.all_agent_statuses == "a2a/v1/agents/+/status"


@pytest.mark.rule("NAME-1", "NAME-2", "NAME-3")
@given(st.text(max_size=300))
def test_an_agent_or_task_id_is_one_topic_level_or_refused(value: str) -> None:
    topics = Topics("ns")
    for build in (
        topics.agent_card,
        topics.agent_status,
        topics.inbox,
        topics.overview_inbox,
        topics.results,
        topics.control,
        topics.task_result,
        topics.task_events,
    ):
        if is_identifier(value):
            assert build(value).split("/")[2] == value
            assert len(build(value).split("/")) == 4
        else:
            with pytest.raises(InvalidIdentifier):
                build(value)


@pytest.mark.rule("NAME-3", "AHOST-4")
@given(st.text(max_size=60))
def test_any_topic_is_read_as_an_agent_or_as_none(topic: str) -> None:
    topics = Topics("ns")
    for read, build in (
        (topics.agent_of_card, topics.agent_card),
        (topics.agent_of_status, topics.agent_status),
        (topics.agent_of_results, topics.results),
    ):
        for candidate in (topic, f"ns/agents/{topic}/card", f"ns/agents/{topic}/status", f"ns/tasks/{topic}/results"):
            name = read(candidate)
            assert name is None or build(name) == candidate
        if is_identifier(topic):
            assert read(build(topic)) == topic


def test_everything_that_travels_between_agents_is_tried_here() -> None:
    assert {model.__name__ for model in MODELS} <= set(wire.__all__)


def test_a_new_task_id_is_a_uuid_of_version_7_and_later_ones_sort_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ids: list[str] = []
    for milliseconds in (1, 2, 255, 256, 10**12, 10**12 + 1):
        monkeypatch.setattr(time, "time_ns", lambda now=milliseconds: now * 1_000_000 + 5)
        ids.append(new_task_id())
    assert ids == sorted(ids)
    for task_id in ids:
        assert (uuid.UUID(task_id).version, uuid.UUID(task_id).variant) == (7, uuid.RFC_4122)
        assert uuid.UUID(task_id).hex == task_id
    assert len({new_task_id() for _ in range(2000)}) == 2000


def test_the_digest_of_a_task_stays_the_same_in_later_versions() -> None:
    task = Task(
        task_id="1",
        sender="a",
        to="b",
        prompt="hi",
        data={"z": 1, "a": [{"y": None, "b": 2}]},
        created_at="x",
        metadata={"k": "v"},
        reference_task_ids=["9"],
    )
    assert task.digest == "d4f6909d2926a89f0183e1ce605c906baddbf301b5dab67da34399d06e0bfb9a"
