"""What only a store in an SQLite file has: its statements, threads, locks and transactions."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import sys
import threading
import time
import weakref
from contextlib import closing
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, cast

import pytest
from mqtt_agent.agents.store import SqliteStore, sqlite
from mqtt_agent.agents.store.base import TaskRole
from mqtt_agent.agents.store.database import connect
from mqtt_agent.agents.store.rows import Row, to_row
from mqtt_agent.agents.store.worker import Outcome
from mqtt_agent.agents.store.writer import SqliteEngine
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState
from support import soon, until

from .conftest import AGENT, new_record

CONNECT = partial(connect, synchronous="full", busy_timeout=5.0, check_limit=2**40)


def store_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mqtt-agent-store"]


class Recorded:
    """The statements that a store runs."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def connect(self, path: Path, **options: Any) -> sqlite3.Connection:
        connection = connect(path, **options)
        connection.set_trace_callback(self.statements.append)
        return connection


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded()
    monkeypatch.setattr(sqlite, "connect", recorded.connect)
    return recorded


class TestPlans:
    """No statement reads more rows than necessary, whatever the file contains."""

    STATEMENTS: tuple[tuple[str, Any], ...] = (
        *((statement, ("a", "1", "planner")) for statement in map(sqlite.get_sql, sqlite.ROLES)),
        (sqlite.OLDEST, ("a",)),
        (sqlite.REOPEN, (0.0, "a")),
        (sqlite.SWEEP, (AGENT, 0.0, 1000)),
        *((statement, ("a", "1", "planner", "completed")) for statement in map(sqlite.settle_sql, sqlite.ROLES)),
        (sqlite.update_sql(("state", "updated_at")), ("working", 0.0, 1)),
        *((sqlite.count_sql("received", states), ("a",)) for states in ([TaskState.WORKING], TaskState)),
        *(
            (
                sqlite.find_sql(role, states, peer=peer, unsettled=unsettled),
                {"agent": "a", "peer": "p", "after": 0, "limit": 10},
            )
            for role, states, peer, unsettled in itertools.product(
                sqlite.ROLES, ([TaskState.WORKING], [TaskState.COMPLETED], TaskState), (False, True), (False, True)
            )
        ),
    )

    @pytest.mark.parametrize("analyzed", [False, True])
    def test_every_statement_goes_by_an_index_and_sorts_nothing(self, path: Path, analyzed: bool) -> None:
        with closing(CONNECT(path)) as connection:
            if analyzed:
                row = to_row(new_record())
                for number in range(1000):
                    connection.execute(sqlite.INSERT, row._replace(task_id=str(number))[1:])
                connection.execute("ANALYZE")
            for statement, values in self.STATEMENTS:
                plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
                assert any(step.startswith("SEARCH tasks USING") for step in plan), (statement, plan)
                assert not any(word in step for step in plan for word in ("SCAN", "TEMP")), (statement, plan)

    def test_the_key_is_unique(self, path: Path) -> None:
        with closing(CONNECT(path)) as connection:
            key = "a", "1", "planner"
            found = [(sqlite.get_sql(role), key) for role in sqlite.ROLES]
            settled = [(sqlite.settle_sql(role), (*key, "completed")) for role in sqlite.ROLES]
            for statement, values in (*found, *settled):
                (step,) = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
                assert "sqlite_autoindex_tasks_1 (agent=? AND role=? AND task_id=? AND requester=?)" in step[3]

    @pytest.mark.parametrize("role", sqlite.ROLES)
    def test_a_statement_is_planned_once_whatever_it_is_called_with(self, path: Path, role: TaskRole) -> None:
        # SQLite plans a statement again for each bound value on which the choice of a partial index depends.
        plans = 0

        def count(action: int, *rest: object) -> int:
            nonlocal plans
            plans += action == sqlite3.SQLITE_SELECT
            return sqlite3.SQLITE_OK

        with closing(CONNECT(path)) as connection:
            connection.set_authorizer(count)
            for number in range(10):
                assert connection.execute(sqlite.get_sql(role), ("a", str(number), "p")).fetchone() is None
        assert plans == 1


async def test_a_task_with_an_unknown_role_is_refused_and_harms_no_other(path: Path) -> None:
    key = new_record().key
    odd = key._replace(role=cast("TaskRole", "' OR 1 = 1 --"))
    async with SqliteStore(path) as store:
        found, added, changed = await soon(
            asyncio.gather(
                store.get(odd),
                store.add(new_record()),
                store.change(odd, TaskState, settled=True),
                return_exceptions=True,
            )
        )
        assert isinstance(found, StoreError)
        assert "role" in str(found)
        assert isinstance(changed, StoreError)
        assert not isinstance(added, BaseException)
        with pytest.raises(ValueError, match="role"):
            await soon(store.find(AGENT, odd.role))


class TestDurability:
    def test_a_commit_waits_for_the_disk(self, path: Path) -> None:
        with closing(CONNECT(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)

    def test_unless_it_is_told_not_to(self, path: Path) -> None:
        with closing(connect(path, synchronous="normal", busy_timeout=5.0, check_limit=0)) as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (1,)

    async def test_what_comes_at_once_is_committed_together(self, recorded: Recorded, path: Path) -> None:
        async with SqliteStore(path) as store:
            await soon(asyncio.gather(*(store.add(new_record()) for _ in range(500))))
            assert 1 <= recorded.statements.count("COMMIT") <= 50
            assert recorded.statements.count("BEGIN IMMEDIATE") == recorded.statements.count("COMMIT")

    async def test_reading_writes_nothing(self, recorded: Recorded, path: Path) -> None:
        async with SqliteStore(path) as store:
            await soon(store.find(AGENT, "received"))
            await soon(store.get(new_record().key))
            assert "BEGIN IMMEDIATE" not in recorded.statements

    async def test_closing_leaves_one_file_with_everything(self, path: Path) -> None:
        async with SqliteStore(path) as store:
            await soon(store.add(new_record("1")))
        assert [file.name for file in path.parent.iterdir()] == ["tasks.db"]
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
            assert connection.execute("SELECT task_id, state FROM tasks").fetchall() == [("1", "submitted")]


class TestFilesInUse:
    """SQLite goes on without a word when its file is gone. The store does not."""

    @pytest.mark.skipif(sys.platform == "win32", reason="a file in use cannot be deleted")
    @pytest.mark.parametrize("what", ["deleted", "replaced", "log deleted", "folder moved"])
    async def test_a_file_that_is_gone_is_noticed_and_nothing_counts_as_stored(self, tmp_path: Path, what: str) -> None:
        path = tmp_path / "folder" / "tasks.db"
        path.parent.mkdir()
        away = tmp_path / "away"
        async with SqliteStore(path) as store:
            await soon(store.add(new_record("1")))
            if what == "folder moved":
                path.parent.rename(away)
            elif what == "log deleted":
                path.with_name("tasks.db-wal").rename(away)
            else:
                path.rename(away)
            if what == "replaced":
                path.touch()
            for call in (store.add, lambda record: store.get(record.key)):
                with pytest.raises(StoreError, match="while it was in use, so nothing is stored any more") as raised:
                    await soon(call(new_record("2")))
                assert str(path) in str(raised.value)
                assert not raised.value.permanent
            if what == "folder moved":
                away.rename(path.parent)
            else:
                away.rename(path.with_name("tasks.db-wal") if what == "log deleted" else path)
            assert (await soon(store.add(new_record("3"))))[1]
        async with SqliteStore(path) as store:
            assert {"1", "3"} <= {record.task_id for record in await soon(store.find(AGENT, "received"))}

    async def test_a_link_to_another_file_is_noticed(self, tmp_path: Path) -> None:
        path, one, two = (tmp_path / name for name in ("tasks.db", "one.db", "two.db"))
        path.symlink_to(one)
        one.touch()
        async with SqliteStore(two) as other:
            await soon(other.add(new_record("1")))
        async with SqliteStore(path) as store:
            await soon(store.add(new_record("1")))
            path.unlink()
            path.symlink_to(two)
            with pytest.raises(StoreError, match="was replaced by another file"):
                await soon(store.add(new_record("2")))

    async def test_a_batch_costs_two_looks_at_the_files(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with SqliteStore(path) as store:
            await soon(store.add(new_record()))
            looks: list[Any] = []
            stat = os.stat
            monkeypatch.setattr(os, "stat", lambda *args, **options: looks.append(args) or stat(*args, **options))
            await soon(store.add(new_record()))
            monkeypatch.undo()
        assert len(looks) == 2


class TestOtherUsers:
    async def test_two_stores_on_one_file_see_each_other(self, path: Path) -> None:
        async with SqliteStore(path) as one, SqliteStore(path) as two:
            record, _ = await soon(one.add(new_record()))
            assert await soon(two.get(record.key)) == record
            assert await soon(two.claim(AGENT)) is not None
            assert await soon(one.claim(AGENT)) is None

    async def test_one_that_closes_does_not_take_the_locks_of_the_other(self, path: Path) -> None:
        async with SqliteStore(path) as one:
            await soon(one.add(new_record()))
            async with SqliteStore(path):
                pass
            # A process that sees no lock takes itself for the last user, and removes the log that others still need.
            program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM tasks')"
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(path))
            assert await soon(process.wait()) == 0
            assert path.with_name("tasks.db-wal").exists()
            record, _ = await soon(one.add(new_record()))
        async with SqliteStore(path) as again:
            assert await soon(again.get(record.key)) == record

    async def test_a_lock_that_is_held_too_long_is_an_error_and_passes(self, path: Path) -> None:
        async with SqliteStore(path, busy_timeout=0.05) as store:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreError, match=r"tasks\.db is locked by another process.*busy_timeout"):
                    await soon(store.add(new_record("1")))
                assert await soon(store.find(AGENT, "received")) == []
                other.execute("ROLLBACK")
            assert (await soon(store.add(new_record("1"))))[1]

    async def test_a_short_lock_is_waited_for(self, path: Path) -> None:
        async with SqliteStore(path) as store:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                adding = asyncio.create_task(store.add(new_record()))
                await asyncio.wait([adding], timeout=0.05)
                assert not adding.done()
                other.execute("COMMIT")
                assert (await soon(adding))[1]


class TestThreads:
    async def test_nothing_is_left_after_the_last_close(self, path: Path) -> None:
        store = SqliteStore(path)
        before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
        for _ in range(3):
            async with store, store:
                await soon(store.add(new_record()))
                assert len(store_threads()) == 1
            assert store_threads() == []
        if sys.platform == "linux":
            assert len(os.listdir("/proc/self/fd")) == before

    async def test_nothing_is_left_after_a_failed_open(self, path: Path) -> None:
        path.write_text("no database")
        store = SqliteStore(path)
        for _ in range(3):
            answers = await soon(asyncio.gather(*(store.open() for _ in range(5)), return_exceptions=True))
            assert {type(answer) for answer in answers} == {StoreError}
            assert store_threads() == []
        path.unlink()
        async with store:
            assert (await soon(store.add(new_record())))[1]

    async def test_a_store_that_is_not_open_says_so(self, path: Path) -> None:
        store = SqliteStore(path)
        with pytest.raises(StoreError, match=r"tasks\.db is not open"):
            await soon(store.get(new_record().key))
        async with store:
            pass
        with pytest.raises(StoreError, match=r"tasks\.db is not open"):
            await soon(store.add(new_record()))

    async def test_a_canceled_open_is_not_open(self, path: Path) -> None:
        store = SqliteStore(path)
        opening = asyncio.create_task(store.open())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        with pytest.raises(StoreError, match="not open"):
            await soon(store.get(new_record().key))
        await until(lambda: not store_threads())
        async with store:
            assert (await soon(store.add(new_record())))[1]

    def test_a_loop_that_is_closed_in_the_middle_harms_no_other(self, path: Path) -> None:
        store = SqliteStore(path)
        first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
        first.run_until_complete(soon(store.open()))
        second.run_until_complete(soon(store.open()))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            adding = [loop.create_task(store.add(new_record(name))) for name, loop in (("1", first), ("2", second))]
            for loop in (first, second):
                loop.run_until_complete(asyncio.sleep(0))
            adding[0].cancel()
            first.close()
            other.execute("COMMIT")
        assert second.run_until_complete(soon(adding[1]))[1]
        assert second.run_until_complete(soon(store.get(new_record("1").key))) is not None
        for _ in range(2):
            second.run_until_complete(soon(store.close()))
        second.close()
        assert store_threads() == []

    async def test_each_loop_is_told_in_its_own_thread(self, path: Path) -> None:
        store = SqliteStore(path)

        async def work() -> int:
            async with store:
                for _ in range(20):
                    records = await soon(asyncio.gather(*(store.add(new_record()) for _ in range(5))))
                    assert all(added for _, added in records)
                return threading.get_ident()

        idents = await soon(asyncio.gather(*(asyncio.to_thread(asyncio.run, work()) for _ in range(3))), 30)
        assert len(set(idents)) == 3
        async with store:
            assert await soon(store.count(AGENT, "received", [TaskState.SUBMITTED])) == 300

    async def test_a_job_that_breaks_sqlite_fails_its_batch_and_no_later_one(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(connection: sqlite3.Connection, *args: object) -> None:
            connection.execute("SELECT * FROM nowhere")

        async with SqliteStore(path) as store:
            with monkeypatch.context() as patch:
                patch.setattr(sqlite, "_update", broken)
                answers = await soon(
                    asyncio.gather(store.add(new_record("1")), store.claim(AGENT), return_exceptions=True)
                )
                assert isinstance(answers[1], StoreError)
                assert isinstance(answers[1].__cause__, sqlite3.OperationalError)
            there = await soon(store.get(new_record("1").key))
            assert (there is None) == isinstance(answers[0], StoreError)
            assert (await soon(store.add(new_record("2"))))[1]

    async def test_no_cursor_leaves_the_thread_of_the_store(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        outcomes: list[Outcome] = []
        run = SqliteEngine.run
        monkeypatch.setattr(
            SqliteEngine, "run", lambda engine, batch: outcomes.extend(done := run(engine, batch)) or done
        )
        async with SqliteStore(path) as store:
            record, _ = await soon(store.add(new_record()))
            await soon(store.add(record))
            await soon(store.claim(AGENT))
            await soon(store.change(record.key, [TaskState.WORKING], state=TaskState.COMPLETED, result={}))
            await soon(store.settle([(record.key, TaskState.COMPLETED)]))
            await soon(store.get(record.key))
            await soon(store.find(AGENT, "received"))
            await soon(store.outlines(AGENT, "received", [TaskState.COMPLETED]))
            await soon(store.count(AGENT, "received", [TaskState.COMPLETED]))
            await soon(store.reopen(AGENT))
            await soon(store.sweep(AGENT, time.time() + 1))
        assert len(outcomes) >= 11
        assert {type(each.value) for each in outcomes} <= {int, list, tuple, Row, NoneType}

    async def test_a_cursor_of_a_failed_job_ends_in_the_thread_of_the_store(self, path: Path) -> None:
        ended: list[int] = []

        def failing(connection: sqlite3.Connection) -> None:
            local = Local()
            weakref.finalize(local, lambda: ended.append(threading.get_ident()))
            connection.execute("SELECT * FROM nowhere")

        async with SqliteStore(path) as store:
            with pytest.raises(StoreError) as raised:
                await soon(store._submit(failing, writes=False))
            assert isinstance(raised.value.__cause__, sqlite3.OperationalError)
            assert ended == [thread.ident for thread in store_threads()]

    async def test_a_misuse_of_sqlite_is_no_fault_of_the_values_and_may_be_tried_again(self, path: Path) -> None:
        def misuse(connection: sqlite3.Connection) -> None:
            raise sqlite3.InterfaceError("bad parameter or other API misuse")

        async with SqliteStore(path) as store:
            with pytest.raises(StoreError) as raised:
                await soon(store._submit(misuse, writes=True))
            assert not raised.value.permanent


class Local:
    """Something that a weak reference can follow, as no cursor can be followed."""


class TestSettings:
    def test_a_path_that_is_no_file_is_refused(self) -> None:
        with pytest.raises(ValueError, match="MemoryStore"):
            SqliteStore(":memory:")

    def test_an_unknown_word_is_refused(self, path: Path) -> None:
        with pytest.raises(ValueError, match="synchronous"):
            SqliteStore(path, synchronous="off")  # pyright: ignore[reportArgumentType]

    async def test_a_relative_path_stays_where_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        store = SqliteStore("here.db")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        async with store:
            assert (tmp_path / "here.db").exists()
        assert str(tmp_path / "here.db") in repr(store)
