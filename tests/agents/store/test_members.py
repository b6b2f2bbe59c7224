"""The members of a pool share one store. Each is a process of its own, and some of them are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from databases import Postgres, shared_pooler, shared_postgres
from mqtt_agent.agents.store import PostgresStore
from mqtt_agent.agents.store.lease import Beat, Lease
from mqtt_agent.agents.store.members import MemberStore
from mqtt_agent.agents.store.postgres_sets import Statement
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState
from support import becomes, require, soon, until

from .conftest import AGENT, new_record

PROGRAM = Path(__file__).parents[2] / "programs" / "pool_member.py"
LEASE = 3.0
"""Seconds. A member may end the leases of others after two renewals, so after two seconds."""


class Member:
    """A process that is a member of the pool."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.name = ""
        self.epoch = 0
        self.started = ""
        self._unread: list[list[str]] = []

    async def says(self, word: str) -> list[str]:
        """The rest of the first unread line that begins with a word."""
        while True:
            for line in self._unread:
                if line[0] == word:
                    self._unread.remove(line)
                    return line[1:]
            assert self.process.stdout is not None
            line = (await soon(self.process.stdout.readline(), 60)).decode().split()
            assert line, f"the member ended, and did not say {word!r}"
            self._unread.append(line)

    def do(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())

    async def claim(self) -> list[str]:
        self.do("claim")
        return await self.says("claimed")

    async def complete(self, task_id: str, attempt: int) -> bool:
        self.do("complete", task_id, attempt)
        return await self.says("completed") == ["True"]

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


Start = Callable[..., Awaitable[Member]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start members, and wait until they have joined."""
    started: list[Member] = []

    async def run(url: str, lease: float = LEASE) -> Member:
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, str(PROGRAM), url, str(lease)]
        member = Member(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
        started.append(member)
        member.name, epoch, member.started = await member.says("joined")
        member.epoch = int(epoch)
        return member

    yield run
    for member in started:
        if member.process.returncode is None:
            member.process.send_signal(signal.SIGCONT)
            await member.kill()


@pytest.fixture(params=["postgres", pytest.param("pooler", marks=pytest.mark.long)])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    url = shared_postgres().new_database()
    return url if request.param == "postgres" else shared_pooler().url(url.rsplit("/", 1)[1])


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(url, lease=LEASE) as store:
        yield store


def viewer(store: PostgresStore) -> MemberStore:
    """The pool as somebody sees it who has not joined."""
    return MemberStore(store, AGENT, "viewer", lambda beat: None)


async def state_of(store: PostgresStore, task_id: str) -> tuple[TaskState, int]:
    record = await store.get(new_record(task_id).key)
    assert record is not None
    return record.state, record.attempt


async def test_another_member_gets_the_tasks_of_a_killed_member_with_the_next_attempt(
    start: Start, url: str, store: PostgresStore
) -> None:
    for task_id in ("1", "2", "3"):
        await store.add(new_record(task_id))
    dead, alive = await start(url), await start(url)
    assert await dead.claim() == ["1", "1"]
    assert await alive.claim() == ["2", "1"]
    await store.change(new_record("1").key, [TaskState.WORKING], saved="half")
    await dead.kill()
    assert await alive.says("beat") == ["False", "1", "1"]
    assert [each.member for each in await viewer(store).members()] == [alive.name]
    assert await alive.claim() == ["1", "2"]
    record = await store.get(new_record("1").key)
    assert record is not None
    assert (record.saved, record.state) == ("half", TaskState.WORKING)
    assert await state_of(store, "2") == (TaskState.WORKING, 1)


async def test_a_member_that_leaves_gives_its_tasks_back_at_once(start: Start, url: str, store: PostgresStore) -> None:
    await store.add(new_record("1"))
    first, second = await start(url), await start(url)
    await first.claim()
    first.process.terminate()
    assert await first.says("left") == ["False"]
    assert await second.claim() == ["1", "2"]
    second.process.terminate()
    assert await second.says("left") == ["True"]
    assert await state_of(store, "1") == (TaskState.SUBMITTED, 2)


@pytest.mark.long
async def test_a_member_that_stood_still_is_fenced_and_learns_that_its_lease_has_ended(
    start: Start, url: str, store: PostgresStore
) -> None:
    await store.add(new_record("1"))
    still, other = await start(url), await start(url)
    await still.claim()
    still.process.send_signal(signal.SIGSTOP)
    assert await other.says("beat") == ["False", "1", "1"]
    assert await other.claim() == ["1", "2"]
    still.process.send_signal(signal.SIGCONT)
    assert not await still.complete("1", 1)
    assert await still.says("beat") == ["True", "0", "0"]
    assert await other.complete("1", 2)
    assert await state_of(store, "1") == (TaskState.COMPLETED, 2)


@pytest.mark.long
async def test_a_starved_event_loop_keeps_its_lease(url: str, store: PostgresStore, start: Start) -> None:
    await store.add(new_record("1"))
    beats: list[Beat] = []
    busy = MemberStore(store, AGENT, "busy", beats.append)
    await soon(busy.join())
    other = await start(url)
    await soon(busy.claim(AGENT))
    time.sleep(2 * LEASE)
    assert await other.claim() == ["nothing"]
    assert {each.member for each in await busy.members()} == {"busy", other.name}
    assert [(each.key.task_id, each.attempt) for each in await busy.own()] == [("1", 1)]
    assert not await soon(busy.leave())
    assert beats == []


@pytest.mark.long
async def test_all_members_of_one_pool_have_one_start_and_each_join_counts_the_epoch_up(
    start: Start, url: str, store: PostgresStore
) -> None:
    members = await asyncio.gather(*(start(url) for _ in range(3)))
    assert len({each.started for each in members}) == 1
    assert sorted(each.epoch for each in members) == [1, 2, 3]
    for each in members:
        each.process.terminate()
    assert sorted([(await each.says("left"))[0] for each in members]) == ["False", "False", "True"]
    again = await start(url)
    assert again.started > members[0].started
    assert again.epoch == 4


async def test_a_single_agent_does_not_take_the_tasks_of_a_pool(start: Start, url: str, store: PostgresStore) -> None:
    await store.add(new_record("1"))
    member = await start(url)
    await member.claim()
    with pytest.raises(StoreError, match="used by a pool of 1 processes"):
        await store.reopen(AGENT)
    assert await state_of(store, "1") == (TaskState.WORKING, 1)
    member.process.terminate()
    await member.says("left")
    assert await store.reopen(AGENT) == 0


@pytest.mark.long
async def test_the_next_member_takes_up_the_tasks_of_a_pool_that_was_killed(
    start: Start, url: str, store: PostgresStore
) -> None:
    for task_id in ("1", "2"):
        await store.add(new_record(task_id))
    dead = [await start(url), await start(url)]
    for each in dead:
        await each.claim()
    for each in dead:
        await each.kill()
    again = await start(url)
    await becomes(lambda: _has_submitted(store, 2), 15)
    assert sorted([(await again.claim())[0] for _ in range(2)]) == ["1", "2"]


async def _has_submitted(store: PostgresStore, number: int) -> bool:
    return await store.count(AGENT, "received", [TaskState.SUBMITTED]) == number


@pytest.mark.long
async def test_the_owner_of_a_task_is_the_live_member_that_has_begun_it(
    start: Start, url: str, store: PostgresStore
) -> None:
    await store.add(new_record("1"))
    member, view = await start(url), viewer(store)
    assert await view.owner(new_record("1").key) is None
    await member.claim()
    assert await view.owner(new_record("1").key) == member.name
    (only,) = await view.members()
    assert (only.member, only.tasks) == (member.name, 1)
    assert 0 < only.lease <= LEASE


@pytest.mark.long
async def test_nobody_takes_the_tasks_of_the_others_when_the_database_was_away_for_all(start: Start) -> None:
    require(Postgres)
    with Postgres(durable=True) as database:
        url = database.new_database()
        async with PostgresStore(url, lease=LEASE) as store:
            for number in range(3):
                await soon(store.add(new_record(str(number))))
            members = [await start(url) for _ in range(3)]
            for each in members:
                await each.claim()
            database.kill()
            await asyncio.sleep(2 * LEASE)  # longer than every lease
            database.start()

            async def renewed() -> bool:
                return all(each.lease > 0 for each in await viewer(store).members())

            await becomes(renewed, 30)
            await asyncio.sleep(2 * LEASE)  # long enough for each member to end the leases of others
            for number in range(3):
                assert await state_of(store, str(number)) == (TaskState.WORKING, 1)


async def test_only_a_suspect_that_has_missed_a_renewal_is_dead_before_its_lease_ends(store: PostgresStore) -> None:
    beats: list[Beat] = []
    lease = Lease(store.new_engine(), store.statement, AGENT, "alive", 600, beats.append)
    engine = store.new_engine()
    left = {
        "missed and suspected": 299,
        "missed": 299,
        "renewed and suspected": 310,
        "suspected long ago": 299,
        "just suspected": 299,
        "suspected and trusted": 299,
    }

    def look() -> list[str]:
        """One look of the member, which has renewed its lease often enough. Returns the members afterwards."""
        lease._join()
        lease._renewals = 2
        for name, seconds in left.items():
            join = (
                f"INSERT INTO {store.schema}.members (agent, member, lease_until)"
                f" VALUES ('{AGENT}', '{name}', clock_timestamp() + make_interval(secs => {seconds}))"
            )
            engine.execute(Statement(join.encode()))
        for name in left:
            if "suspected" in name:
                lease.suspect(name)
        for name in left.keys() & lease._suspects.keys() - {"just suspected"}:
            lease._suspects[name] -= 3
        lease._suspects["suspected long ago"] -= 601
        lease.trust("suspected and trusted")
        lease._look()
        rows = engine.execute(Statement(f"SELECT member FROM {store.schema}.members ORDER BY 1".encode()))[0]
        assert isinstance(rows, list)
        return [member for (member,) in rows]

    try:
        found = await asyncio.to_thread(look)
    finally:
        lease._engine.close()
        engine.close()
    assert found == sorted(["alive", *left.keys() - {"missed and suspected"}])
    assert beats == [Beat(False, 1, 0)]


async def _with_lease(store: PostgresStore, work: Callable[[Lease], None], **limits: float) -> list[Beat]:
    """Do some work as a member that may end the leases of others. Returns what its looks have changed."""
    beats: list[Beat] = []
    lease = Lease(store.new_engine(**limits), store.statement, AGENT, "alive", LEASE, beats.append)

    def run() -> None:
        lease._join()
        lease._execute(ADD_LAPSED)
        lease._renew()  # a busy machine may have taken long until here
        lease._renewals = 2
        work(lease)

    try:
        await asyncio.to_thread(run)
    finally:
        lease._engine.close()
    return beats


ADD_LAPSED = "INSERT INTO {schema}.members (agent, member, lease_until) VALUES (%(agent)s, 'lapsed', clock_timestamp())"
AGE_OWN = (
    "UPDATE {schema}.members SET lease_until = clock_timestamp() + make_interval(secs => %(missed)s - 0.1)"
    " WHERE member = %(member)s"
)


async def test_a_member_whose_look_was_held_up_ends_no_lease_of_others(store: PostgresStore) -> None:
    """Such as by a slow disk. The others may have been held up too, and could not renew their leases."""

    def held_up(lease: Lease) -> None:
        lease._execute(AGE_OWN)
        lease._look()

    assert await _with_lease(store, held_up) == []
    assert {each.member for each in await viewer(store).members()} == {"alive", "lapsed"}
    async with await psycopg.AsyncConnection.connect(store._url) as sql:
        await sql.execute("DELETE FROM mqtt_agent.members")
    assert await _with_lease(store, lambda lease: lease._look()) == [Beat(False, 1, 0)]


async def test_a_lock_on_the_tasks_keeps_no_member_from_renewing_its_lease(url: str, store: PostgresStore) -> None:
    """Such as VACUUM FULL, REINDEX or ALTER TABLE."""
    took: list[float] = []

    def look(lease: Lease) -> None:
        with psycopg.connect(url) as sql:
            sql.execute("LOCK TABLE mqtt_agent.tasks IN ACCESS EXCLUSIVE MODE")
            lease._look()  # it gives up soon
            took.append(lease._renewals)
            lease._renewed_at = 0.0
            lease._renew()

    assert await _with_lease(store, look, lock_timeout=0.1) == []
    assert took == [0]  # it is sure no more
    member = MemberStore(store, AGENT, "other", lambda beat: None)
    await member.join()
    assert b"1000ms" in member._lease._engine._settings  # type: ignore[union-attr]
    await member.leave()


@pytest.mark.long
async def test_a_member_whose_connection_hangs_learns_that_it_has_lost_its_lease(start: Start) -> None:
    url, beats = shared_postgres().new_database(), list[Beat]()
    async with PostgresStore(url, lease=LEASE) as store:
        member = MemberStore(store, AGENT, "hung", beats.append)
        await member.join()
        await start(url)
        hung = member._lease._engine._connection.info.backend_pid  # type: ignore[union-attr]
        os.kill(hung, signal.SIGSTOP)  # the server keeps the connection open, and never answers
        try:
            await until(lambda: any(beat.lost for beat in beats), 30)
        finally:
            os.kill(hung, signal.SIGCONT)
        await member.leave()


async def test_anybody_may_name_any_number_of_suspects(store: PostgresStore) -> None:
    lease = Lease(store.new_engine(), store.statement, AGENT, "alive", 600, lambda beat: None)
    for number in range(5000):
        lease.suspect(f"m{number}")
    assert lease._present_suspects() == []
    assert list(lease._suspects) == [f"m{number}" for number in range(4900, 5000)]


async def test_a_suspicion_begins_with_its_first_status(store: PostgresStore) -> None:
    lease = Lease(store.new_engine(), store.statement, AGENT, "alive", 600, lambda beat: None)
    lease.suspect("m")
    lease._suspects["m"] -= 3
    lease.suspect("m")
    assert lease._present_suspects() == ["m"]


def test_tables_of_an_earlier_version_get_the_tables_of_pools() -> None:
    from mqtt_agent.agents.store import postgres_schema

    url = shared_postgres().new_database()

    async def life() -> Any:
        async with PostgresStore(url) as store:
            return await viewer(store).members()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_schema, "MIGRATIONS", postgres_schema.MIGRATIONS[:1])

        async def earlier() -> None:
            async with PostgresStore(url) as store:
                await store.add(new_record("1", state=TaskState.WORKING, attempt=1))

        asyncio.run(earlier())
    assert asyncio.run(life()) == []
    with psycopg.connect(url) as sql:
        assert sql.execute("SELECT task_id, member FROM mqtt_agent.tasks").fetchall() == [("1", None)]


@pytest.mark.parametrize("lease", [0, 0.5, 4000, float("nan")])
def test_a_lease_has_a_sensible_length(lease: float) -> None:
    with pytest.raises(ValueError, match="lease must be 1 to 3,600 seconds"):
        PostgresStore("postgresql://localhost/x", lease=lease)
