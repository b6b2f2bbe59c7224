"""The rules of pools, as a peer sees them that does not use our code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from brokers import Broker, Mosquitto
from databases import shared_postgres
from mqtt_agent import Agent, PostgresStore, TaskContext, errors
from mqtt_agent.agents.store import lease
from support import becomes, soon, until

from ..agents.conftest import MakeAgent
from .foreign import Foreign, ForeignRequester

RUN_ON = [Mosquitto]
STATUS, CARD = "agents/writer/status", "agents/writer/card"

MakeMember = Callable[[], Awaitable[Agent]]


class Work:
    """The handler of all members."""

    def __init__(self) -> None:
        self.seen: list[TaskContext] = []
        self.go = asyncio.Event()

    async def handle(self, task: TaskContext) -> Any:
        self.seen.append(task)
        if task.prompt == "wait":
            await self.go.wait()
        if task.prompt == "ask":
            return await task.ask("Which year?", {"type": "integer"})
        return "done"


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def make_member(make_agent: MakeAgent, work: Work) -> MakeMember:
    url = shared_postgres().new_database()

    async def make() -> Agent:
        member = make_agent("writer", store=PostgresStore(url, lease=3), pool=True)
        member.on_task(work.handle)
        await soon(member.start(), 20)
        return member

    return make


@pytest.fixture
async def scout(broker: Broker, namespace: str) -> AsyncIterator[ForeignRequester]:
    """A peer of an older version, which speaks only plain topics and knows nothing of pools."""
    peer = ForeignRequester(broker.url, namespace, "scout")
    await soon(peer.start("agents/#", "tasks/+/result", "tasks/+/events"))
    yield peer
    await soon(peer.stop())


@pytest.mark.rule("POOL-1", "POOL-2")
async def test_a_pool_is_one_agent_whose_members_have_client_ids_of_their_own(
    make_member: MakeMember, scout: Foreign
) -> None:
    first = await make_member()
    status, card = await scout.next_on(STATUS), await scout.next_on(CARD)
    assert (status["pool"], status["epoch"], card["pool"]) == (True, 2, True)
    assert status["started"] == card["started"]
    second = await make_member()
    later = await scout.next_on(STATUS, 2)
    assert later["started"] == status["started"]
    assert later["epoch"] > status["epoch"]
    name, _, member = first.connection.client_id.partition(":")
    assert name == "writer"
    assert len(member.partition("@")[0]) == 12
    assert first.connection.client_id != second.connection.client_id


@pytest.mark.rule("POOL-3", "POOL-7")
async def test_members_share_the_tasks_of_a_peer_that_knows_nothing_of_pools(
    make_member: MakeMember, scout: ForeignRequester, work: Work
) -> None:
    for _ in range(2):
        await make_member()
    for number in range(8):
        await scout.give(f"t-{number}")
    for number in range(8):
        assert (await scout.result(f"t-{number}"))["status"] == "completed"
    assert len(work.seen) == 8


@pytest.mark.rule("POOL-4")
async def test_a_live_member_answers_the_will_of_a_dead_member(make_member: MakeMember, scout: Foreign) -> None:
    await make_member()
    before = await scout.next_on(STATUS)
    will = {**before, "status": "offline"}
    del will["epoch"]
    await scout.say(STATUS, will, retain=True)
    await until(lambda: [each["status"] for each in scout.on(STATUS)][-2:] == ["offline", "online"])
    offline, online = scout.raw(STATUS)[-2:]
    assert online.at - offline.at < 2
    assert online.json["epoch"] > before["epoch"]


@pytest.mark.rule("POOL-12")
async def test_a_status_names_its_member_and_an_offline_status_makes_the_member_a_suspect(
    make_member: MakeMember, scout: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_SURE", 0)  # a member may find others dead from its first look on
    first = await make_member()
    status = await scout.next_on(STATUS)
    assert status["member"] == first.connection.client_id.partition(":")[2].partition("@")[0]
    store = first._pool.store  # pyright: ignore
    # Who has less than two hours left has missed a renewal. The member itself has four hours from its next renewal on.
    store._lease._values |= {"missed": 2 * 3600, "lease": 4 * 3600}  # pyright: ignore
    join = (
        "INSERT INTO {schema}.members (agent, member, lease_until)"
        " VALUES (%s, %s, clock_timestamp() + interval '1 hour') RETURNING member"
    )
    for member in ("suspect", "other"):
        await store.rows(join, (f"{first.namespace}/writer", member))
    await scout.say(STATUS, {**status, "status": "offline", "member": "\0'"}, retain=True)  # a stranger writes anything
    await scout.say(STATUS, {**status, "status": "offline", "member": "suspect"}, retain=True)

    async def members() -> list[str]:
        return sorted(each.member for each in await store.members())

    async def without_suspect() -> bool:
        return await members() == sorted([status["member"], "other"])

    await becomes(without_suspect)


@pytest.mark.rule("POOL-12")
async def test_a_live_member_that_is_named_answers_itself_and_keeps_its_lease(
    make_member: MakeMember, scout: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_SURE", 0)
    monkeypatch.setattr(lease, "_CONTRADICTED_WITHIN", 0.7)
    members = [await make_member(), await make_member()]
    stores = [each._pool.store for each in members]  # pyright: ignore
    # Each suspect has missed a renewal. The other member may end leases, because its own is long enough.
    stores[1]._lease._values |= {"missed": 2 * 3600, "lease": 4 * 3600}  # pyright: ignore
    long = "SELECT true FROM {schema}.members WHERE lease_until > clock_timestamp() + interval '3 hours'"

    async def is_long() -> bool:
        return bool(await stores[1].rows(long, ()))

    await becomes(is_long)
    named = stores[0].member
    status = await scout.next_on(STATUS)

    def answers() -> list[str]:
        return [each["member"] for each in scout.on(STATUS) if each["status"] == "online"]

    before = answers().count(named)
    await scout.say(STATUS, {**status, "status": "offline", "member": named}, retain=True)
    # The other member may answer first. Its answer does not stand for the member that was named.
    await scout.say(STATUS, {**status, "member": stores[1].member, "epoch": 1000}, retain=True)
    await until(lambda: answers().count(named) > before)
    await until(lambda: not stores[1]._lease._suspects)  # pyright: ignore
    assert {each.member for each in await stores[1].members()} == {store.member for store in stores}


@pytest.mark.rule("POOL-5")
async def test_the_offline_status_of_a_pool_counts_after_two_seconds(make_agent: MakeAgent, scout: Foreign) -> None:
    planner = make_agent("planner")
    await soon(planner.start())
    changes: list[str] = []

    async def watch() -> None:
        async for change in planner.watch_peers():
            changes.append(change.kind)

    watching = asyncio.ensure_future(watch())
    online = {"name": "pool", "status": "online", "started": "2026-04-21T10:00:00.000Z", "epoch": 1, "pool": True}
    offline = {key: value for key, value in {**online, "status": "offline"}.items() if key != "epoch"}
    await scout.say("agents/pool/status", online, retain=True)
    await until(lambda: "online" in changes)
    await scout.say("agents/pool/status", offline, retain=True)
    await scout.say("agents/pool/status", {**online, "epoch": 2}, retain=True)
    await scout.say("agents/pool/status", offline, retain=True)
    began = asyncio.get_running_loop().time()
    await until(lambda: "offline" in changes)
    assert asyncio.get_running_loop().time() - began > 1.5
    assert changes.count("offline") == 1
    watching.cancel()


@pytest.mark.rule("POOL-6")
async def test_only_the_last_member_says_offline(make_member: MakeMember, scout: Foreign) -> None:
    first, second = await make_member(), await make_member()
    await soon(first.stop(), 20)
    assert {each["status"] for each in scout.on(STATUS)} == {"online"}
    await soon(second.stop(), 20)
    await until(lambda: scout.on(STATUS)[-1]["status"] == "offline")
    assert "epoch" not in scout.on(STATUS)[-1]


@pytest.mark.rule("POOL-8", "POOL-9")
async def test_a_control_message_reaches_the_member_that_works_on_the_task(
    make_member: MakeMember, scout: ForeignRequester, work: Work
) -> None:
    for _ in range(2):
        await make_member()
    for number in range(2):
        events = partial(scout.on, f"tasks/a-{number}/events")
        await scout.give(f"a-{number}", prompt="ask")
        await until(partial(_has, events, lambda each: each.get("status") == "input-required"))
        for refused in (1, 2):  # the members get the control messages in turn
            await scout.word(f"a-{number}", "input", input="soon")
            await until(partial(_has, events, lambda each: "fault" in (each.get("data") or {}), refused))
        await scout.word(f"a-{number}", "input", input=2024)
        assert (await scout.result(f"a-{number}"))["result"] == 2024
    for number in range(2):
        events = partial(scout.on, f"tasks/w-{number}/events")
        await scout.give(f"w-{number}", prompt="wait")
        await until(partial(_has, events, lambda each: each.get("status") == "working"))
        await scout.word(f"w-{number}", "get")
        await until(partial(_has, events, lambda each: each.get("seq", 0) == 0))
        await scout.word(f"w-{number}", "cancel")
        assert (await scout.result(f"w-{number}"))["status"] == "canceled"
    notes = [each.json for each in scout.heard if each.topic.startswith("agents/writer/members/") and each.payload]
    assert {note["action"] for note in notes if "action" in note} >= {"task", "refused"}


def _has(events: Callable[[], list[dict[str, Any]]], fits: Callable[[dict[str, Any]], bool], count: int = 1) -> bool:
    return sum(map(fits, events())) >= count


@pytest.mark.rule("POOL-10")
async def test_a_pool_and_a_single_process_exclude_each_other(
    make_member: MakeMember, make_agent: MakeAgent, scout: Foreign
) -> None:
    single = make_agent("writer")
    await soon(single.start())
    with pytest.raises(errors.AgentIdTaken):
        await make_member()
    await soon(single.stop(), 20)
    await make_member()
    with pytest.raises(errors.AgentIdTaken):
        await soon(single.start())
    await until(lambda: scout.on(STATUS)[-1].get("pool") is True)


@pytest.mark.rule("POOL-11")
@pytest.mark.parametrize("pool", [True, False])
async def test_a_live_agent_answers_a_probe(
    make_member: MakeMember, make_agent: MakeAgent, scout: Foreign, pool: bool
) -> None:
    if pool:
        await make_member()
    else:
        await soon(make_agent("writer").start())
    before = await scout.next_on(STATUS)
    probe = {**before, "probe": True}
    probe.pop("pool", None)
    await scout.say(STATUS, probe)
    await until(lambda: scout.on(STATUS)[-1].get("probe") is None and len(scout.on(STATUS)) > 2)
    answer = scout.on(STATUS)[-1]
    assert (answer["status"], answer["started"], answer.get("pool")) == ("online", before["started"], pool or None)


@pytest.mark.rule("POOL-11")
async def test_a_probe_makes_nobody_online(make_agent: MakeAgent, scout: Foreign) -> None:
    planner = make_agent("planner")
    await soon(planner.start())
    seen: list[tuple[str, str]] = []

    async def watch() -> None:
        async for change in planner.watch_peers():
            seen.append((change.kind, change.name))

    watching = asyncio.create_task(watch())
    offline = {"name": "writer", "status": "offline", "timestamp": "2026-04-21T10:00:00.000Z"}
    await scout.say("agents/first/status", {**offline, "name": "first", "status": "online"}, retain=True)
    await until(lambda: ("online", "first") in seen)
    await scout.say(CARD, {"name": "writer", "status": "offline"}, retain=True)
    await scout.say(STATUS, offline, retain=True)
    await scout.say(STATUS, {**offline, "status": "online", "probe": True})
    await scout.say("agents/other/card", {"name": "other"}, retain=True)
    await scout.say("agents/other/status", {**offline, "name": "other", "status": "online"}, retain=True)
    await until(lambda: ("online", "other") in seen)
    watching.cancel()
    assert ("online", "writer") not in seen
