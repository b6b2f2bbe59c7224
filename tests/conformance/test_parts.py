"""A2A's parts in tasks, artifacts and results, as an independent peer sends and receives them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker, Ejabberd, Mosquitto
from mqtt_agent import Agent, Part, TaskContext, TaskMessage
from mqtt_agent.wire import Artifact, Task, TaskResult, decode, encode
from support import soon, until

from ..agents.conftest import MakeAgent
from .foreign import ForeignRequester

RUN_ON = ALL_BROKERS
LONG_ON = [Ejabberd, Mosquitto]  # a broker carries parts as any other text

PICTURE: dict[str, Any] = {"raw": "iVBORw0KGgo=", "filename": "map.png", "mediaType": "image/png"}
LIST: dict[str, Any] = {"url": "https://trips.example/list.csv", "mediaType": "text/csv", "metadata": {"rows": 12}}
BUDGET: dict[str, Any] = {"data": {"budget": 300}}
PARTS = [{"text": "Which is best?"}, PICTURE, LIST, BUDGET]


@pytest.fixture
async def foreign(broker: Broker, namespace: str) -> AsyncIterator[ForeignRequester]:
    peer = ForeignRequester(broker.url, namespace, "scout")
    await soon(peer.start("tasks/t-1/result", "tasks/t-1/events", "agents/+/card", "agents/+/status"))
    yield peer
    await soon(peer.stop())


async def serve(make_agent: MakeAgent, handler: Any) -> Agent:
    agent = make_agent("writer")
    agent.on_task(handler)
    await soon(agent.start())
    return agent


@pytest.mark.rule("PART-1", "PART-2", "PART-3")
async def test_a_handler_reads_the_parts_of_a_message_and_its_references(
    make_agent: MakeAgent, foreign: ForeignRequester
) -> None:
    seen: list[TaskContext] = []
    await serve(make_agent, seen.append)
    message = {"role": "user", "parts": [*PARTS, "plain", 7, {"text": 5}], "message_id": "m-1", "extensions": ["x:1"]}
    await foreign.give("t-1", messages=[message], reference_task_ids=["t-0"])
    assert (await foreign.result("t-1"))["status"] == "completed"
    (task,) = seen
    text, picture, link, budget, plain, number, odd = task.parts
    assert (task.messages[0].content, text.kind) == ("Which is best?\nplain", "text")
    assert (picture.kind, picture.decoded(), picture.filename) == ("raw", b"\x89PNG\r\n\x1a\n", "map.png")
    assert (link.kind, link.url, link.media_type, link.metadata) == ("url", LIST["url"], "text/csv", {"rows": 12})
    assert (budget.kind, budget.data) == ("data", {"budget": 300})
    assert (text.text, plain.text, number.data, odd.data) == ("Which is best?", "plain", 7, {"text": 5})
    assert (task.messages[0].message_id, task.messages[0].extensions) == ("m-1", ["x:1"])
    assert task.reference_task_ids == ["t-0"]


@pytest.mark.rule("PART-2")
async def test_a_message_without_parts_stands_for_one_part(make_agent: MakeAgent, foreign: ForeignRequester) -> None:
    seen: list[TaskContext] = []
    await serve(make_agent, seen.append)
    await foreign.give("t-1", messages=[{"role": "user", "content": {"a": 1}}])
    await foreign.result("t-1")
    assert [part.data for part in seen[0].parts] == [{"a": 1}]


@pytest.mark.rule("PART-2", "PART-3")
async def test_our_requester_sends_text_beside_parts_for_a_peer_that_knows_none(
    make_agent: MakeAgent, foreign: ForeignRequester
) -> None:
    await foreign.listen("tasks/old/inbox")
    requester = make_agent("planner")
    await soon(requester.start())
    file = Part.of_bytes(b"\x89PNG\r\n\x1a\n", media_type="image/png", filename="map.png")
    messages = [TaskMessage(parts=[Part(text="Which is best?"), file]), {"role": "user", "parts": [{"text": "Soon?"}]}]
    await soon(requester.delegate("old", messages=messages, reference_task_ids=["t-0"], wait_online=True))
    task = await foreign.next_on("tasks/old/inbox")
    assert task["messages"] == [
        {"role": "user", "content": "Which is best?", "parts": [{"text": "Which is best?"}, PICTURE]},
        {"role": "user", "content": "Soon?"},
    ]
    assert task["reference_task_ids"] == ["t-0"]


@pytest.mark.rule("PART-4", "PART-5")
async def test_an_artifact_has_parts_and_may_come_in_chunks(make_agent: MakeAgent, foreign: ForeignRequester) -> None:
    async def handle(task: TaskContext) -> None:
        await task.artifact("map", parts=[PICTURE, LIST], metadata={"scale": 2})
        await task.artifact("report", "MQTT ", last_chunk=False)
        await task.artifact("report", "is ", append=True, last_chunk=False)
        await task.artifact("report", parts=[Part(text="good."), BUDGET], append=True, last_chunk=True)

    await serve(make_agent, handle)
    await foreign.give("t-1")
    result = await foreign.result("t-1")
    assert result["artifacts"] == [
        {"name": "map", "data": None, "parts": [PICTURE, LIST], "metadata": {"scale": 2}},
        {"name": "report", "data": "MQTT is good.", "parts": [{"text": "MQTT is good."}, BUDGET]},
    ]
    await until(lambda: len([each for each in foreign.on("tasks/t-1/events") if each["type"] == "artifact"]) == 4)
    first, *chunks = [each for each in foreign.on("tasks/t-1/events") if each["type"] == "artifact"]
    assert (first["content"], first["parts"], first["metadata"]) == ("map", [PICTURE, LIST], {"scale": 2})
    assert [(each["data"], each.get("append"), each["last_chunk"]) for each in chunks] == [
        ("MQTT ", None, False),
        ("is ", True, False),
        ("good.", True, True),
    ]
    assert chunks[2]["parts"] == [{"text": "good."}, BUDGET]


@pytest.mark.rule("PART-6")
async def test_a_result_may_be_a_message_and_says_its_text_as_the_result(
    make_agent: MakeAgent, foreign: ForeignRequester
) -> None:
    async def handle(task: TaskContext) -> TaskMessage:
        return TaskMessage(role="agent", parts=[Part(text="The second."), Part.model_validate(PICTURE)], message_id="m")

    await serve(make_agent, handle)
    await foreign.give("t-1")
    result = await foreign.result("t-1")
    assert result["result"] == "The second."
    assert result["message"]["parts"] == [{"text": "The second."}, PICTURE]
    requester = make_agent("planner")
    await soon(requester.start())
    handle_ = await soon(requester.delegate("writer", "again"))
    assert await soon(handle_.result()) == "The second."
    assert handle_.response is not None
    assert handle_.response.message is not None
    assert handle_.response.message.all_parts[1].decoded() == b"\x89PNG\r\n\x1a\n"


@pytest.mark.rule("STATE-1", "EVENT-6")
async def test_a_handler_that_needs_credentials_asks_in_the_state_auth_required(
    make_agent: MakeAgent, foreign: ForeignRequester
) -> None:
    async def handle(task: TaskContext) -> str:
        return f"token {await task.require_auth('Log in at https://login.example', {'type': 'string'})}"

    await serve(make_agent, handle)
    await foreign.give("t-1")
    await until(lambda: any(each["status"] == "auth-required" for each in foreign.on("tasks/t-1/events")))
    asked = foreign.on("tasks/t-1/events")[-1]
    assert asked["content"] == "Log in at https://login.example"
    assert asked["data"] == {"input_id": "1", "schema": {"type": "string"}}
    await foreign.word("t-1", "input", input="abc", input_id="1")
    assert (await foreign.result("t-1"))["result"] == "token abc"


@pytest.mark.rule("STATE-1")
async def test_our_requester_gets_a_demand_for_credentials_as_a_question(make_agent: MakeAgent) -> None:
    async def handle(task: TaskContext) -> str:
        return await task.require_auth("Log in")

    await serve(make_agent, handle)
    requester = make_agent("planner")
    await soon(requester.start())
    handle_ = await soon(requester.delegate("writer", "go"))

    async def answered() -> None:
        async for event in handle_.events():
            if event.status == "auth-required":
                assert (event.content, handle_.question) == ("Log in", event)
                await handle_.send("done")
                return

    await soon(answered())
    assert await soon(handle_.result()) == "done"


def test_parts_survive_a_round_trip_and_old_messages_keep_their_digest() -> None:
    task = Task(task_id="1", sender="a", messages=[TaskMessage(parts=[Part.model_validate(each) for each in PARTS])])
    assert decode(Task, encode(task)) == task
    assert decode(Task, encode(task)).digest == task.digest
    plain, said = Task(task_id="1", prompt="x"), Task(task_id="1", messages=[TaskMessage(content="x")])
    assert plain.digest != said.digest  # the prompt itself is content too
    artifact = Artifact.of_parts("a", [Part(text="x", metadata={"k": 1})])
    assert decode(TaskResult, b'{"task_id": "1", "status": "completed"}').message is None
    assert (artifact.data, artifact.parts) == ("x", [Part(text="x", metadata={"k": 1})])
