"""Whoever sends much uses up no more than a part of the room for what waits, and the others keep theirs."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import Agent, TaskContext, errors
from mqtt_agent.agents.executing import inbox, seats
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.endpoints import retained
from mqtt_agent.endpoints.room import Room
from mqtt_agent.tools import ServerRequest
from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.tools.serving import call_room, requests
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import ServerCard, Status, TaskState, ToolCard, encode
from mqtt_agent.wire.messages import footprint
from support import soon, until

from ..agents.conftest import MakeAgent, make_agent, planner
from ..tools.conftest import MakeClient, MakeServer, make_client, make_server
from .agents import AgentStage
from .conftest import Stage
from .test_tasks import bound, silent

__all__ = ["bound", "make_agent", "make_client", "make_server", "planner", "silent"]
RUN_ON = [Mosquitto]
KIB = 1024


@pytest.mark.rule("LIMIT-10")
async def test_a_caller_whose_large_calls_wait_leaves_room_for_the_calls_of_others(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_room, "_MOST", 200 * KIB)
    server, go = make_server(max_concurrency=1), asyncio.Event()

    async def wait(text: str) -> int:
        await go.wait()
        return len(text)

    server.add_tool("wait", wait)
    await soon(server.start())
    greedy, friend = await make_client("greedy"), await make_client("friend")
    first = asyncio.create_task(greedy.call("wait", {"text": "x"}))
    await until(lambda: server._executor.handlers)  # pyright: ignore[reportPrivateUsage, reportOptionalMemberAccess]
    large = [asyncio.create_task(greedy.call("wait", {"text": "x" * 10 * KIB})) for _ in range(12)]
    await until(lambda: sum(each.done() for each in large) >= 6)
    small = asyncio.create_task(friend.call("wait", {"text": "friend"}))
    await until(lambda: "friend" in str(server._executor._known))  # pyright: ignore[reportPrivateUsage, reportOptionalMemberAccess]
    go.set()
    assert await soon(small) == len("friend")
    assert await soon(first) == 1
    ended = await soon(asyncio.gather(*large, return_exceptions=True))
    refused = [each for each in ended if each != 10 * KIB]
    assert 6 <= len(refused) < 12
    assert all(isinstance(each, errors.ToolUnavailable) and not each.maybe_executed for each in refused)
    assert "too many calls of greedy wait" in str(refused[0])
    assert await soon(greedy.call("wait", {"text": "x" * 10 * KIB})) == 10 * KIB


@pytest.mark.rule("LIMIT-10")
def test_room_for_a_call_counts_the_values_that_its_payload_becomes() -> None:
    assert footprint(b"[" * 1000 + b"]" * 1000) > 60 * 1000
    assert footprint(b"x" * 1000) == 2000


async def test_a_client_whose_requests_wait_leaves_room_for_the_requests_of_others(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_MOST_WAITING", 64 * KIB)
    server, go = make_server(), asyncio.Event()

    async def answer(request: ServerRequest) -> dict[str, str]:
        await go.wait()
        return {"client": request.client}

    server.answer_requests(answer, {"resources": {}})
    await soon(server.start())
    greedy, friend = await make_client("greedy"), await make_client("friend")
    many = [asyncio.create_task(greedy.request("server", "resources/read", {"n": n})) for n in range(40)]
    await until(lambda: any(each.done() for each in many))
    mine = asyncio.create_task(friend.request("server", "resources/read", {}))
    with pytest.raises(errors.ToolUnavailable, match="too many requests of greedy wait"):
        await next(each for each in many if each.done())
    go.set()
    assert await soon(mine) == {"client": "friend"}
    ended = await soon(asyncio.gather(*many, return_exceptions=True))
    assert {"client": "greedy"} in ended


@pytest.mark.rule("ALIMIT-5")
async def test_a_requester_with_many_waiting_tasks_leaves_room_for_those_of_others(
    make_agent: MakeAgent, planner: Agent
) -> None:
    writer, go = make_agent("writer", max_concurrency=1, max_waiting_tasks=10), asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> object:
        await go.wait()
        return task.data

    friend = make_agent("friend")
    await soon(asyncio.gather(writer.start(), friend.start()))
    tasks = [await soon(planner.delegate("writer", data=number)) for number in range(12)]
    with pytest.raises(errors.TaskRejected, match="too many waiting tasks") as rejected:
        await soon(tasks[-1].result())
    assert rejected.value.code == "overloaded"
    mine = await soon(friend.delegate("writer", data="mine"))
    await until(lambda: mine.state is TaskState.SUBMITTED and writer._executor.waiting == 7)  # pyright: ignore[reportPrivateUsage]
    go.set()
    assert await soon(mine.result()) == "mine"
    assert [await soon(each.result()) for each in tasks[:7]] == list(range(7))


@pytest.mark.rule("ALIMIT-9")
async def test_a_requester_with_many_open_questions_leaves_room_for_those_of_others(
    make_agent: MakeAgent, planner: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "_MOST", 100 * KIB)
    writer = make_agent("writer")

    @writer.on_task
    async def handle(task: TaskContext) -> object:
        return await task.ask("which?")

    friend = make_agent("friend")
    await soon(asyncio.gather(writer.start(), friend.start()))
    tasks = [await soon(planner.delegate("writer", data=number)) for number in range(8)]
    settled = TaskState.REJECTED, TaskState.INPUT_REQUIRED
    await until(lambda: all(each.state in settled for each in tasks))
    refused = [each for each in tasks if each.state is TaskState.REJECTED]
    with pytest.raises(errors.TaskRejected, match="too many tasks of planner wait for an answer") as rejected:
        await soon(refused[0].result())
    assert rejected.value.code == "overloaded"
    mine = await soon(friend.delegate("writer"))
    asking = [each for each in tasks if each not in refused] + [mine]
    await until(lambda: all(each.state is TaskState.INPUT_REQUIRED for each in asking))
    for each in asking:
        await soon(each.send("this"))
    assert [await soon(each.result()) for each in asking] == ["this"] * len(asking)
    again = await soon(planner.delegate("writer"))
    await until(lambda: again.state is TaskState.INPUT_REQUIRED)
    await soon(again.send("that"))
    assert await soon(again.result()) == "that"


@pytest.mark.rule("ALIMIT-10")
async def test_control_messages_that_wait_for_a_slow_store_are_bounded(
    silent: AgentStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "_MOST_CONTROLS", 200 * KIB)
    go, asked, get = asyncio.Event(), 0, silent.writer.store.get

    async def get_slowly(key: TaskKey) -> TaskRecord | None:
        nonlocal asked
        asked += 1
        await go.wait()
        return await get(key)

    await silent.start()
    monkeypatch.setattr(silent.writer.store, "get", get_slowly)
    control = silent.topics.control("writer")
    answer = {"task_id": "t-1", "from": "peer", "action": "input", "input": "x" * 10 * KIB}
    await silent.attack_often([(control, answer, b"")] * 40)
    await silent.until_told("too many of them wait already")
    assert 0 < asked < 20
    go.set()
    await silent.request()


@pytest.mark.rule("ALIMIT-10")
async def test_control_messages_with_a_signature_take_the_room_of_proven_requesters(
    silent: AgentStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, bool] = {}

    class Watched(Room):
        def take(self, sender: str, size: int, *, proven: bool) -> bool:
            seen[sender] = proven
            return super().take(sender, size, proven=proven)

    await silent.start()
    monkeypatch.setattr(silent.writer._inbox, "_room", Watched(1_000_000))  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(InboundMessage, "proves", lambda message, name: name == "peer")  # type: ignore[misc]
    control = silent.topics.control("writer")
    for sender in ("peer", "stranger"):
        await silent.attack(control, {"task_id": "t-1", "from": sender, "action": "cancel"})
    await until(lambda: "stranger" in seen)
    assert (seen["peer"], seen["stranger"]) == (True, False)
    await silent.request()


@pytest.mark.rule("LIMIT-5")
async def test_cards_that_take_too_much_memory_together_are_ignored(
    silent_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retained, "_MOST_BYTES", 100 * KIB)
    stage = silent_stage
    await stage.start()
    changes = stage.client.watch_tools()
    topics = stage.topics

    async def publish(name: str, size: int) -> None:
        card = {"tool": name, "server": "big", "description": "x" * size}
        await stage.attack(topics.tool_card(name), card, retain=True)

    await publish("big-1", 20 * KIB)
    await publish("big-2", 40 * KIB)
    await until(lambda: any("cards take" in line for line in stage.faults()))
    names = {card.tool for card in await soon(stage.client.list_tools())}
    assert "big-1" in names
    assert "big-2" not in names
    await publish("big-1", 5 * KIB)
    await publish("big-2", 10 * KIB)
    names = {card.tool for card in await soon(stage.client.list_tools())}
    assert {"big-1", "big-2"} <= names
    assert changes is not None  # all cards are followed while somebody watches them


@pytest.mark.rule("LIMIT-5", "ALIMIT-3")
@pytest.mark.parametrize("more", [200, 2000])
async def test_a_server_or_an_agent_that_goes_offline_is_seen_to_be_offline_although_the_memory_for_cards_is_full(
    monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    nothing: Any = SimpleNamespace(epoch=1, question=("", ""))
    kept = retained.Retained(nothing, nothing, "namespace", 10, FaultLog(logging.getLogger("cards")))

    def read(server: str, status: Status, why: str | None = None) -> ServerCard | None:
        card = ServerCard(server=server, status=status, unavailable=why)
        return kept.read(InboundMessage(f"servers/{server}", encode(card), retain=True), ServerCard, server)

    assert read("known", "online") is not None
    monkeypatch.setattr(retained, "_MOST_BYTES", 1)
    assert read("new", "online") is None
    assert (read("known", "offline", "x" * more) is not None) is (more == 200)


def test_servers_that_offer_the_same_tool_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    catalog = Catalog()
    for number in range(46):
        catalog.put_server(ServerCard(server=f"s{number}", status="online", tools=["t"]))
    assert len(caplog.records) == 1000


def test_the_card_of_one_tool_makes_no_work_for_the_other_tools_of_its_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalog = Catalog(proves=True)
    names = [f"t{number}" for number in range(500)]
    for name in names:
        catalog.put_tool(ToolCard(tool=name, server="s"))
    for number in range(5):
        catalog.put_server(ServerCard(server=f"s:{number}", status="online", tools=names))
    asked: list[str] = []
    may_answer = catalog.may_answer

    def count(tool: str, server: str) -> bool:
        asked.append(tool)
        return may_answer(tool, server)

    monkeypatch.setattr(catalog, "may_answer", count)
    catalog.put_tool(ToolCard(tool="t7", server="other"))
    assert set(asked) == {"t7"}
    assert catalog.servers_of("t7") == tuple(f"s:{number}" for number in range(5))
