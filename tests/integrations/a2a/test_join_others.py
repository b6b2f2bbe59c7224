"""Remote A2A agents of other SDKs: what they leave out, refuse, or answer late costs no task and no work twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from a2a_mqtt_agent import RemoteAgent, forwarding, reaching
from brokers import Broker
from mqtt_agent import Agent, MemoryStore, TaskHandle
from mqtt_agent.errors import TaskFailed
from starlette.responses import HTMLResponse, Response
from support import soon

from .others import Answers, Other, artifact, asks, task, update

Give = Callable[..., Awaitable[tuple[Other, TaskHandle]]]
NOT_FOUND, UNSUPPORTED, INVALID, INTERNAL, UNKNOWN = -32001, -32004, -32602, -32603, -32601
"""Codes of errors in JSON-RPC and A2A."""


@pytest.fixture
async def give(embedded: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Give]:
    """Gives a task to a remote agent that answers as a test says."""
    monkeypatch.setattr(forwarding, "_POLLED_EVERY", 0.05)
    monkeypatch.setattr(forwarding, "_LOOK_AFTER", 0.02)
    monkeypatch.setattr(reaching, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(forwarding, "FIRST_WAIT", 0.02)
    options: dict[str, Any] = {"broker": embedded.url, "namespace": namespace, "will_delay": 1}
    async with AsyncExitStack() as stack:

        async def begin(answers: Answers, *, streaming: bool = True, **more: Any) -> tuple[Other, TaskHandle]:
            other = await stack.enter_async_context(Other(answers, streaming).listening())
            more = {"store": MemoryStore(), "drain_timeout": 0, **options, **more}
            await stack.enter_async_context(await RemoteAgent.at(other.url, "helper", **more))
            planner = await stack.enter_async_context(Agent("planner", store=MemoryStore(), **options))
            return other, await soon(planner.delegate("helper", "hello", wait_online=True))

        yield begin


async def answered_with(handle: TaskHandle, answers: dict[str, str]) -> None:
    """Answer the questions of a task until its end."""
    async for event in handle.events():
        if event.status == "input-required":
            await handle.send(answers[str(event.content)])


@pytest.mark.parametrize("code", [NOT_FOUND, UNSUPPORTED, INVALID])
async def test_an_agent_that_lets_nobody_subscribe_is_looked_at_now_and_then(give: Give, code: int) -> None:
    def answers(method: str, params: dict[str, Any], number: int) -> Any:
        if method == "SendStreamingMessage":
            return [{"task": task()}]
        return (code, "no") if method == "SubscribeToTask" else task("WORKING" if number < 4 else "COMPLETED")

    other, handle = await give(answers)
    assert await soon(handle.result()) == "the end"
    assert other.asked == {"SendStreamingMessage": 1, "SubscribeToTask": 1, "GetTask": 4}


async def test_a_stream_that_ends_at_once_is_not_asked_for_again_and_again(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = asyncio.Event()

    def answers(method: str, params: dict[str, Any], number: int) -> Any:
        return task("COMPLETED" if over.is_set() else "WORKING") if method == "GetTask" else [{"task": task()}]

    monkeypatch.setattr(forwarding, "_POLLED_EVERY", 0.2)
    other, handle = await give(answers)
    asyncio.get_running_loop().call_later(0.3, over.set)
    assert await soon(handle.result()) == "the end"
    assert other.asked["SubscribeToTask"] <= 3


@pytest.mark.parametrize("streaming", [True, False])
async def test_an_error_of_an_agents_own_ends_the_task_and_the_message_is_sent_once(
    give: Give, streaming: bool
) -> None:
    other, handle = await give(lambda *_: (-32050, "quota exceeded"), streaming=streaming)
    with pytest.raises(TaskFailed, match="quota exceeded") as failed:
        await soon(handle.result())
    assert failed.value.code == "REMOTE_ERROR"
    assert len(other.messages) == 1


async def test_an_answer_that_cannot_be_read_or_is_empty_ends_the_task(give: Give) -> None:
    other, handle = await give(lambda *_: HTMLResponse("<html>Log in</html>"), streaming=False)
    with pytest.raises(TaskFailed, match="refuses the task"):
        await soon(handle.result())
    assert len(other.messages) == 1


async def test_a_stream_without_a_task_and_a_message_ends_the_task(give: Give) -> None:
    _, handle = await give(lambda *_: [])
    with pytest.raises(TaskFailed, match="without a task and without a message"):
        await soon(handle.result())


async def test_a_stream_that_breaks_with_an_error_leaves_the_task_to_the_agent(give: Give) -> None:
    def answers(method: str, params: dict[str, Any], number: int) -> Any:
        if method == "GetTask":
            return task("COMPLETED")
        broken = b'data: {"jsonrpc": "2.0", "id": "1", "error": {"code": -32603, "message": "no"}}\n\n'
        first = b'data: {"jsonrpc": "2.0", "id": "1", "result": {"task": {"id": "t-1", "contextId": "c-1"}}}\n\n'
        return Response(first + broken, media_type="text/event-stream")

    _, handle = await give(answers)
    assert await soon(handle.result()) == "the end"


@pytest.mark.parametrize("streaming", [True, False])
async def test_an_agent_that_answers_too_late_is_not_given_the_same_work_again(give: Give, streaming: bool) -> None:
    late = asyncio.Event()

    def answers(method: str, params: dict[str, Any], number: int) -> Any:
        async def work() -> Any:
            await late.wait()
            return (INTERNAL, "too late")

        return work() if method.startswith("Send") else (UNKNOWN, "no")

    other, handle = await give(answers, streaming=streaming, answer_timeout=0.1)
    with pytest.raises(TaskFailed, match="has not answered within 0.1 s") as failed:
        await soon(handle.result())
    assert failed.value.code == "REMOTE_TIMEOUT"
    assert len(other.messages) == 1
    late.set()


@pytest.mark.parametrize("state", ["AUTH_REQUIRED", "INPUT_REQUIRED"])
async def test_a_task_that_goes_on_without_an_answer_is_followed_to_its_end(give: Give, state: str) -> None:
    logged_in = asyncio.Event()

    def answers(method: str, params: dict[str, Any], number: int) -> Any:
        if method == "GetTask":
            return task("COMPLETED") if logged_in.is_set() else asks(state, "Log in")
        return [{"task": task()}, update(state, "Log in")]

    _, handle = await give(answers)
    told = list[str]()

    async def follow() -> None:
        async for event in handle.events():
            told.extend([] if event.status is None else [event.status])
            if handle.question is not None:
                logged_in.set()

    await soon(follow())
    assert await soon(handle.result()) == "the end"
    assert told == ["working", state.lower().replace("_", "-"), "working", "completed"]


@pytest.mark.parametrize("failure", [Response(status_code=503), (INVALID, "Task is in terminal state")])
async def test_an_answer_that_did_not_arrive_is_sent_again_and_a_needless_one_does_no_harm(
    give: Give, failure: Any
) -> None:
    needless = isinstance(failure, tuple)
    answered = 0

    def answers(method: str, params: dict[str, Any], number: int) -> Any:
        nonlocal answered
        if method == "GetTask":
            return task("COMPLETED") if answered else asks()
        if "taskId" not in params["message"]:
            return [{"task": asks()}]
        if number == 2:
            answered += needless
            return failure
        answered += 1
        return [{"task": task("COMPLETED")}]

    other, handle = await give(answers)
    await soon(answered_with(handle, {"Which year?": "2024"}))
    assert await soon(handle.result()) == "the end"
    sent = [each["parts"][0]["text"] for each in other.messages]
    assert sent == ["hello", "2024"] if needless else sent == ["hello", "2024", "2024"]


async def test_an_agent_with_one_id_for_all_its_messages_gets_an_answer_to_each_question(give: Give) -> None:
    got: list[str] = []

    def answers(method: str, params: dict[str, Any], number: int) -> Any:
        if method != "GetTask":
            if "taskId" in params["message"]:
                got.append(params["message"]["parts"][0]["text"])
            return [{"task": task()}]
        return task("COMPLETED") if len(got) == 2 else asks(text=["Which year?", "Which month?"][len(got)])

    _, handle = await give(answers)
    await soon(answered_with(handle, {"Which year?": "2024", "Which month?": "May"}))
    assert await soon(handle.result()) == "the end"
    assert got == ["2024", "May"]


async def test_chunks_of_an_artifact_that_was_never_begun_are_kept(give: Give) -> None:
    parts = [{"text": "one "}, {"text": "two"}]

    def answers(method: str, params: dict[str, Any], number: int) -> Any:
        if method == "GetTask":
            return task("COMPLETED", artifacts=[{"artifactId": "a-1", "parts": parts}])
        return [{"task": task()}, artifact("one ", append=True), artifact("two", append=True, lastChunk=True)]

    _, handle = await give(answers)
    assert await soon(handle.result()) == "one \ntwo"
    assert handle.response is not None
    assert [(each["name"], each["data"]) for each in handle.response.artifacts or ()] == [("a-1", "one two")]
