"""A pool of processes with one agent id: members, the broker's connections and the database are killed.

Each test is a line of the table in docs/pools.md. The leases are 3 s long here, and 24 s by default.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from brokers import Ejabberd, Mosquitto
from databases import Postgres, shared_postgres
from mqtt_agent import Agent, MemoryStore, PostgresStore
from mqtt_agent.agents.store.members import MemberStore
from mqtt_agent.errors import TaskFailed
from processes import AgentProcess, AgentProcesses
from proxy import Proxy
from support import becomes, require, soon, until

LEASE = 3.0
POOL = ("--pool", "--lease", str(LEASE))


@pytest.fixture
async def agents(tmp_path: Path, namespace: str) -> AsyncIterator[AgentProcesses]:
    """Starts agents with one database; all of them end with the test."""
    processes = AgentProcesses(tmp_path, namespace, shared_postgres().new_database())
    yield processes
    await processes.close()


@pytest.fixture
def own_database() -> Iterator[Postgres]:
    """A database that the test may stop."""
    require(Postgres)
    with Postgres(durable=True) as database:
        yield database


@pytest.fixture
async def planner(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[Agent]:
    """A single agent that gives tasks to the pool."""
    async with Agent("planner", broker=mosquitto.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


class Watch:
    """The changes of the pool that a peer sees."""

    def __init__(self, agent: Agent) -> None:
        self.kinds: list[str] = []
        self._feed = agent.watch_peers()
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async for change in self._feed:
            if change.name == "writer":
                self.kinds.append(change.kind)

    def end(self) -> None:
        self._task.cancel()


async def start_pool(agents: AgentProcesses, url: str, members: int, *options: str) -> list[AgentProcess]:
    starting = [agents.start("writer", url, executes=True, options=[*POOL, *options]) for _ in range(members)]
    return list(await soon(asyncio.gather(*starting), 60))


async def began(members: list[AgentProcess], task_id: str, attempt: int = 1) -> AgentProcess:
    """The member that has begun an attempt at a task."""
    fields: dict[str, Any] = {"task_id": task_id, "attempt": attempt}
    await until(lambda: any(each.told("began", **fields) for each in members), 30)
    return next(each for each in members if each.told("began", **fields))


async def test_the_tasks_of_a_killed_member_go_on_at_another_with_their_checkpoint_and_peers_see_no_change(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    members = await start_pool(agents, mosquitto.url, 2)
    await becomes(lambda: _is_online(planner))
    watch = Watch(planner)
    handles = [
        await planner.delegate("writer", data={"n": n, "save": "page 3", "hangs": 1}, task_id=f"t-{n}")
        for n in range(6)
    ]
    owners = [await began(members, handle.task_id) for handle in handles]
    dead, alive = members
    assert set(owners) == {dead, alive}
    for handle, owner in zip(handles, owners, strict=True):
        await owner.tells("saved", task_id=handle.task_id)
    await dead.kill()
    for n, handle in enumerate(handles):
        if owners[n] is dead:
            assert await soon(handle.result(), 30) == {"square": n * n, "saved": "page 3"}
            await alive.tells("began", task_id=handle.task_id, attempt=2, saved="page 3")
        else:
            await handle.cancel()
            await alive.tells("stopped", task_id=handle.task_id, attempt=1)
    watch.end()
    assert "offline" not in watch.kinds


async def _is_online(planner: Agent) -> bool:
    card = await planner.peer("writer")
    return card is not None and card.status == "online"


@pytest.mark.long
async def test_a_rolling_restart_loses_no_task_does_none_twice_and_is_not_seen(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    members = await start_pool(agents, mosquitto.url, 3)
    await becomes(lambda: _is_online(planner))
    watch = Watch(planner)

    async def give() -> list[Any]:
        results: list[asyncio.Task[Any]] = []
        for n in range(150):
            data = {"n": n, "seconds": 0.3}
            results.append(asyncio.ensure_future(planner.request("writer", data=data, task_id=f"t-{n}")))
            await asyncio.sleep(0.05)
        return await asyncio.gather(*results)

    giving = asyncio.ensure_future(give())
    later: list[AgentProcess] = []
    for each in members:
        await until(lambda: len(each.told("began")) >= 5, 30)  # noqa: B023
        await each.terminate()
        later += await start_pool(agents, mosquitto.url, 1)
    assert [each["square"] for each in await soon(giving, 90)] == [n * n for n in range(150)]
    assert agents.executions == {f"t-{n}": 1 for n in range(150)}
    assert not any(each.told("stopped") or each.told("began", attempt=2) for each in [*members, *later])
    watch.end()
    assert "offline" not in watch.kinds


@pytest.mark.long
async def test_a_task_that_kills_the_members_of_a_pool_ends_after_the_most_attempts(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    members = await start_pool(agents, mosquitto.url, 2, "--max-attempts", "2")
    await becomes(lambda: _is_online(planner))
    handle = await planner.delegate("writer", data={"n": 5, "kills": 1}, task_id="t-1")
    for attempt in (1, 2):
        await began(members, "t-1", attempt)
        members += await start_pool(agents, mosquitto.url, 1, "--max-attempts", "2")
    with pytest.raises(TaskFailed, match="begun 2 times and never ended") as failed:
        await soon(handle.result(), 60)
    assert failed.value.type == "too_many_attempts"
    assert not any(each.told("began", attempt=3) for each in members)
    assert (await soon(planner.request("writer", data={"n": 6}), 30)) == {"square": 36}


@pytest.mark.long
async def test_a_library_that_stops_all_threads_for_longer_than_the_lease_costs_an_attempt_and_no_result(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    members = await start_pool(agents, mosquitto.url, 2)
    await becomes(lambda: _is_online(planner))
    data = {"n": 5, "freezes": 1, "freeze": 4 * LEASE, "seconds": 0.1}
    handle = await planner.delegate("writer", data=data, task_id="t-1")
    frozen = await began(members, "t-1")
    other = await began(members, "t-1", 2)
    assert other is not frozen
    assert await soon(handle.result(), 40) == {"square": 25}
    await until(lambda: "its handlers are canceled" in (agents.folder / "writer.log").read_text(), 40)
    results = await soon(asyncio.gather(*(planner.request("writer", data={"n": n}) for n in range(10))), 60)
    assert [each["square"] for each in results] == [n * n for n in range(10)]
    assert agents.executions["t-1"] <= 2
    assert (await planner.resume("t-1")).response == handle.response  # what the frozen member stores comes too late


@pytest.mark.long
async def test_the_clocks_of_the_members_may_differ(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    """Leases go by the clock of the database."""
    [behind] = await start_pool(agents, mosquitto.url, 1, "--clock", "-3600")
    [ahead] = await start_pool(agents, mosquitto.url, 1, "--clock", "3600")
    await becomes(lambda: _is_online(planner))
    watch = Watch(planner)
    members = [behind, ahead]
    results = await soon(asyncio.gather(*(planner.request("writer", data={"n": n}) for n in range(20))), 60)
    assert [each["square"] for each in results] == [n * n for n in range(20)]
    handles = [
        await planner.delegate("writer", data={"n": n, "hangs": 1, "save": "page 3"}, task_id=f"t-{n}")
        for n in range(4)
    ]
    for handle in handles:
        owner = await began(members, handle.task_id)
        await owner.tells("saved", task_id=handle.task_id)
    dead = await began(members, "t-0")
    await dead.kill()
    assert await soon(handles[0].result(), 40) == {"square": 0, "saved": "page 3"}
    for each in members:
        if each is not dead:
            assert not each.told("stopped")
    watch.end()
    assert "offline" not in watch.kinds


@pytest.mark.long
async def test_a_member_that_waits_for_its_handlers_longer_than_its_lease_keeps_their_tasks(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    stopping, other = await start_pool(agents, mosquitto.url, 2, "--drain", "30")
    await becomes(lambda: _is_online(planner))
    data = {"n": 5, "seconds": 3 * LEASE, "save_late": "page 3"}
    handles = [await planner.delegate("writer", data=data, task_id=f"t-{n}") for n in range(4)]
    for handle in handles:
        await began([stopping, other], handle.task_id)
    assert stopping.told("began")
    await stopping.terminate()
    for handle in handles:
        assert await soon(handle.result(), 60) == {"square": 25}
    assert agents.executions == {f"t-{n}": 1 for n in range(4)}
    assert not any(each.told("stopped") for each in (stopping, other))


@pytest.mark.long
async def test_a_killed_member_is_found_before_its_lease_ends_because_the_broker_reports_it(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    starting = [
        agents.start("writer", mosquitto.url, executes=True, options=["--pool", "--lease", "15"]) for _ in range(2)
    ]
    members = list(await soon(asyncio.gather(*starting), 60))
    await becomes(lambda: _is_online(planner))
    async with PostgresStore(agents.store_of("writer")) as store:
        view = MemberStore(store, f"{agents.namespace}/writer", "viewer", lambda beat: None)
        await _each_has_renewed_twice(view)
        handle = await planner.delegate("writer", data={"n": 5, "hangs": 1}, task_id="t-1")
        dead = await began(members, "t-1")
        await dead.kill()
        ends_in = {each.member: each.lease for each in await view.members()}
        killed_at = asyncio.get_running_loop().time()
        assert len(ends_in) == 2
        await becomes(lambda: _one_is_left(view), 30)
        [alive] = await view.members()
    took = asyncio.get_running_loop().time() - killed_at
    [(_, dead_ends_in)] = [each for each in ends_in.items() if each[0] != alive.member]
    assert took < dead_ends_in
    assert await soon(handle.result(), 30) == {"square": 25}


async def _each_has_renewed_twice(view: MemberStore) -> None:
    """Wait until each of two members has renewed its lease twice, and so may find others dead."""
    ends: dict[str, set[datetime]] = {}

    async def renewed() -> bool:
        for member, end in await view.rows("SELECT member, lease_until FROM {schema}.members", {}):
            ends.setdefault(member, set()).add(end)
        return len(ends) == 2 and all(len(each) > 2 for each in ends.values())

    await becomes(renewed, 40)


async def _one_is_left(view: MemberStore) -> bool:
    return len(await view.members()) == 1


@pytest.mark.long
async def test_a_member_that_loses_only_the_broker_works_on_and_sends_its_result_later(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    network = Proxy(mosquitto.url)
    await network.mend()
    (cut,) = await start_pool(agents, network.url, 1)
    handle = await planner.delegate("writer", data={"n": 5, "seconds": 1.5}, task_id="t-1", wait_online=True)
    await began([cut], "t-1")
    (other,) = await start_pool(agents, mosquitto.url, 1)
    await network.cut()
    await until(lambda: agents.executions["t-1"] == 1, 20)
    await network.mend()
    assert await soon(handle.result(), 30) == {"square": 25}
    assert agents.executions == {"t-1": 1}
    assert not other.told("began")
    await network.cut()


@pytest.mark.long
async def test_a_member_that_loses_the_database_for_longer_than_its_lease_is_fenced_and_its_handlers_are_canceled(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path, planner: Agent
) -> None:
    database = shared_postgres().new_database()
    place, _, name = database.rpartition("/")
    network = Proxy(place)
    await network.mend()
    agents = AgentProcesses(tmp_path, namespace, f"{network.url}/{name}")
    others = AgentProcesses(tmp_path, namespace, database)
    try:
        (cut,) = await start_pool(agents, mosquitto.url, 1)
        handle = await planner.delegate("writer", data={"n": 5, "hangs": 1}, task_id="t-1", wait_online=True)
        await began([cut], "t-1")
        (other,) = await start_pool(others, mosquitto.url, 1)
        await network.cut()
        await began([other], "t-1", 2)
        assert await soon(handle.result(), 30) == {"square": 25}
        await network.mend()
        await cut.tells("stopped", task_id="t-1", attempt=1)
        await soon(planner.request("writer", data={"n": 6}))
        assert others.executions["t-1"] == 1
    finally:
        await network.cut()
        await agents.close()
        await others.close()


@pytest.mark.long
async def test_nobody_takes_over_when_the_database_is_away_for_all(
    own_database: Postgres, mosquitto: Mosquitto, namespace: str, tmp_path: Path, planner: Agent
) -> None:
    agents = AgentProcesses(tmp_path, namespace, own_database.new_database())
    try:
        members = await start_pool(agents, mosquitto.url, 3)
        await becomes(lambda: _is_online(planner))
        handles = [
            await planner.delegate("writer", data={"n": n, "seconds": 4 * LEASE}, task_id=f"t-{n}") for n in range(9)
        ]
        for handle in handles:
            await began(members, handle.task_id)
        await asyncio.to_thread(own_database.kill)
        await asyncio.sleep(2 * LEASE)  # longer than every lease
        await asyncio.to_thread(own_database.start)
        for n, handle in enumerate(handles):
            assert await soon(handle.result(), 60) == {"square": n * n}
        assert agents.executions == {f"t-{n}": 1 for n in range(9)}
        assert not any(each.told("stopped") or each.told("began", attempt=2) for each in members)
    finally:
        await agents.close()


@pytest.mark.long
async def test_a_member_that_stops_without_its_database_says_offline_only_when_nobody_contradicts_it(
    own_database: Postgres, mosquitto: Mosquitto, namespace: str, tmp_path: Path, planner: Agent
) -> None:
    agents = AgentProcesses(tmp_path, namespace, own_database.new_database())
    try:
        members = await start_pool(agents, mosquitto.url, 2)
        await becomes(lambda: _is_online(planner))
        watch = Watch(planner)
        handle = await planner.delegate("writer", data={"n": 5, "hangs": 1}, task_id="t-1")
        first = await began(members, "t-1")
        [second] = [each for each in members if each is not first]
        await asyncio.to_thread(own_database.kill)
        await first.terminate()  # it has a task, and cannot give it back
        await asyncio.sleep(3)  # longer than peers doubt a status that says offline
        assert "offline" not in watch.kinds
        await second.terminate()
        await until(lambda: watch.kinds[-1:] == ["offline"], 20)
        await asyncio.to_thread(own_database.start)
        await start_pool(agents, mosquitto.url, 1)
        assert await soon(handle.result(), 40) == {"square": 25}
        watch.end()
    finally:
        await agents.close()


@pytest.mark.long
async def test_a_task_in_the_session_of_a_dead_member_is_asked_for_again_within_10_seconds(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    dead, alive = await start_pool(agents, mosquitto.url, 2)
    await becomes(lambda: _is_online(planner))
    os.kill(dead.pid, signal.SIGSTOP)  # the broker still gives it every second message
    loop = asyncio.get_running_loop()
    handles = [await planner.delegate("writer", data={"n": n}, task_id=f"t-{n}") for n in range(6)]
    began_at = loop.time()
    await dead.kill()
    for n, handle in enumerate(handles):
        assert await soon(handle.result(), 30) == {"square": n * n}
    assert loop.time() - began_at < 10
    assert not dead.told("began")
    assert len(alive.told("began")) == 6


@pytest.mark.long
async def test_the_next_member_takes_up_the_tasks_when_all_members_were_killed(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    members = await start_pool(agents, mosquitto.url, 2)
    await becomes(lambda: _is_online(planner))
    handles = [
        await planner.delegate("writer", data={"n": n, "save": "page 3", "hangs": 1}, task_id=f"t-{n}")
        for n in range(4)
    ]
    for handle in handles:
        owner = await began(members, handle.task_id)
        await owner.tells("saved", task_id=handle.task_id)
    for each in members:
        await each.kill()
    await start_pool(agents, mosquitto.url, 1)
    for n, handle in enumerate(handles):
        assert await soon(handle.result(), 40) == {"square": n * n, "saved": "page 3"}


@pytest.mark.long
async def test_no_task_waits_for_a_dead_member_where_each_member_gets_each_message(
    agents: AgentProcesses, ejabberd: Ejabberd, namespace: str
) -> None:
    async with Agent("planner", broker=ejabberd.url, namespace=namespace, store=MemoryStore()) as planner:
        dead, alive = await start_pool(agents, ejabberd.url, 2, "--will-delay", "20")
        await becomes(lambda: _is_online(planner))
        await dead.kill()
        handles = [await planner.delegate("writer", data={"n": n}, task_id=f"t-{n}") for n in range(6)]
        results = await soon(asyncio.gather(*(handle.result() for handle in handles)), 9)  # before they are sent again
        assert results == [{"square": n * n} for n in range(6)]
        assert len(alive.told("began")) == 6


async def test_a_pool_that_is_killed_is_offline_for_its_peers(
    agents: AgentProcesses, mosquitto: Mosquitto, planner: Agent
) -> None:
    members = await start_pool(agents, mosquitto.url, 1)
    await becomes(lambda: _is_online(planner))
    for each in members:
        await each.kill()

    async def offline() -> bool:
        return not await _is_online(planner)

    await becomes(offline, 20)


@pytest.mark.long
async def test_the_tasks_that_a_killed_member_has_given_are_asked_for_by_another(
    agents: AgentProcesses, mosquitto: Mosquitto
) -> None:
    dead = await agents.start("boss", mosquitto.url, options=POOL)
    alive = await agents.start("boss", mosquitto.url, options=POOL)
    await dead.delegate("writer", "t-1", n=5)  # the peer has never been seen
    await dead.kill()
    async with PostgresStore(agents.store_of("boss")) as store:
        view = MemberStore(store, f"{agents.namespace}/boss", "viewer", lambda beat: None)
        await becomes(lambda: _one_is_left(view), 30)
        await agents.start("writer", mosquitto.url, executes=True)

        async def is_over() -> bool:
            return await view.ended(["t-1"]) == ["t-1"]

        await becomes(is_over, 30)
    alive.say("resume", task_id="t-1")
    assert await alive.result("t-1") == {"square": 25}
