"""A pool: several processes have one agent id, and share their tasks through PostgreSQL.

Here all members run in the process of the tests. Kills are in tests/faults/test_pools.py.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Ejabberd, Embedded, Mosquitto
from databases import shared_postgres
from mqtt_agent import Agent, MemoryStore, PostgresStore, TaskContext, errors
from mqtt_agent.agents import presence
from mqtt_agent.agents.requesting import reminders, repeats
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.agents.store.members import MemberStore
from mqtt_agent.transport import BrokerSettings, InboundMessage
from mqtt_agent.wire import (
    AgentStatus,
    MemberNote,
    Status,
    Task,
    TaskFault,
    TaskResult,
    TaskState,
    Topics,
    decode,
    encode,
)
from mqtt_agent.wire.tasks import UNKNOWN_TASK
from skips import inapplicable
from support import becomes, soon, until

from .conftest import MakeAgent

RUN_ON = [Mosquitto, Embedded, Ejabberd]
LONG_ON = [Embedded, Ejabberd]

DOCS = Path(__file__).parents[2] / "docs"

MakeMember = Callable[..., Awaitable[Agent]]


@pytest.fixture
def url() -> str:
    """The URL of an empty database."""
    return shared_postgres().new_database()


@pytest.fixture
def make_member(make_agent: MakeAgent, url: str) -> MakeMember:
    """Starts members of pools, with a store of their own in one database."""

    async def make(name: str, handler: Any = None, **options: Any) -> Agent:
        member = make_agent(name, store=PostgresStore(url, lease=3), pool=True, **options)
        if handler is not None:
            member.on_task(handler)
        await soon(member.start(), 20)
        return member

    return make


class Desk:
    """A handler for the members of one pool, which notes which member works on which task."""

    def __init__(self) -> None:
        self.members: dict[str, list[str]] = {}
        self.contexts: dict[str, TaskContext] = {}
        self.open = asyncio.Event()

    def at(self, member: str) -> Callable[[TaskContext], Awaitable[Any]]:
        async def work(task: TaskContext) -> Any:
            self.members.setdefault(task.id, []).append(member)
            self.contexts[task.id] = task
            if task.data == "ask":
                return await task.ask("Which colour?", {"type": "string"})
            if task.data == "auth":
                return await task.require_auth("Who are you?", {"type": "string"})
            if task.data == "wait":
                await self.open.wait()
            return member

        return work


async def test_each_task_is_done_by_one_member(make_member: MakeMember, planner: Agent, broker: Broker) -> None:
    desk = Desk()
    for name in ("a", "b"):
        await make_member("writer", desk.at(name))
    results = await soon(asyncio.gather(*(planner.request("writer", f"{n}") for n in range(20))), 30)
    if not isinstance(broker, Ejabberd):  # there, each member gets every task, and the first one has it
        assert set(results) == {"a", "b"}
    assert [len(members) for members in desk.members.values()] == [1] * 20


async def test_a_cancel_reaches_the_member_that_works_on_the_task(make_member: MakeMember, planner: Agent) -> None:
    desk = Desk()
    for name in ("a", "b"):
        await make_member("writer", desk.at(name))
    handles = [await planner.delegate("writer", data="wait") for _ in range(4)]
    await until(lambda: len(desk.contexts) == 4)
    for handle in handles:
        await handle.cancel()
    for handle in handles:
        with pytest.raises(errors.TaskCanceled):
            await soon(handle.result())
        await until(lambda: desk.contexts[handle.task_id].canceled)  # noqa: B023


async def test_an_answer_reaches_the_member_that_asked(make_member: MakeMember, planner: Agent) -> None:
    desk = Desk()
    for name in ("a", "b"):
        await make_member("writer", desk.at(name))
    handles = [await planner.delegate("writer", data="ask") for _ in range(4)]
    for number, handle in enumerate(handles):
        await until(lambda: handle.question is not None)  # noqa: B023
        await handle.send(f"blue {number}")
    assert await soon(asyncio.gather(*(handle.result() for handle in handles))) == [f"blue {n}" for n in range(4)]
    assert [len(members) for members in desk.members.values()] == [1] * 4


async def test_an_answer_to_a_request_for_a_login_reaches_the_member_that_asked(
    make_member: MakeMember, planner: Agent
) -> None:
    desk = Desk()
    await make_member("writer", desk.at("a"))
    handle = await planner.delegate("writer", data="auth")
    await until(lambda: handle.question is not None)
    assert handle.state is TaskState.AUTH_REQUIRED
    await handle.send("ada")
    assert await soon(handle.result()) == "ada"


async def test_an_answer_that_does_not_fit_is_refused_by_every_member(make_member: MakeMember, planner: Agent) -> None:
    desk = Desk()
    for name in ("a", "b"):
        await make_member("writer", desk.at(name))
    handle = await planner.delegate("writer", data="ask")
    for _ in range(4):
        await until(lambda: handle.question is not None)
        await handle.send(7)
        await until(lambda: handle.question is not None and "fault" in handle.question.data)
    await handle.send("blue")
    assert await soon(handle.result()) == "blue"


async def test_peers_see_one_agent_that_stays_online_until_the_last_member_stops(
    make_member: MakeMember, planner: Agent
) -> None:
    first = await make_member("writer", Desk().at("a"))
    second = await make_member("writer", Desk().at("b"))
    changes: list[str] = []

    async def watch() -> None:
        async for change in planner.watch_peers():
            if change.name == "writer":
                changes.append(change.kind)

    watching = asyncio.ensure_future(watch())
    card = await soon(planner.peer("writer"))
    assert card is not None
    assert card.pool
    await soon(first.stop(), 20)
    assert await soon(planner.request("writer", "still there?")) == "b"
    await soon(second.stop(), 20)
    await until(lambda: "offline" in changes)
    assert changes.count("offline") == 1
    assert changes.count("online") <= 1
    watching.cancel()


async def test_a_member_that_stops_gives_its_tasks_to_the_others(make_member: MakeMember, planner: Agent) -> None:
    desk = Desk()
    first = await make_member("writer", desk.at("a"))
    handle = await planner.delegate("writer", data="wait")
    await until(lambda: handle.task_id in desk.contexts)
    await desk.contexts[handle.task_id].save("half")
    await make_member("writer", desk.at("b"))
    await soon(first.stop(), 20)
    await until(lambda: desk.members[handle.task_id] == ["a", "b"])
    context = desk.contexts[handle.task_id]
    assert (context.attempt, context.saved) == (2, "half")
    desk.open.set()
    assert await soon(handle.result()) == "b"


async def test_tasks_that_wait_at_a_busy_member_begin_at_another(make_member: MakeMember, planner: Agent) -> None:
    desk = Desk()
    await make_member("writer", desk.at("a"), max_concurrency=1)
    handles = [await planner.delegate("writer", data="wait") for _ in range(3)]
    await until(lambda: len(desk.contexts) == 1)
    await make_member("writer", desk.at("b"), max_concurrency=2)
    await until(lambda: len(desk.contexts) == 3)
    assert sorted(each for members in desk.members.values() for each in members) == ["a", "b", "b"]
    desk.open.set()
    await soon(asyncio.gather(*(handle.result() for handle in handles)))


async def test_a_single_process_refuses_to_start_beside_a_pool(
    make_member: MakeMember, make_agent: MakeAgent, planner: Agent
) -> None:
    await make_member("writer", Desk().at("a"))
    single = make_agent("writer")
    with pytest.raises(errors.AgentIdTaken, match="a pool of processes runs as agent 'writer' since"):
        await soon(single.start())
    assert await soon(planner.request("writer", "still there?")) == "a"


async def test_a_member_refuses_to_start_beside_a_single_process(
    make_member: MakeMember, writer: Agent, planner: Agent
) -> None:
    writer.on_task(Desk().at("single"))
    with pytest.raises(errors.AgentIdTaken, match="a single process runs as agent 'writer' since"):
        await make_member("writer")
    assert await soon(planner.request("writer", "still there?")) == "single"


@pytest.fixture
async def ghost(broker: Broker, namespace: str) -> AsyncIterator[Callable[..., Awaitable[list[AgentStatus]]]]:
    """Says online in place of a process, with the given answers to probes. Returns the probes that it gets."""
    connection = BrokerSettings(broker.url).connection("ghost", session_expiry=0)
    await soon(connection.start())

    async def appear(pool: bool | None, *answers: Status) -> list[AgentStatus]:
        topic, probes = Topics(namespace).agent_status("writer"), list[AgentStatus]()

        def say(status: Status) -> None:
            said = AgentStatus(name="writer", status=status, started="2026-01-01T00:00:00Z", epoch=3, pool=pool)
            connection.publish_soon(topic, encode(said), retain=True)

        def on_status(message: InboundMessage) -> None:
            status = decode(AgentStatus, message.payload) if message.payload else None
            if status is not None and status.probe:
                probes.append(status)
                for answer in answers:
                    say(answer)

        await connection.subscribe(topic, on_status)
        await connection.publish(
            topic, encode(AgentStatus(name="writer", status="online", epoch=3, pool=pool)), retain=True
        )
        return probes

    yield appear
    await soon(connection.stop())


@pytest.mark.parametrize("pool", [True, False])
async def test_a_status_of_nobody_does_not_block_the_other_kind(
    make_member: MakeMember,
    make_agent: MakeAgent,
    planner: Agent,
    ghost: Callable[..., Awaitable[list[AgentStatus]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    pool: bool,
) -> None:
    monkeypatch.setattr(presence, "_ASK_EVERY", 0.1)
    probes = await ghost(None if pool else True)
    if pool:
        await make_member("writer", Desk().at("new"))
    else:
        single = make_agent("writer")
        single.on_task(Desk().at("new"))
        await soon(single.start(), 20)
    assert "no process answers: the agent starts" in caplog.text
    assert await soon(planner.request("writer", "who is there?")) == "new"
    assert [(probe.epoch, probe.pool) for probe in probes] == [(3, None)] * 5


@pytest.mark.parametrize("answers", [("online",), ("offline", "online")], ids=["at once", "after the will of another"])
async def test_a_status_that_somebody_stands_for_blocks_the_other_kind(
    make_agent: MakeAgent, ghost: Callable[..., Awaitable[list[AgentStatus]]], answers: tuple[Status, ...]
) -> None:
    await ghost(True, *answers)
    with pytest.raises(errors.AgentIdTaken):
        await soon(make_agent("writer").start())


def test_a_pool_needs_postgresql_and_connections_of_its_own(url: str) -> None:
    with pytest.raises(ValueError, match="pool=True needs a store in PostgreSQL"):
        Agent("writer", store=MemoryStore(), pool=True)
    connection = BrokerSettings().connection("writer", session_expiry=0)
    with pytest.raises(ValueError, match="no connection="):
        Agent("writer", store=url, pool=True, connection=connection)
    with pytest.raises(ValueError, match="the client id of a member begins with 'writer:', not 'planner:1'"):
        Agent("writer", store=url, pool=True, client_id="planner:1")


@pytest.mark.parametrize("bound", ["prefer", "off"])
async def test_each_member_of_a_requesting_pool_gets_the_results_that_it_waits_for(
    make_member: MakeMember, writer: Agent, bound: str
) -> None:
    writer.on_task(Desk().at("w"))
    first, second = [await make_member("boss", bound=bound) for _ in range(2)]
    handles = [await each.delegate("writer", f"{n}") for n in range(6) for each in (first, second)]
    assert await soon(asyncio.gather(*(handle.result() for handle in handles))) == ["w"] * 12
    assert await soon(asyncio.gather(*(each.request("writer", "x") for each in (first, second) * 3))) == ["w"] * 6


async def test_a_task_is_resumed_in_another_member(make_member: MakeMember, writer: Agent) -> None:
    desk = Desk()
    writer.on_task(desk.at("w"))
    first, second = [await make_member("boss") for _ in range(2)]
    given = await first.delegate("writer", data="wait")
    resumed = await second.resume(given.task_id)
    desk.open.set()
    assert await soon(given.result()) == await soon(resumed.result()) == "w"


async def test_one_member_asks_again_for_each_delegated_task_and_another_when_it_has_left(
    make_member: MakeMember, planner: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reminders, "_FIRST", 300.0)  # nothing is asked for again because of the time
    asked, topics = Counter[str](), Topics(planner.namespace)

    def count(message: InboundMessage) -> None:
        asked.update([decode(Task, message.payload).task_id])

    await planner.connection.subscribe(topics.inbox("writer"), count)  # the peer itself was never seen
    first, second = [await make_member("boss", bound="off") for _ in range(2)]
    ids = [f"t{n}" for n in range(5)]
    for each in ids:
        await first.delegate("writer", "x", task_id=each, wait_online=True)
    third = await make_member("boss", bound="off")
    for name, member in (("second", second), ("third", third)):
        await member.delegate("writer", "x", task_id=name, wait_online=True)
    await until(lambda: asked["second"] and asked["third"])
    assert [asked[each] for each in ids] == [1] * 5
    await soon(first.stop(), 20)
    await until(lambda: all(asked[each] > 1 for each in ids))
    assert (asked["second"], asked["third"]) == (1, 1)


async def test_a_question_to_a_requesting_pool_is_answered_by_the_member_that_follows_the_task(
    make_member: MakeMember, writer: Agent
) -> None:
    writer.on_task(Desk().at("w"))
    first, _ = [await make_member("boss") for _ in range(2)]
    for _ in range(3):
        handle = await first.delegate("writer", data="ask")
        await until(lambda: handle.question is not None)  # noqa: B023
        await handle.send("red")
        assert await soon(handle.result()) == "red"


async def test_a_live_member_answers_a_status_that_says_offline(make_member: MakeMember, planner: Agent) -> None:
    member = await make_member("writer", Desk().at("a"))
    topic, seen = f"{member.namespace}/agents/writer/status", list[AgentStatus]()

    def on_status(message: InboundMessage) -> None:
        status = decode(AgentStatus, message.payload)
        if [each.status for each in seen[-1:]] != [status.status]:  # two subscriptions match
            seen.append(status)

    await planner.connection.subscribe(topic, on_status, snapshot=True)
    await until(lambda: seen)
    will = seen[0].model_copy(update={"status": "offline", "epoch": None})
    await planner.connection.publish(topic, will.model_dump_json(exclude_none=True).encode(), retain=True)
    await until(lambda: [each.status for each in seen] == ["online", "offline", "online"])
    assert (seen[2].epoch or 0) > (seen[0].epoch or 0)
    card = await planner.peer("writer")
    assert card is not None
    assert card.status == "online"


async def test_the_offline_status_of_a_pool_is_believed_when_no_member_answers(
    make_member: MakeMember, planner: Agent
) -> None:
    member = await make_member("writer", Desk().at("a"))
    await soon(planner.peer("writer"))
    member._presence.announced = False  # pyright: ignore[reportPrivateUsage]
    await planner.connection.publish(
        f"{member.namespace}/agents/writer/status",
        member._presence.will(),
        retain=True,  # pyright: ignore[reportPrivateUsage]
    )

    async def offline() -> bool:
        card = await planner.peer("writer")
        return card is not None and card.status == "offline"

    assert not await offline()
    await becomes(offline)


async def test_the_result_of_a_canceled_task_is_the_first_that_was_stored(
    make_member: MakeMember, planner: Agent
) -> None:
    desk = Desk()
    for name in ("a", "b"):
        await make_member("writer", desk.at(name))
    for _ in range(5):
        handle = await planner.delegate("writer", data="wait")
        await until(lambda: handle.task_id in desk.contexts)  # noqa: B023
        desk.open.set()
        await asyncio.gather(handle.cancel(), handle.cancel())
        try:
            assert await soon(handle.result()) in ("a", "b")
            assert handle.state is TaskState.COMPLETED
        except errors.TaskCanceled:
            assert handle.state is TaskState.CANCELED
        desk.open.clear()


async def test_ordered_tasks_of_one_context_run_one_after_the_other_in_the_whole_pool(
    make_member: MakeMember, planner: Agent
) -> None:
    running: dict[str, int] = {}
    overlaps: list[str] = []
    order: dict[str, list[int]] = {"x": [], "y": []}
    free: list[str] = []

    async def work(task: TaskContext) -> str:
        context = task.context_id
        if context is None:
            free.append(task.id)
            return "free"
        running[context] = running.get(context, 0) + 1
        if running[context] > 1:
            overlaps.append(task.id)
        order[context].append(task.data)
        await asyncio.sleep(0.02)
        running[context] -= 1
        return context

    for _ in range(2):
        await make_member("writer", work, contexts="ordered")
    given = [await planner.delegate("writer", data=n, context_id="xy"[n % 2]) for n in range(12)]
    given += [await planner.delegate("writer", data=n) for n in range(4)]
    results = await soon(asyncio.gather(*(handle.result() for handle in given)), 40)
    assert results == ["x", "y"] * 6 + ["free"] * 4
    assert overlaps == []
    assert sorted(order["x"]) == [0, 2, 4, 6, 8, 10]


async def test_a_task_waits_for_an_earlier_task_of_its_context_and_others_do_not(
    make_member: MakeMember, planner: Agent
) -> None:
    desk = Desk()
    for name in ("a", "b"):
        await make_member("writer", desk.at(name), contexts="ordered")
    first = await planner.delegate("writer", data="wait", context_id="x")
    await until(lambda: first.task_id in desk.contexts)
    second = await planner.delegate("writer", context_id="x")
    assert await soon(planner.request("writer", context_id="y")) in ("a", "b")
    assert await soon(planner.request("writer")) in ("a", "b")
    assert second.task_id not in desk.contexts
    desk.open.set()
    await soon(first.result())
    await soon(second.result())


async def test_one_member_answers_where_each_member_gets_each_message(
    make_member: MakeMember, planner: Agent, broker: Broker
) -> None:
    """The member that has a task got the same message as the others: they neither wake it nor answer in its place."""
    if not isinstance(broker, Ejabberd):
        inapplicable("this broker has shared subscriptions")
    desk = Desk()
    members = [await make_member("writer", desk.at(name)) for name in ("a", "b", "c")]
    topics, notes, results = Topics(planner.namespace), list[bytes](), Counter[str]()
    everybody = topics.member_control("writer", "all")
    for topic in (everybody, *(topics.member_control("writer", member._pool.id) for member in members)):  # pyright: ignore
        await planner.connection.subscribe(topic, lambda each: notes.append(each.payload))
    own = topics.bound.results("planner")
    await planner.connection.subscribe(own, lambda each: results.update([decode(TaskResult, each.payload).task_id]))
    waiting = [await planner.delegate("writer", data="wait") for _ in range(5)]
    await soon(asyncio.gather(*(planner.request("writer", "quick") for _ in range(15))), 30)
    await until(lambda: all(handle.state is TaskState.WORKING for handle in waiting))
    for member in members:
        await _has_taken_all(member)
        await member.connection.publish(everybody, b"the end")
    await until(lambda: notes.count(b"the end") == 3)
    assert not [each for each in notes if b'"action":"task"' in each]
    assert sorted(results.values()) == [1] * 15
    desk.open.set()
    await soon(asyncio.gather(*(handle.result() for handle in waiting)))
    assert [len(members) for members in desk.members.values()] == [1] * 20


async def _has_taken_all(member: Agent) -> None:
    """Wait until a member has stored every task that the broker had queued for it."""
    topic, arrived = f"{member.namespace}/{uuid.uuid4().hex}", asyncio.Event()
    await member.connection.subscribe(topic, lambda _: arrived.set())
    await member.connection.publish(topic, b"")
    await soon(arrived.wait())
    await member._inbox.drain()  # pyright: ignore[reportPrivateUsage]
    await member._executor.background.wait(1)  # pyright: ignore[reportPrivateUsage]


async def test_tasks_that_wait_for_their_turn_count_as_waiting(make_member: MakeMember, planner: Agent) -> None:
    desk = Desk()
    member = await make_member("writer", desk.at("a"), contexts="ordered", max_waiting_tasks=5)
    given = [await planner.delegate("writer", data="wait", context_id="x")]
    await until(lambda: len(desk.contexts) == 1)
    for number in range(1, 4):
        given.append(await planner.delegate("writer", data="wait", context_id="x"))
        await until(lambda: member._executor.backlog == number)  # pyright: ignore  # noqa: B023
    with pytest.raises(errors.TaskRejected, match="too many waiting tasks"):  # one requester gets about half of them
        await soon(planner.request("writer", data="wait", context_id="x"))
    desk.open.set()
    assert await soon(asyncio.gather(*(handle.result() for handle in given)), 30) == ["a"] * 4


async def test_any_number_of_messages_of_strangers_makes_little_work_for_the_database(
    make_member: MakeMember, planner: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk()
    member = await make_member("writer", desk.at("a"))
    handle = await planner.delegate("writer", data="wait")
    await until(lambda: handle.task_id in desk.contexts)
    pool, statements, rows = member._pool, 0, MemberStore.rows  # pyright: ignore[reportPrivateUsage]
    assert pool is not None

    async def counting(store: MemberStore, *arguments: Any, **options: Any) -> Any:
        nonlocal statements
        statements += 1
        return await rows(store, *arguments, **options)

    monkeypatch.setattr(MemberStore, "rows", counting)
    arrived, clock = asyncio.Event(), asyncio.get_running_loop().time
    last = f"{member.namespace}/{uuid.uuid4().hex}"
    await member.connection.subscribe(last, lambda _: arrived.set())
    began_at, topics = clock(), (pool.control(pool.id), pool.control(None))
    for number in range(200):
        for action, task_id in (
            ("task", handle.task_id),
            ("task", f"nobody-{number}"),
            ("tasks", f"n-{number}"),
            ("left", f"n-{number}"),
            ("ended", f"n-{number}"),
        ):
            note = MemberNote(action=action, member=f"stranger-{number}", task_id=task_id, requester="planner")
            planner.connection.publish_soon(topics[number % 2], encode(note))
    await planner.connection.publish(last, b"")
    await soon(arrived.wait(), 60)
    await until(lambda: not pool._notes, 30)  # pyright: ignore[reportPrivateUsage]
    rounds = (clock() - began_at) / 0.1 + 2
    assert statements < 7 * rounds
    desk.open.set()
    assert await soon(handle.result()) == "a"


async def test_strangers_who_say_that_a_task_is_unknown_make_other_members_send_it_once(
    make_member: MakeMember, planner: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "_FIRST", 300.0)
    first, second = [await make_member("boss", bound="off") for _ in range(2)]
    handle = await first.delegate("writer", "x", wait_online=True)
    results = second._delegations.results  # pyright: ignore[reportPrivateUsage]
    sent, read, begun, taken = Counter[str](), Counter[str](), 0, 0

    async def send_again(record: TaskRecord) -> None:
        sent[record.task_id] += 1

    async def get(store: MemberStore, key: TaskKey) -> TaskRecord | None:
        if store is results._scope.store:  # pyright: ignore[reportPrivateUsage]
            read[key.task_id] += 1
        return await PostgresStore.get(store, key)

    monkeypatch.setattr(results._resender, "send_again", send_again)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(MemberStore, "get", get)
    take_unknown = results._take_unknown  # pyright: ignore[reportPrivateUsage]

    async def counting(*arguments: Any) -> None:
        nonlocal begun, taken
        begun += 1
        await take_unknown(*arguments)
        taken += 1

    monkeypatch.setattr(results, "_take_unknown", counting)
    fault = TaskFault(type="not_found", message="?", code=UNKNOWN_TASK, data={"task_ids": [handle.task_id, "nobody's"]})
    unknown = TaskResult(task_id="q", sender="writer", to="boss", status="rejected", error=fault)
    while taken < 20:  # a share group gives each member some of the messages
        await planner.connection.publish(Topics(planner.namespace).results("boss"), encode(unknown))
    await until(lambda: begun == taken)  # the first of them read the store
    assert sent == {handle.task_id: 1}
    assert read["nobody's"] == 1
    assert read[handle.task_id] <= 2  # once to look who has the task, and once to send it


def test_only_a_pool_orders_its_tasks() -> None:
    with pytest.raises(ValueError, match="together with pool=True"):
        Agent("writer", store=MemoryStore(), contexts="ordered")


def test_the_program_of_the_page_makes_a_pool() -> None:
    [program] = re.findall(r"^```python\n(.*?)^```", (DOCS / "pools.md").read_text(), re.MULTILINE | re.DOTALL)
    made: dict[str, Any] = {}
    exec(program, made)
    assert made["agent"].agent_id == "researcher"
    assert made["agent"].card.pool


async def test_a_member_goes_on_looking_at_the_store_after_an_unexpected_error(make_member: MakeMember) -> None:
    member = await make_member("worker", lambda task: "done")
    looks, again = 0, asyncio.Event()

    async def fails_once() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ValueError("a record that nobody can read")
        again.set()

    pool = member._pool
    assert pool is not None
    pool.looks.append(fails_once)
    pool.look_soon()
    await soon(again.wait(), 20)
