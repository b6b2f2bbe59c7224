"""How a tool client treats invalid or unexpected answers and partials."""

from __future__ import annotations

from typing import Any

import pytest
from brokers import ROOMY_BROKERS
from mqtt_agent import CallHandle, ToolClient
from mqtt_agent.errors import (
    CallerNotAuthorized,
    CallError,
    CallTimeout,
    InvalidArguments,
    ToolFailed,
    ToolUnavailable,
)
from support import soon, until

from .conftest import FakeServer, Stage
from .payloads import NO_JSON_OBJECT
from .peer import properties

RUN_ON = ROOMY_BROKERS

WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"call_id": 5}, "call_id"),
    ({"call_id": None}, "call_id"),
    ({"status": 200}, "status"),
    ({"status": "error", "error": "it broke"}, "error"),
    ({"status": "error", "error": ["it broke"]}, "error"),
    ({"status": "error", "error": {"type": 5}}, "error/type"),
    ({"status": "error", "error": {"message": {"text": "it broke"}}}, "error/message"),
    ({"elapsed_ms": "long"}, "elapsed_ms"),
    ({"content": "text"}, "content"),
]


async def called(fake: FakeServer, tool: str = "fake", **options: Any) -> CallHandle:
    """A call that has reached the hostile server."""
    handle = await soon(fake.stage.client.submit(tool, **{"timeout": 10, **options}))
    assert (await fake.next_call())["call_id"] == handle.call_id
    return handle


# Answers


@pytest.mark.rule("RESP-8", "HOST-1", "HOST-2")
async def test_an_answer_that_is_no_json_object_ends_no_call_because_anybody_may_have_sent_it(fake: FakeServer) -> None:
    bad = {"nothing": (b"", "EOF"), **NO_JSON_OBJECT}
    for payload, _ in bad.values():
        handle = await called(fake)
        await fake.answer(payload, handle.call_id.encode())
        await fake.answer({"call_id": handle.call_id, "result": "right"})
        assert await soon(handle.result()) == "right"
    await fake.stage.check((fake.inbox, "an unreadable response"))
    fake.stage.check_each_was_told(fake.inbox, [reason for _, reason in bad.values()])


@pytest.mark.rule("RESP-8")
async def test_an_answer_with_wrong_types_ends_no_call(fake: FakeServer) -> None:
    for fields, _ in WRONG_FIELDS:
        handle = await called(fake)
        answer = {"call_id": handle.call_id, "status": "ok", "result": 1, **fields}
        await fake.answer({name: value for name, value in answer.items() if value is not None}, handle.call_id.encode())
        await fake.answer({"call_id": handle.call_id, "result": "right"})
        assert await soon(handle.result()) == "right"
    await fake.stage.check((fake.inbox, "an unreadable response"))
    fake.stage.check_each_was_told(fake.inbox, [reason for _, reason in WRONG_FIELDS])


@pytest.mark.rule("RESP-15")
async def test_an_unreadable_answer_to_nothing_leaves_the_calls_waiting(fake: FakeServer) -> None:
    handle = await called(fake)
    for correlation in (None, b"", b"\xff\xfe", b"unknown", handle.call_id.encode() + b" ", b"x" * 60_000):
        await fake.answer(b"null", correlation)
    await fake.stage.settle()
    assert not handle.done
    await fake.answer({"call_id": handle.call_id, "result": "right"})
    assert await soon(handle.result()) == "right"
    await fake.stage.check((fake.inbox, "object"))


@pytest.mark.rule("RESP-8")
async def test_the_call_id_of_the_payload_goes_before_the_correlation_data(fake: FakeServer) -> None:
    one, two = await called(fake), await called(fake)
    await fake.answer({"call_id": one.call_id, "result": "one"}, two.call_id.encode())
    assert await soon(one.result()) == "one"
    await fake.stage.settle()
    assert not two.done
    await fake.answer({"call_id": two.call_id, "result": "two"}, b"\xff")
    assert await soon(two.result()) == "two"
    await fake.stage.check()


@pytest.mark.rule("LIMIT-2", "RESP-8")
async def test_the_timeout_of_a_call_tells_about_an_answer_over_the_limit(fake: FakeServer) -> None:
    stage = fake.stage
    where: dict[str, Any] = {"broker": stage.broker.url, "namespace": stage.namespace}
    async with ToolClient("small", max_payload=2000, bound="off", **where) as client:
        stage.remember()
        handle = await soon(client.submit("fake", timeout=2))
        await fake.next_call()
        inbox = stage.topics.client_responses("small")
        big = {"call_id": handle.call_id, "result": "x" * 3000}
        await stage.attack(inbox, big, properties(correlation=handle.call_id.encode()))
        with pytest.raises(CallTimeout, match="a response arrived that cannot be read.* limit of 2,000"):
            await soon(handle.result())
        await stage.check((inbox, "limit of 2,000"))


@pytest.mark.rule("RESP-5", "RESP-6")
async def test_any_status_but_error_is_a_success(fake: FakeServer) -> None:
    for fields in ({}, {"status": "ok"}, {"status": ""}, {"status": "weird"}, {"status": "ERROR"}):
        handle = await called(fake)
        await fake.answer({"call_id": handle.call_id, "result": [1], **fields, "unknown": {"field": 1}})
        assert await soon(handle.result()) == [1]
    handle = await called(fake)
    await fake.answer({"call_id": handle.call_id})
    assert await soon(handle.result()) is None
    await fake.stage.check()


@pytest.mark.rule("RESP-3", "RESP-4")
async def test_an_unknown_error_type_reads_as_tool_error(fake: FakeServer) -> None:
    kinds: dict[str, type[CallError]] = {
        "invalid_arguments": InvalidArguments,
        "unauthorized": CallerNotAuthorized,
        "timeout": CallTimeout,
        "unavailable": ToolUnavailable,
        "tool_error": ToolFailed,
        "no_such_type": ToolFailed,
        "": ToolFailed,
        "Timeout": ToolFailed,
        "x" * 100_000: ToolFailed,
    }
    for kind, error in kinds.items():
        handle = await called(fake)
        failed = {"type": kind, "message": "no\x00such\n" + "m" * 1000, "data": {"any": [1]}, "retryable": False}
        await fake.answer({"call_id": handle.call_id, "status": "error", "error": failed})
        with pytest.raises(error, match="fake: no") as caught:
            await soon(handle.result())
        assert type(caught.value) is error
    await fake.stage.check()


async def test_an_error_that_says_nothing_is_tool_failed(fake: FakeServer) -> None:
    for fields in ({}, {"error": {}}, {"error": None}, {"error": {"message": ""}}):
        handle = await called(fake)
        await fake.answer({"call_id": handle.call_id, "status": "error", **fields})
        with pytest.raises(ToolFailed, match="fake: "):
            await soon(handle.result())
    await fake.stage.check()


@pytest.mark.rule("RESP-15", "HOST-2")
async def test_answers_to_calls_that_nobody_made_are_told_once(fake: FakeServer) -> None:
    for call_id in ("made up", "", "a/b", "#", "\x00\n", "x" * 100_000, "barrier-", "barrier-" + "0" * 32):
        for status in ("ok", "error"):
            await fake.answer({"call_id": call_id, "status": status}, b"made up")
    await fake.stage.check((fake.inbox, "call"))


@pytest.mark.rule("RESP-15")
async def test_of_several_answers_the_first_counts(fake: FakeServer) -> None:
    handle = await called(fake)
    for result in ("first", "first", "second"):
        await fake.answer({"call_id": handle.call_id, "result": result})
    await fake.answer({"call_id": handle.call_id, "status": "error", "error": {"message": "after all not"}})
    await fake.answer(b"null", handle.call_id.encode())
    assert await soon(handle.result()) == "first"
    await fake.stage.settle()
    assert await soon(handle.result()) == "first"
    told = [(fake.inbox, "call")] if len(fake.stage.faults()) > 1 else []
    await fake.stage.check(*told, (fake.inbox, "object"))


@pytest.mark.rule("RESP-15")
async def test_an_answer_after_the_timeout_changes_nothing(fake: FakeServer) -> None:
    handle = await called(fake, timeout=0.05)
    with pytest.raises(CallTimeout):
        await soon(handle.result())
    await fake.answer({"call_id": handle.call_id, "result": "late"})
    await fake.stage.settle()
    with pytest.raises(CallTimeout):
        await soon(handle.result())
    late = [(fake.inbox, "call")] if fake.stage.faults() else []  # the fault may be logged, but not more than once
    await fake.stage.check(*late)


@pytest.mark.rule("HOST-13")
async def test_an_answer_that_was_retained_long_ago_answers_nothing(silent_stage: Stage) -> None:
    stage = silent_stage
    inbox = stage.topics.client_responses("friend")
    await stage.attack(inbox, {"call_id": "known", "result": "stale"}, retain=True)
    await stage.start()
    handle = await soon(stage.client.submit("wait", call_id="known"))
    await until(lambda: "waited" in stage.runs)
    await stage.settle()
    assert not handle.done
    stage.go_on.set()
    assert await soon(handle.result()) == "waited"


async def test_answers_from_before_a_restart_of_the_client_are_not_taken_for_new_ones(fake: FakeServer) -> None:
    stage = fake.stage
    first = await called(fake)
    await soon(stage.client.stop())
    await fake.answer({"call_id": first.call_id, "result": "old"})
    await soon(stage.client.start())
    stage.remember()
    second = await called(fake)
    assert second.call_id != first.call_id
    await fake.answer({"call_id": first.call_id, "result": "old"})
    await fake.answer({"call_id": second.call_id, "result": "new"})
    assert await soon(second.result()) == "new"


# Partials


async def streaming(fake: FakeServer) -> tuple[CallHandle, str]:
    """A call whose caller listens for partials, and the topic of the partials."""
    handle = await called(fake)
    return handle, fake.stage.topics.tool_stream("fake", handle.call_id)


async def partials(fake: FakeServer, messages: list[bytes | dict[str, Any]], last: int | None = None) -> list[Any]:
    """Send these messages to a caller, then a result with the last partial's ``seq``; return the partials it got."""
    handle, topic = await streaming(fake)
    for message in messages:
        filled = {"call_id": handle.call_id, **message} if isinstance(message, dict) else message
        await fake.stage.attack(topic, filled)
    await fake.stage.settle()
    await fake.answer({"call_id": handle.call_id, "result": "done", "seq": last})
    got = await soon(collect(handle))
    assert await soon(handle.result()) == "done"
    return got


async def collect(handle: CallHandle) -> list[Any]:
    return [partial async for partial in handle.partials()]


def partial(seq: int, content: str) -> dict[str, Any]:
    return {"seq": seq, "type": "partial", "content": content}


@pytest.mark.rule("HOST-1", "HOST-2")
async def test_partials_that_are_none_are_left_out_and_told_with_their_topic(fake: FakeServer) -> None:
    bad = {
        "nothing": (b"", "EOF"),
        **NO_JSON_OBJECT,
        "no call_id": (b'{"seq": 1}', "call_id"),
        "seq is text": (b'{"call_id": "x", "seq": "one"}', "seq"),
        "content is a number": (b'{"call_id": "x", "seq": 1, "content": 5}', "content"),
        "type is a list": (b'{"call_id": "x", "seq": 1, "type": []}', "type"),
    }
    handle, topic = await streaming(fake)
    for payload, _ in bad.values():
        await fake.stage.attack(topic, payload)
    await fake.stage.attack(topic, {"call_id": handle.call_id, **partial(1, "good")})
    await fake.stage.settle()
    await fake.answer({"call_id": handle.call_id, "result": "done"})
    assert await soon(collect(handle)) == ["good"]
    await fake.stage.check((topic, "an unreadable partial"))
    fake.stage.check_each_was_told(topic, [reason for _, reason in bad.values()])


@pytest.mark.rule("STREAM-9", "STREAM-10")
async def test_repeated_and_missing_partials_do_no_harm(fake: FakeServer) -> None:
    sent = [partial(3, "a"), partial(3, "a"), partial(3, "a"), partial(7, "b"), partial(1_700_000_000_000, "c")]
    assert await partials(fake, [*sent]) == ["a", "b", "c"]
    await fake.stage.check()


@pytest.mark.rule("STREAM-9")
async def test_partials_of_one_millisecond_are_all_told(fake: FakeServer) -> None:
    """The reference uses the clock as the ``seq`` of partials."""
    assert await partials(fake, [partial(1_700_000_000_000, text) for text in "abc"]) == ["a", "b", "c"]
    await fake.stage.check()


async def test_partials_without_a_seq_are_all_told(fake: FakeServer) -> None:
    assert await partials(fake, [{"type": "partial", "content": text} for text in "abc"]) == ["a", "b", "c"]
    await fake.stage.check()


@pytest.mark.rule("STREAM-9", "STREAM-10")
async def test_reordered_partials_are_told_in_order_or_left_out(fake: FakeServer) -> None:
    got = await partials(fake, [partial(seq, str(seq)) for seq in (2, 1, 4, 3, 6, 5, 2)])
    assert got == sorted(set(got))
    assert {"2", "4", "6"} <= set(got)
    await fake.stage.check()


async def test_odd_numbers_of_partials_do_no_harm(fake: FakeServer) -> None:
    assert await partials(fake, [partial(-(10**30), "a"), partial(0, "b"), partial(10**30, "c")]) == ["a", "b", "c"]
    for last in (-1, 0, 10**30):
        assert await partials(fake, [partial(1, "a")], last) == ["a"]
    await fake.stage.check()


@pytest.mark.rule("STREAM-13")
async def test_stream_messages_of_unknown_types_and_early_ends_do_no_harm(fake: FakeServer) -> None:
    messages: list[bytes | dict[str, Any]] = [
        {"seq": 1, "type": "accepted", "server": "fake"},
        {"seq": 2, "type": "no such type", "content": "x"},
        {"seq": 3, "type": "partial"},
        {"seq": 4, "type": "done"},
        partial(5, "after the end"),
        {"seq": 6, "type": "accepted"},
    ]
    got = await partials(fake, messages)
    assert got in ([None], [None, "after the end"])
    await fake.stage.check()


@pytest.mark.rule("STREAM-14")
async def test_a_partial_of_another_call_is_not_taken_for_one_of_this(fake: FakeServer) -> None:
    assert await partials(fake, [{**partial(1, "theirs"), "call_id": "another"}, partial(2, "mine")]) == ["mine"]


@pytest.mark.rule("LIMIT-7")
async def test_more_partials_than_anybody_reads_are_bounded(fake: FakeServer) -> None:
    handle, topic = await streaming(fake)
    for start in range(0, 1500, 50):
        sent = [{"call_id": handle.call_id, **partial(n, "x" * 1000)} for n in range(start, start + 50)]
        await fake.stage.attack_often([(topic, message, b"") for message in sent])
    await until(lambda: handle.dropped_partials == 500)
    await fake.answer({"call_id": handle.call_id, "result": "done"})
    assert len(await soon(collect(handle))) == 1000
    await fake.stage.check()


async def test_partials_after_the_answer_go_nowhere(fake: FakeServer) -> None:
    handle, topic = await streaming(fake)
    await fake.answer({"call_id": handle.call_id, "result": "done"})
    assert await soon(handle.result()) == "done"
    for seq in range(10):
        await fake.stage.attack(topic, {"call_id": handle.call_id, **partial(seq, "late")})
        await fake.stage.attack(topic, b"null")
    assert await soon(collect(handle)) == []
    assert handle.dropped_partials == 0
