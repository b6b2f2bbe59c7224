"""Peer agents as Runnables, over real brokers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_mqtt_agent import MQTTRemoteAgent
from mqtt_agent import Agent, MemoryStore, TaskContext, errors
from mqtt_agent.adapting import identity
from mqtt_agent.agents.store import default_store_path
from mqtt_agent.transport.outbox import Outbox
from mqtt_agent.transport.publication import Publication
from support import becomes, soon, until

Peer = Callable[..., Any]


@pytest.fixture
async def peer(broker: Broker, namespace: str) -> Any:
    """A started agent with the test's handler."""
    agent = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore(), will_delay=1, drain_timeout=0)
    await soon(agent.start())
    yield agent
    await soon(agent.stop())


@pytest.fixture
def writer(broker: Broker, namespace: str) -> Iterator[MQTTRemoteAgent]:
    options: Any = {"broker": broker.url, "namespace": namespace, "agent_id": "planner", "store": MemoryStore()}
    with MQTTRemoteAgent("writer", timeout=20, **options) as remote:
        yield remote


async def test_text_gives_a_message_of_the_peer(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> str:
        await task.artifact("notes", {"n": 1})
        return f"{task.sender} wants {task.prompt}"

    message = await soon(writer.ainvoke("a poem"))
    assert isinstance(message, AIMessage)
    assert (message.text, message.name) == ("planner wants a poem", "writer")
    about = message.response_metadata["mqtt"]
    assert about["result"] == "planner wants a poem"
    assert about["peer"] == "writer"
    assert about["attempt"] == 1
    assert about["elapsed_ms"] >= 0
    assert about["artifacts"] == [{"name": "notes", "data": {"n": 1}}]
    assert (await asyncio.to_thread(writer.invoke, "a song")).text == "planner wants a song"


async def test_messages_are_the_conversation(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> Any:
        return {"prompt": task.prompt, "messages": [each.model_dump(exclude_none=True) for each in task.messages]}

    state = {
        "messages": [
            SystemMessage("Be brief"),
            HumanMessage("Hello"),
            AIMessage("", tool_calls=[{"name": "t", "args": {}, "id": "1"}]),
            ToolMessage("noise", tool_call_id="1"),
            AIMessage("Hi", name="greeter"),
            HumanMessage([{"type": "text", "text": "Write"}, {"type": "image", "url": "https://example.com/a.png"}]),
        ]
    }
    update = await soon(writer.ainvoke(state))
    [message] = update["messages"]
    got = message.response_metadata["mqtt"]["result"]
    assert got["prompt"] == "Write"
    assert [(each["role"], each.get("name")) for each in got["messages"]] == [
        ("system", None),
        ("user", None),
        ("agent", "greeter"),
        ("user", None),
    ]
    assert got["messages"][3]["parts"] == [{"text": "Write"}, {"url": "https://example.com/a.png"}]
    with pytest.raises(ValueError, match="empty"):
        await writer.ainvoke([SystemMessage("")])


async def test_anything_else_is_structured_input_and_output(
    peer: Agent, broker: Broker, namespace: str, writer: MQTTRemoteAgent
) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> Any:
        return {"got": task.data, "prompt": task.prompt}

    assert await soon(writer.ainvoke({"n": 1})) == {"got": {"n": 1}, "prompt": None}
    keyed = MQTTRemoteAgent("writer", agent=writer.agent, input_key="question", output_key="answer")
    answer = await soon(keyed.ainvoke({"question": "Why?", "other": object()}))
    assert answer == {"answer": {"got": None, "prompt": "Why?"}}
    talking = MQTTRemoteAgent("writer", agent=writer.agent, output_key="messages")
    assert [type(each) for each in (await soon(talking.ainvoke("Why?")))["messages"]] == [AIMessage]


async def test_it_works_in_a_chain(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> str:
        return f"{task.messages[0].content}|{task.prompt}"

    chain = ChatPromptTemplate([("system", "Be brief"), ("user", "Write about {topic}")]) | writer | StrOutputParser()
    assert await soon(chain.ainvoke({"topic": "cats"})) == "Be brief|Write about cats"
    assert await soon(asyncio.to_thread(chain.invoke, {"topic": "dogs"})) == "Be brief|Write about dogs"


async def test_streamed_text_comes_as_message_chunks(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> str:
        for word in ("Hello", " ", "world"):
            await task.stream(word)
        await task.progress(0.5)
        return {"all": "Hello world", "more": "Hello world!", "other": "Goodbye"}[task.prompt or ""]

    async def pieces(prompt: str) -> list[AIMessageChunk]:
        return [piece async for piece in writer.astream(prompt)]

    chunks = await soon(pieces("all"))
    assert [chunk.text for chunk in chunks] == ["Hello", " ", "world", ""]
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].response_metadata["mqtt"]["result"] == "Hello world"
    assert [chunk.text for chunk in await soon(pieces("more"))] == ["Hello", " ", "world", "!"]
    assert [chunk.text for chunk in await soon(pieces("other"))] == ["Hello", " ", "world", "Goodbye"]
    in_thread = await soon(asyncio.to_thread(lambda: list((writer | StrOutputParser()).stream("all"))))
    assert "".join(in_thread) == "Hello world"


async def test_events_come_as_custom_events_and_tokens(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> str:
        await task.progress(1, total=2, message="half")
        await task.stream("Hello")
        return "Hello"

    events: list[Any] = [event async for event in writer.astream_events("go", version="v2")]
    custom = [event["data"] for event in events if event["event"] == "on_custom_event"]
    [half] = [data for data in custom if data["type"] == "progress"]
    assert (half["progress"], half["total"], half["content"], half["peer"]) == (1, 2, "half", "writer")
    tokens = [event["data"]["chunk"] for event in events if event["event"] == "on_chat_model_stream"]
    assert [token.text for token in tokens] == ["Hello"]
    assert [event["event"] for event in events].count("on_chat_model_end") == 1


async def test_a_batch_runs_at_once_and_keeps_its_order(peer: Agent, writer: MQTTRemoteAgent) -> None:
    running: set[str] = set()

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        running.add(task.id)
        await until(lambda: len(running) % 4 == 0)
        return f"did {task.prompt}"

    prompts = ["a", "b", "c", "d"]
    assert [each.text for each in await soon(writer.abatch(prompts))] == [f"did {each}" for each in prompts]
    assert [each.text for each in await soon(asyncio.to_thread(writer.batch, prompts))] == [f"did {p}" for p in prompts]


async def test_a_question_outside_a_graph_is_answered_by_a_function(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> Any:
        return [await task.ask("Which city?"), await task.ask("Which year?", {"type": "integer"})]

    questions: list[tuple[str, Any]] = []

    async def answer(question: str, schema: Any) -> Any:
        questions.append((question, schema))
        if question == "Which city?":
            return "Oslo"
        return 2024 if len(questions) == 3 else "last year"

    asking = MQTTRemoteAgent("writer", agent=writer.agent, on_question=answer)
    assert await soon(asking.ainvoke({})) == ["Oslo", 2024]
    assert [schema for _, schema in questions] == [None, {"type": "integer"}, {"type": "integer"}]
    assert [question.splitlines()[0] for question, _ in questions] == ["Which city?", "Which year?", "Which year?"]
    assert 'the answer must be a whole number, not the text "last year"' in questions[2][0], (
        "the question says what is wrong with the answer"
    )
    with pytest.raises(TypeError, match="ainvoke"):
        await asyncio.to_thread(asking.invoke, {})


async def test_a_question_that_nobody_can_answer_ends_the_task(peer: Agent, writer: MQTTRemoteAgent) -> None:
    canceled = asyncio.Event()

    @peer.on_task
    async def handle(task: TaskContext) -> Any:
        try:
            await task.ask("Well?")
        finally:
            canceled.set()

    with pytest.raises(errors.TaskError, match=r"Well\? Nobody can answer here: pass on_question"):
        await soon(writer.ainvoke("go"))
    await soon(canceled.wait())


async def test_a_peers_failure_is_an_exception(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> None:
        raise errors.TaskFailed("no luck", code="E_LUCK")

    with pytest.raises(errors.TaskFailed, match="no luck") as failed:
        await soon(writer.ainvoke("go"))
    assert failed.value.code == "E_LUCK"
    with pytest.raises(errors.PeerUnavailable):
        await soon(MQTTRemoteAgent("nobody", agent=writer.agent).ainvoke("go"))


async def test_cancelling_the_run_cancels_the_task(peer: Agent, writer: MQTTRemoteAgent) -> None:
    running, canceled = asyncio.Event(), asyncio.Event()

    @peer.on_task
    async def handle(task: TaskContext) -> None:
        await task.stream("running")
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            canceled.set()

    run = asyncio.create_task(writer.ainvoke("go"))
    await soon(running.wait())
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(run)
    await soon(canceled.wait())
    running.clear()
    canceled.clear()
    stream = writer.astream("go")
    assert (await soon(stream.__anext__())).text == "running"
    await soon(stream.aclose())  # type: ignore[attr-defined]
    await soon(canceled.wait())
    canceled.clear()

    def stop_reading() -> None:
        pieces = writer.stream("go")
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]

    await soon(asyncio.to_thread(stop_reading))
    await soon(canceled.wait())


async def test_a_run_that_is_canceled_before_it_hears_of_its_task_cancels_the_task(
    peer: Agent, writer: MQTTRemoteAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed, confirm = threading.Event(), Outbox._on_puback

    def on_puback(self: Outbox, publication: Publication, reason_code: int) -> None:
        confirm(self, publication, reason_code)
        if "/inbox" in publication.topic:
            confirmed.set()

    monkeypatch.setattr(Outbox, "_on_puback", on_puback)

    @peer.on_task
    async def handle(task: TaskContext) -> None:
        await asyncio.Event().wait()

    writer.agent.start()
    await until(lambda: writer.agent.peers() != [])
    run = asyncio.create_task(writer.ainvoke("go"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    while not writer.agent.delegations():  # on its own thread, while this thread is blocked
        time.sleep(0.01)
    assert confirmed.wait(20)  # the broker has the task, and the confirmation waits for this event loop
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(run)
    [given] = await asyncio.to_thread(writer.agent.delegations)

    async def canceled() -> bool:
        handle = await asyncio.to_thread(writer.agent.resume, given.task_id)
        return handle.state == "canceled"

    await becomes(canceled)


async def test_a_task_outlives_the_patience_of_its_requester(peer: Agent, writer: MQTTRemoteAgent) -> None:
    go = asyncio.Event()

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        await go.wait()
        return "done"

    hasty = MQTTRemoteAgent("writer", agent=writer.agent, timeout=0.05)
    with pytest.raises(errors.TaskTimeout) as late:
        await soon(hasty.ainvoke("go"))
    go.set()
    assert late.value.task_id is not None
    handle_again = await asyncio.to_thread(writer.agent.resume, late.value.task_id)
    assert await soon(asyncio.to_thread(handle_again.result)) == "done"


async def test_remote_agents_with_one_name_share_one_connection(broker: Broker, namespace: str, peer: Agent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> str:
        return "ok"

    store = MemoryStore()
    options: Any = {"broker": broker.url, "namespace": namespace, "agent_id": "planner", "store": store}
    first, second = MQTTRemoteAgent("writer", **options), MQTTRemoteAgent("writer", **options)
    assert first.agent is second.agent
    shared = second.agent
    assert (await soon(first.ainvoke("go"))).text == "ok"
    await soon(asyncio.to_thread(first.close))
    assert (await soon(second.ainvoke("go"))).text == "ok"
    await soon(second.__aexit__())
    third = MQTTRemoteAgent("writer", **options)
    assert third.agent is not shared
    third.close()


async def test_threads_and_loops_use_it_at_once(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> str:
        return task.prompt or ""

    got: dict[str, str] = {}

    def in_thread(prompt: str) -> None:
        got[prompt] = writer.invoke(prompt).text if prompt < "c" else asyncio.run(writer.ainvoke(prompt)).text

    threads = [threading.Thread(target=in_thread, args=(prompt,)) for prompt in "abcd"]
    for thread in threads:
        thread.start()
    await until(lambda: len(got) == 4)
    assert got == {prompt: prompt for prompt in "abcd"}
    assert writer.agent.connection.epoch == 1


async def test_without_a_name_a_program_has_the_same_one_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    name, lasting = identity.default_agent_id(namespace)
    assert lasting
    held = identity._held.pop(str(default_store_path(namespace, name).with_suffix(".lock")))
    fresh, lasting = identity.default_agent_id(namespace)  # the view of another process of the same program
    assert fresh != name
    assert not lasting
    held.close()
    assert identity.default_agent_id(namespace) == (name, True)
