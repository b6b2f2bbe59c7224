"""A remote A2A agent as an agent over MQTT: a requester over MQTT, the bridge, HTTP, and what is behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from a2a_mqtt_agent import Identity, RemoteAgent
from a2a_mqtt_agent.joining import _headers_for
from brokers import Broker
from mqtt_agent import Agent, MemoryStore, Part, SqliteStore, TaskEvent, TaskMessage
from mqtt_agent.errors import TaskCanceled, TaskFailed, TaskRejected
from support import becomes, soon, until

from .conftest import MakeGateway, Served

Join = Callable[..., Awaitable[RemoteAgent]]
PICTURE = Part.of_bytes(b"\x89PNG\r\n\x1a\n", media_type="image/png", filename="map.png")


@pytest.fixture
async def far(worker: Agent, make_gateway: MakeGateway) -> Served:
    """The A2A side: an agent behind a gateway, at a namespace that the requester does not see."""
    return await make_gateway()


@pytest.fixture
async def join(embedded: Broker, namespace: str, far: Served) -> AsyncIterator[Join]:
    """Starts bridges in the requester's namespace."""
    made: list[RemoteAgent] = []

    async def start(url: str = "", **options: Any) -> RemoteAgent:
        options = {"broker": embedded.url, "namespace": f"{namespace}-near", "store": MemoryStore(), **options}
        options |= {"will_delay": 1, "drain_timeout": 0}
        remote = await RemoteAgent.at(url or f"{far.url}/agents/worker", "helper", **options)
        made.append(remote)
        await soon(remote.start(), 20)
        return remote

    yield start
    for remote in made:
        await soon(remote.stop(), 20)


@pytest.fixture
async def planner(embedded: Broker, namespace: str) -> AsyncIterator[Agent]:
    """The requester."""
    name = f"{namespace}-near"
    async with Agent("planner", broker=embedded.url, namespace=name, store=MemoryStore(), will_delay=1) as agent:
        yield agent


async def answer(handle: Any, value: Any) -> str:
    """Answer the next question of a task, and return the question."""
    async for _ in handle.events():
        question = handle.question  # it may have come together with the event before it
        if question is not None:
            await handle.send(value)
            return question.content
    raise AssertionError("the task asks nothing")


async def test_results_parts_artifacts_and_errors_come_through_the_chain(join: Join, planner: Agent) -> None:
    remote = await join()
    card = await planner.peer("helper")
    assert card is not None
    assert (card.description, [each.id for each in card.skills or ()]) == ("Works.", ["work"])
    assert await soon(planner.request("helper", "hello"), 20) == "hello by alice"
    got = await soon(planner.request("helper", "data", data={"n": 42}, reference_task_ids=["t-0"]), 20)
    assert got == {"got": {"n": 42}, "sender": "alice", "references": ["t-0"]}
    said = TaskMessage(parts=[Part(text="files"), PICTURE, Part(url="https://x.example/a", media_type="text/csv")])
    handle = await planner.delegate("helper", messages=[said])
    await soon(handle.result(), 20)
    assert handle.response is not None
    copy, page = handle.response.artifacts or []
    assert copy["parts"][0] == PICTURE.as_json()
    assert (page["name"], page["data"]) == ("page", "first second")
    handle = await planner.delegate("helper", "message Good morning")
    assert await soon(handle.result(), 20) == "Good morning"
    with pytest.raises(TaskFailed, match="no disk") as failed:
        await soon(planner.request("helper", "fail"), 20)
    assert (failed.value.type, failed.value.code, failed.value.data) == ("DiskError", "E_DISK", {"free": 0})
    with pytest.raises(TaskRejected, match="not my job"):
        await soon(planner.request("helper", "reject"), 20)
    assert remote.card.name == "worker"


async def test_parts_of_a_result_are_streamed_through_the_chain(join: Join, planner: Agent) -> None:
    await join()
    handle = await planner.delegate("helper", "stream")
    seen = [(event.type, event.content) async for event in handle.events() if event.type in ("partial", "progress")]
    assert seen == [("progress", "thinking"), ("partial", "MQTT "), ("partial", "is "), ("partial", "good.")]
    assert await soon(handle.result(), 20) == "MQTT is good."


async def test_questions_and_demands_for_credentials_are_asked_through_the_chain(join: Join, planner: Agent) -> None:
    await join()
    handle = await planner.delegate("helper", "ask")
    assert await soon(answer(handle, 2024), 20) == "Which year?"
    assert await soon(handle.result(), 20) == {"year": 2024, "attempt": 1}
    handle = await planner.delegate("helper", "login")
    assert await soon(answer(handle, "abc"), 20) == "Log in at https://login.example"
    assert await soon(handle.result(), 20) == "token abc"


async def test_a_cancel_reaches_the_remote_agent(join: Join, planner: Agent, worker: Agent) -> None:
    await join()
    handle = await planner.delegate("helper", "wait")
    await until(lambda: worker.running_tasks == 1, 20)
    await handle.cancel("too late")
    with pytest.raises(TaskCanceled):
        await soon(handle.result(), 20)
    await until(lambda: worker.running_tasks == 0, 20)


async def test_a_task_is_found_again_after_the_bridge_was_stopped_in_the_middle(
    join: Join, planner: Agent, worker: Agent, tmp_path: Any
) -> None:
    first = await join(store=SqliteStore(tmp_path / "helper.db"))
    handle = await planner.delegate("helper", "ask")

    async def asked() -> bool:
        return handle.question is not None

    seen: list[TaskEvent] = []
    listening = asyncio.ensure_future(collect(handle, seen))
    await becomes(asked, 20)
    await soon(first.stop(), 20)
    asked_before = questions(seen)
    await join(store=SqliteStore(tmp_path / "helper.db"))
    await until(lambda: questions(seen) > asked_before, 20)  # the next process refuses an answer before its question
    listening.cancel()
    await handle.send(2024)
    assert await soon(handle.result(), 30) == {"year": 2024, "attempt": 1}
    assert worker.running_tasks == 0


async def collect(handle: Any, seen: list[TaskEvent]) -> None:
    async for event in handle.events():
        seen.append(event)


def questions(seen: list[TaskEvent]) -> int:
    return sum(event.status == "input-required" for event in seen)


async def test_a_task_waits_for_a_remote_agent_that_is_away(join: Join, planner: Agent, far: Served) -> None:
    await join()
    far.serving.cancel()
    await asyncio.gather(far.serving, return_exceptions=True)
    handle = await planner.delegate("helper", "hello")
    await until(lambda: handle.state == "working", 20)
    port = int(far.url.rpartition(":")[2])
    far.serving = asyncio.create_task(far.gateway.serve("127.0.0.1", port))
    assert await soon(handle.result(), 30) == "hello by alice"


async def test_an_agent_that_speaks_only_0_3_is_joined(join: Join, planner: Agent, make_gateway: MakeGateway) -> None:
    old = await make_gateway(Identity("bob"), legacy=True)
    remote = await join(f"{old.url}/agents/worker")
    await soon(remote.stop(), 20)
    only = [each for each in remote.card.supported_interfaces if each.protocol_version == "0.3"]
    del remote.card.supported_interfaces[:]
    remote.card.supported_interfaces.extend(only)
    options: dict[str, Any] = {"broker": str(planner.connection.url), "namespace": planner.namespace}
    async with RemoteAgent(remote.card, old.url, "elder", httpx.AsyncClient(), store=MemoryStore(), **options):
        assert await soon(planner.request("elder", "hello", wait_online=True), 20) == "hello by bob"
        handle = await planner.delegate("elder", "ask")
        await soon(answer(handle, 2024), 20)
        assert await soon(handle.result(), 20) == {"year": 2024, "attempt": 1}


async def test_an_address_without_a_card_is_an_error_that_says_so(far: Served) -> None:
    with pytest.raises(ConnectionError, match="has no readable A2A card"):
        await soon(RemoteAgent.at(f"{far.url}/agents/nobody", "x"), 20)


async def test_a_host_that_the_card_names_does_not_get_the_token_of_the_agent() -> None:
    seen = list[str | None]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        seen.append(next((line for line in head.splitlines() if line.startswith("authorization")), None))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    async with (
        await asyncio.start_server(answer, "127.0.0.1", 0) as own,
        await asyncio.start_server(answer, "127.0.0.1", 0) as other,
    ):
        there, elsewhere = (f"http://127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in (own, other))
        add = _headers_for(httpx.URL(there), {"Authorization": "Bearer secret"})
        async with httpx.AsyncClient(event_hooks={"request": [add]}) as client:
            await soon(client.get(f"{there}/a"))
            await soon(client.get(f"{elsewhere}/a"))
    assert seen == ["authorization: bearer secret", None]
