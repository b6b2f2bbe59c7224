"""What a tool server does about calls that are none, or that want something they should not get."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mqtt_agent.errors import ToolCallError
from support import soon, until

from .conftest import NOT_OURS, Stage
from .payloads import MEGABYTE, NO_JSON_OBJECT
from .peer import properties

WRONG_TYPES = [
    pytest.param({"call_id": None}, "call_id", id="no call_id"),
    pytest.param({"call_id": ""}, "call_id", id="empty call_id"),
    pytest.param({"call_id": 17}, "call_id", id="call_id is a number"),
    pytest.param({"call_id": ["x"]}, "call_id", id="call_id is a list"),
    pytest.param({"client": None}, "client", id="no client"),
    pytest.param({"client": {"name": "peer"}}, "client", id="client is an object"),
    pytest.param({"arguments": []}, "arguments", id="arguments is a list"),
    pytest.param({"arguments": "text"}, "arguments", id="arguments is a string"),
    pytest.param({"arguments": {"x": float("nan")}}, "JSON", id="NaN"),
    pytest.param({"arguments": {"x": float("-inf")}}, "JSON", id="Infinity"),
    pytest.param({"response_topic": 5}, "response_topic", id="response_topic is a number"),
    pytest.param({"stream": {"on": True}}, "stream", id="stream is an object"),
]

TOPIC_CHARACTERS = ["a/b", "../../../x", "+", "#", "a/#", "$SYS", "a\x00b", "a\nb", "\ufeff", "\uffff", " ", "x" * 100_000]

FOREIGN = [
    "{ns}/mcp/clients/friend/responses",
    "{ns}/mcp/clients/peer/responses/below",
    "{ns}/mcp/clients/responses",
    "{ns}/mcp/tools/echo/call",
    "{ns}/mcp/tools/echo/card",
    f"{{ns}}/{NOT_OURS}",
    "$SYS/broker/x",
    "/",
    "x" * 60_000,
]

WITH_WILDCARDS = ["{ns}/mcp/clients/+/responses", "{ns}/mcp/clients/#", "#", "+"]


def only_errors(stage: Stage, kind: str, times: int) -> list[dict[str, Any]]:
    answers = stage.answers()
    assert [answer["status"] for answer in answers] == ["error"] * times
    assert {answer["error"]["type"] for answer in answers} == {kind}
    assert all(answer["error"]["message"] for answer in answers)
    assert all(answer["server"] == stage.server.server_id for answer in answers)
    return answers


@pytest.mark.parametrize(("payload", "reason"), NO_JSON_OBJECT)
async def test_what_is_no_json_object_is_refused_at_its_response_topic(
    payload: bytes, reason: str, stage: Stage
) -> None:
    for _ in range(2):
        assert await stage.attack(stage.call_topic, payload, stage.properties())
    await stage.check((stage.call_topic, reason))
    only_errors(stage, "invalid_arguments", 2)
    assert [message.correlation for message in stage.messages(stage.inbox)] == [b"correlation-1"] * 2
    assert "hi" not in stage.runs


@pytest.mark.parametrize(("fields", "reason"), WRONG_TYPES)
async def test_a_call_with_wrong_types_is_refused_at_its_response_topic(
    fields: dict[str, Any], reason: str, stage: Stage
) -> None:
    for _ in range(2):
        assert await stage.attack(stage.call_topic, stage.call(**fields), stage.properties(correlation=b"call-1"))
    await stage.check((stage.call_topic, reason))
    answers = only_errors(stage, "invalid_arguments", 2)
    assert {answer["call_id"] for answer in answers} == {"call-1"}
    assert {message.correlation for message in stage.messages(stage.inbox)} == {b"call-1"}
    assert "hi" not in stage.runs


async def test_a_call_over_the_limit_is_refused_at_its_response_topic(stage: Stage) -> None:
    call = stage.call(arguments={"text": "x" * (MEGABYTE + 1)})
    for _ in range(2):
        assert await stage.attack(stage.call_topic, call, stage.properties())
    await stage.check((stage.call_topic, f"more than the limit of {MEGABYTE}"))
    only_errors(stage, "invalid_arguments", 2)


async def test_the_payload_s_response_topic_is_an_address_too(stage: Stage) -> None:
    """The reference always sends it, and some bridges drop the properties."""
    call = stage.call(arguments="wrong")
    assert call["response_topic"] == stage.inbox
    await stage.attack(stage.call_topic, call)
    await stage.check((stage.call_topic, "arguments"))
    (answer,) = only_errors(stage, "invalid_arguments", 1)
    assert answer["call_id"] == "call-1"


async def test_a_refusal_carries_the_call_id_of_the_payload(stage: Stage) -> None:
    """Callers match by it first; the reference looks at nothing else."""
    await stage.attack(stage.call_topic, stage.call(arguments="wrong"), properties(response_topic=stage.inbox))
    await stage.check((stage.call_topic, "arguments"))
    (answer,) = only_errors(stage, "invalid_arguments", 1)
    assert answer["call_id"] == "call-1"


async def test_a_bad_call_without_an_address_is_told_to_nobody(stage: Stage) -> None:
    for payload in (b"null", b"{}", b'{"client": "peer", "call_id": 5}'):
        await stage.attack(stage.call_topic, payload)
        for address in (NOT_OURS, stage.inbox + "/x", f"{stage.namespace}/mcp/clients//responses"):
            await stage.attack(stage.call_topic, payload, properties(response_topic=address))
    await stage.check((stage.call_topic, "object"))
    assert stage.answers() == []


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1" * 4000, b"-0", b"1e-999"])
async def test_numbers_that_python_has_trouble_with_are_refused_by_the_schema(number: bytes, stage: Stage) -> None:
    payload = json.dumps(stage.call(arguments={"text": "NUMBER"})).encode().replace(b'"NUMBER"', number)
    await stage.attack(stage.call_topic, payload, stage.properties())
    await stage.check()
    only_errors(stage, "invalid_arguments", 1)


async def test_arguments_as_deep_as_the_reader_goes_are_refused_by_the_schema(stage: Stage) -> None:
    for depth in (50, 150, 190, 197):
        deep = b"[" * depth + b"]" * depth
        payload = json.dumps(stage.call(f"{depth}", arguments={"text": "DEEP"})).encode().replace(b'"DEEP"', deep)
        await stage.attack(stage.call_topic, payload, stage.properties())
    await stage.check()
    only_errors(stage, "invalid_arguments", 4)


async def test_of_repeated_keys_one_counts(stage: Stage) -> None:
    payload = b'{"call_id": "a", "call_id": "b", "client": "x", "client": "peer", "arguments": 5, "arguments": '
    await stage.attack(stage.call_topic, payload + b'{"text": "one", "text": "two"}}', stage.properties())
    await stage.check()
    assert [(answer["call_id"], answer["result"]) for answer in stage.answers()] == [("b", "two")]


async def test_a_large_call_with_everything_wrong_does_not_stop_the_others(stage: Stage) -> None:
    stage.server.add_tool("sort", lambda arguments: 1, input_schema={"properties": {"items": {"items": {"type": "string"}}}})
    await until(lambda: stage.messages(stage.topics.tool_card("sort")))
    call = stage.call(arguments={"items": [1] * 200_000})
    await stage.attack(stage.topics.tool_call("sort"), call, stage.properties())
    started = asyncio.get_running_loop().time()
    assert await soon(stage.client.call("echo", {"text": "fine"}), 20) == "fine"
    assert asyncio.get_running_loop().time() - started < 0.5, "one call's arguments held up all the others"
    await stage.check()
    (answer,) = only_errors(stage, "invalid_arguments", 1)
    assert len(json.dumps(answer)) < 50_000


# Where to answer


@pytest.mark.parametrize("address", [pytest.param(a, id=a[:40]) for a in FOREIGN + WITH_WILDCARDS])
async def test_a_foreign_response_topic_in_the_property_is_refused_at_the_caller_s_own(
    address: str, stage: Stage
) -> None:
    address = address.format(ns=stage.namespace)
    call = stage.call(response_topic=None)
    reached = [await stage.attack(stage.call_topic, call, stage.properties(response_topic=address)) for _ in range(2)]
    assert reached == [True, True] or "+" in address or "#" in address, "only wildcards offend a broker"
    await stage.check(*[(stage.call_topic, "Response Topic")][: sum(reached)])
    if any(reached):
        answers = only_errors(stage, "unauthorized", sum(reached))
        assert stage.inbox in answers[0]["error"]["message"]
    assert "hi" not in stage.runs


@pytest.mark.parametrize("address", [pytest.param(a, id=a[:40]) for a in FOREIGN + WITH_WILDCARDS])
async def test_a_foreign_response_topic_in_the_payload_is_refused_at_the_caller_s_own(
    address: str, stage: Stage
) -> None:
    call = stage.call(response_topic=address.format(ns=stage.namespace))
    for _ in range(2):
        assert await stage.attack(stage.call_topic, call, properties(correlation=b"call-1"))
    await stage.check((stage.call_topic, "Response Topic"))
    answers = only_errors(stage, "unauthorized", 2)
    assert stage.inbox in answers[0]["error"]["message"]
    assert "hi" not in stage.runs


async def test_the_property_goes_before_the_payload_and_neither_leads_elsewhere(stage: Stage) -> None:
    elsewhere = f"{stage.namespace}/{NOT_OURS}/answers"
    await stage.attack(stage.call_topic, stage.call("right", response_topic=elsewhere), stage.properties())
    await stage.attack(stage.call_topic, stage.call("wrong"), stage.properties(response_topic=elsewhere))
    await stage.check((stage.call_topic, "Response Topic"))
    assert stage.answers()[-1]["error"]["type"] == "unauthorized"
    assert stage.messages(elsewhere) == []


async def test_an_unreadable_call_is_not_answered_elsewhere_either(stage: Stage) -> None:
    for address in FOREIGN[1:]:
        await stage.attack(stage.call_topic, b"null", properties(response_topic=address.format(ns=stage.namespace)))
    await stage.check((stage.call_topic, "object"))
    assert stage.answers() == []


# Names


@pytest.mark.parametrize("call_id", [pytest.param(c, id=repr(c)[:20]) for c in TOPIC_CHARACTERS])
async def test_a_call_id_is_any_string_but_never_a_topic_level(call_id: str, stage: Stage) -> None:
    calls = [("echo", {}), ("chatter", {}), ("chatter", {"stream": True})]
    for number, (tool, fields) in enumerate(calls):
        own_id = call_id + str(number)
        if call_id[0] in "$+#" and len(call_id) == 1:
            own_id = str(number) + call_id
        await stage.attack(stage.topics.tool_call(tool), stage.call(own_id, **fields), stage.properties())
        await until(lambda: len(stage.answers()) == number + 1)
        assert (stage.answers()[-1]["call_id"], stage.answers()[-1]["result"]) == (own_id, "hi")
    await stage.settle()
    streams = {m.topic for m in stage.watcher.seen if "/stream" in m.topic} if stage.watcher else set()
    assert all(topic.count("/") == stage.call_topic.count("/") + 1 for topic in streams), streams
    assert not any(set(topic) & set("+#\x00\n") or len(topic) > 1000 for topic in streams), streams
    await stage.check(strays=False)


@pytest.mark.parametrize("client", [pytest.param(c, id=repr(c)[:20]) for c in ["", "x" * 256, *TOPIC_CHARACTERS[:8]]])
async def test_a_client_name_with_topic_characters_gets_nothing_run(client: str, stage: Stage) -> None:
    for _ in range(2):
        await stage.attack(stage.call_topic, stage.call(client=client, response_topic=None))
        spelled = stage.call(client=client, response_topic=f"{stage.namespace}/mcp/clients/{client}/responses")
        await stage.attack(stage.call_topic, spelled)
    await stage.check((stage.call_topic, "client"))
    assert "hi" not in stage.runs


@pytest.mark.parametrize("client", ["a/b", "", "#"])
async def test_an_impossible_client_name_is_refused_where_there_is_an_address(client: str, stage: Stage) -> None:
    await stage.attack(stage.call_topic, stage.call(client=client), stage.properties())
    await stage.check((stage.call_topic, "client"))
    (answer,) = stage.answers()
    assert answer["status"] == "error"
    assert answer["error"]["type"] in ("unauthorized", "invalid_arguments")
    assert answer["call_id"] == "call-1"


async def test_calling_in_another_s_name_brings_the_caller_nothing(stage: Stage) -> None:
    friends = stage.topics.client_responses("friend")
    await stage.attack(stage.call_topic, stage.call(client="friend"), stage.properties())
    await stage.attack(stage.call_topic, stage.call("call-2", client="friend", response_topic=None))
    await stage.settle()
    assert stage.answers() == []
    theirs = [answer for answer in stage.answers(friends) if answer["call_id"].startswith("call-")]
    assert [(a["call_id"], a["status"]) for a in theirs] == [("call-1", "error"), ("call-2", "ok")]
    told = [(stage.call_topic, "Response Topic")]
    if len(stage.faults()) > 1:  # that answers came which nobody asked for may be told too
        told.append((friends, "call"))
    await stage.check(*told)


async def test_a_peer_that_knows_a_call_id_cannot_touch_the_call(stage: Stage) -> None:
    handle = await soon(stage.client.submit("wait", {"text": "mine"}, call_id="known"))
    await until(lambda: "mine" in stage.runs)
    for client in ("peer", "Friend", "friend "):
        cancel = {"call_id": "known", "client": client}
        await stage.attack(stage.topics.tool_cancel("wait"), cancel)
    await stage.attack(stage.topics.tool_call("wait"), stage.call("known", arguments={"text": "theirs"}))
    await until(lambda: "theirs" in stage.runs)
    await stage.settle()
    assert not handle.done
    stage.go_on.set()
    assert await soon(handle.result()) == "waited"
    await until(lambda: stage.answers())
    await stage.check()


# Repeats


async def test_a_repeated_call_runs_once_and_is_answered_each_time(stage: Stage) -> None:
    attacker = await stage.attacker()
    payload = json.dumps(stage.call()).encode()
    for number in range(5):
        await attacker.publish(stage.call_topic, payload, stage.properties(), duplicate=number > 0)
        await until(lambda: len(stage.answers()) == number + 1)
    await stage.attack(stage.call_topic, stage.call(client="other", response_topic=None))
    await until(lambda: stage.answers(stage.topics.client_responses("other")))
    await stage.check(strays=False)
    assert stage.runs.count("hi") == 2, "once for each client"
    assert len({json.dumps(answer) for answer in stage.answers()}) == 1


async def test_repeats_of_a_running_call_join_it(stage: Stage) -> None:
    topic = stage.topics.tool_call("wait")
    for _ in range(5):
        await stage.attack(topic, stage.call(), stage.properties())
    await until(lambda: "hi" in stage.runs)
    await stage.settle()
    assert stage.answers() == []
    stage.go_on.set()
    await until(lambda: stage.answers())
    await stage.check()
    assert stage.runs.count("hi") == 1
    assert {(answer["call_id"], answer["result"]) for answer in stage.answers()} == {("call-1", "waited")}


async def test_a_repeat_of_a_long_call_does_not_use_up_the_broker_s_window(stage: Stage) -> None:
    for _ in range(3):
        await stage.attack(stage.topics.tool_call("wait"), stage.call(), stage.properties())
    await until(lambda: "hi" in stage.runs)
    window = 1200  # more than any broker of the tests sends without an acknowledgement
    for start in range(0, window, 60):
        calls = (stage.client.call("echo", {"text": f"{start + n}"}, timeout=3) for n in range(60))
        try:
            await soon(asyncio.gather(*calls))
        except ToolCallError as error:
            pytest.fail(f"after {start} calls the server takes no more: {error}")
    stage.go_on.set()
    await until(lambda: stage.answers())
    await stage.check()


async def test_repeats_and_cancels_at_every_moment_of_a_call_leave_nothing_behind(stage: Stage) -> None:
    cancel_topic = stage.topics.tool_cancel("echo")
    for number in range(40):
        call_id = f"call-{number}"
        call = (stage.call_topic, stage.call(call_id), stage.properties())
        cancel = (cancel_topic, {"call_id": call_id, "client": "peer"}, b"")
        await stage.attack_often([call] * (number % 3) + [cancel] * (number % 4) + [call] + [cancel] * (number % 7))
    for _ in range(20):
        await soon(asyncio.gather(*(stage.client.call("echo", {"text": "x"}, timeout=3) for _ in range(60))))
    await stage.check()
    assert all(answer["status"] == "ok" for answer in stage.answers())


async def test_a_retained_call_runs_at_most_once_also_with_a_new_replica(stage: Stage) -> None:
    from mqtt_agent import ToolServer

    await stage.attack(stage.call_topic, stage.call(), stage.properties(), retain=True)
    await stage.settle()
    runs: list[str] = []
    late = ToolServer("late", broker=stage.broker.url, namespace=stage.namespace)
    late.add_tool("echo", lambda text: runs.append(text), input_schema={"properties": {"text": {"type": "string"}}})
    late.add_tool("other", lambda: "other")
    async with late:
        assert await soon(stage.client.call("other", wait_online=True)) == "other"
        await stage.client.connection.publish(stage.topics.tool_cancel("echo"), b"{}")
        assert "hi" not in runs
        stage.remember()
    assert stage.runs.count("hi") <= 1
    assert len(stage.answers()) <= 1


# Cancels


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        *NO_JSON_OBJECT,
        pytest.param(b"{}", "call_id", id="no call_id"),
        pytest.param(b'{"call_id": 5, "client": "friend"}', "call_id", id="call_id is a number"),
        pytest.param(b'{"call_id": "known"}', "client", id="no client"),
        pytest.param(b'{"call_id": "known", "client": "friend", "reason": []}', "reason", id="reason is a list"),
        pytest.param(b"[" * (MEGABYTE + 1), "limit", id="over the limit"),
    ],
)
async def test_what_is_no_cancel_cancels_nothing(payload: bytes, reason: str, stage: Stage) -> None:
    handle = await soon(stage.client.submit("wait", call_id="known"))
    await until(lambda: "waited" in stage.runs)
    topic = stage.topics.tool_cancel("wait")
    for _ in range(2):
        await stage.attack(topic, payload, stage.properties())
    stage.go_on.set()
    assert await soon(handle.result()) == "waited"
    await stage.check((topic, reason))
    assert stage.answers() == []


async def test_cancels_of_calls_that_nobody_runs_are_ignored(stage: Stage) -> None:
    handle = await soon(stage.client.submit("wait", call_id="known"))
    await until(lambda: "waited" in stage.runs)
    topic = stage.topics.tool_cancel("wait")
    for call_id in ("unknown", "a/b", "#", "x" * 100_000, "known "):
        await stage.attack(topic, {"call_id": call_id, "client": "friend", "reason": "x" * 100_000})
    await stage.attack(topic, {"call_id": "known", "client": "friend"}, retain=True)
    await stage.settle()
    stage.go_on.set()
    if not handle.done:  # a broker may deliver a retained message as any other while it is new
        assert await soon(handle.result()) == "waited"
    await stage.check()


async def test_a_cancel_that_comes_a_hundred_times_is_one(stage: Stage) -> None:
    await stage.attack(stage.topics.tool_call("wait"), stage.call(), stage.properties())
    await until(lambda: "hi" in stage.runs)
    cancel = (stage.topics.tool_cancel("wait"), {"call_id": "call-1", "client": "peer"}, b"")
    await stage.attack_often([cancel] * 100)
    await stage.check()
    assert stage.answers() == [], "nobody waits for an answer to a cancelled call"
