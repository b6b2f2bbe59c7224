"""What only a store in PostgreSQL has: its statements, its tables, other sessions, and a database that goes away."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import psycopg
import pytest
from databases import PgBouncer, Postgres, shared_pooler, shared_postgres
from mqtt_agent import Agent
from mqtt_agent.agents.store import (
    PostgresStore,
    TaskKey,
    TaskRecord,
    lease,
    members,
    postgres,
    postgres_engine,
    postgres_schema,
)
from mqtt_agent.agents.store.postgres_engine import _SETTINGS  # pyright: ignore[reportPrivateUsage]
from mqtt_agent.agents.store.postgres_schema import MIGRATIONS
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState
from support import becomes, require, soon, until

from .conftest import AGENT, new_record

S = TaskState


@pytest.fixture
def url() -> str:
    """The URL of an empty database."""
    return shared_postgres().new_database()


@pytest.fixture
def sql(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Another session of the database."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def own_database() -> Iterator[Postgres]:
    """A database that the test may kill. A commit waits for the disk."""
    require(Postgres)
    with Postgres(durable=True) as database:
        yield database


class TestPlans:
    KEY = ("a", "received", "1", "")
    MEMBER: ClassVar = {"agent": "a", "member": "m"}
    FIND: ClassVar = {"agent": "a", "role": "received", "peer": "p", "after": 0, "limit": 10}
    STATEMENTS: tuple[tuple[str, Any, str], ...] = (
        (postgres.GET, KEY, "tasks_pkey"),
        (postgres.change_sql(("saved",), attempt=True), (1, *KEY, ["working"], 1), "tasks_pkey"),
        (postgres.CLAIM, {"agent": "a", "now": 0.0, "first": 0, "count": 1}, "tasks_by_state"),
        (postgres.ANY_SUBMITTED, {"agent": "a"}, "tasks_by_state"),
        (postgres.REOPEN, (0.0, "a"), "tasks_by_state"),
        (postgres.SWEEP, ("a", 0.0, 10), "tasks_over"),
        (postgres.COUNT, ("a", "received", ["working"]), "tasks_by_state"),
        (postgres.find_sql([S.WORKING], peer=False, unsettled=False), FIND, "tasks_by_state"),
        (postgres.find_sql(TaskState, peer=False, unsettled=False), FIND, "tasks_by_state"),
        (postgres.find_sql([S.WORKING], peer=True, unsettled=False), FIND, "tasks_by_state"),
        (postgres.find_sql([S.FAILED], peer=False, unsettled=True), FIND, "tasks_"),
        (lease.REAP, {**MEMBER, "missed": 5.0, "suspects": ["s"]}, "tasks_by_state"),
        (lease.GIVE_BACK, MEMBER, "tasks_by_state"),
        (members.OWN, MEMBER, "tasks_by_state"),
        (members.OWNER, (*KEY, "a"), "tasks_pkey"),
        (members.ENDED, {"agent": "a", "tasks": ["1"]}, "tasks_pkey"),
        (members.CLAIM_OWN, {**MEMBER, "now": 0.0, "first": 0, "count": 1}, "tasks_by_state"),
        (members.CLAIM_IN_TURN, {**MEMBER, "now": 0.0, "first": 0, "count": 1}, "tasks_by_context"),
        (members.COUNT_IN_TURN, MEMBER, "tasks_by_context"),
    )

    @pytest.mark.parametrize("analyzed", [False, True])
    async def test_every_statement_goes_by_its_index(
        self, url: str, sql: psycopg.Connection[Any], analyzed: bool
    ) -> None:
        async with PostgresStore(url) as store:
            await soon(asyncio.gather(*(store.add(new_record()) for _ in range(1000))), 30)
        if analyzed:
            sql.execute("ANALYZE")
        for statement, values, index in self.STATEMENTS:
            with sql.transaction():
                sql.execute(_SETTINGS)
                plan = sql.execute(f"EXPLAIN {statement.format(schema='mqtt_agent')}".encode(), values).fetchall()
            text = "\n".join(line for (line,) in plan)
            assert f"using {index}" in text, text
            assert "Seq Scan" not in text, text


class TestTables:
    async def test_stores_that_open_together_make_the_tables_once(self, url: str) -> None:
        stores = [PostgresStore(url, patience=0) for _ in range(8)]
        await soon(asyncio.gather(*(store.open() for store in stores)), 30)
        await soon(asyncio.gather(*(store.add(new_record()) for store in stores)))
        assert await soon(stores[0].count(AGENT, "received", TaskState)) == 8
        await soon(asyncio.gather(*(store.close() for store in stores)))

    async def test_older_tables_are_migrated_and_keep_their_tasks(
        self, url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with PostgresStore(url) as store:
            record, _ = await soon(store.add(new_record()))
        following = ("ALTER TABLE {schema}.tasks ADD COLUMN note text", "UPDATE {schema}.tasks SET note = 'new'")
        monkeypatch.setattr(postgres_schema, "MIGRATIONS", [*MIGRATIONS, following])
        async with PostgresStore(url) as store, PostgresStore(url) as again:
            assert await soon(store.get(record.key)) == record
            assert await soon(again.get(record.key)) == record
        assert sql.execute("SELECT note FROM mqtt_agent.tasks").fetchall() == [("new",)]
        assert sql.execute("SELECT version FROM mqtt_agent.format").fetchall() == [(len(MIGRATIONS) + 1,)]

    async def test_a_migration_that_fails_changes_nothing(
        self, url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with PostgresStore(url):
            pass
        following = ("ALTER TABLE {schema}.tasks ADD COLUMN note text", "SELECT 1 / 0")
        with monkeypatch.context() as patch:
            patch.setattr(postgres_schema, "MIGRATIONS", [*MIGRATIONS, following])
            with pytest.raises(StoreError, match="division by zero"):
                await soon(PostgresStore(url, patience=0).open())
        assert sql.execute("SELECT version FROM mqtt_agent.format").fetchall() == [(len(MIGRATIONS),)]
        async with PostgresStore(url) as store:
            assert (await soon(store.add(new_record())))[1]

    async def test_tables_of_a_newer_version_are_refused(self, url: str, sql: psycopg.Connection[Any]) -> None:
        async with PostgresStore(url):
            pass
        sql.execute("UPDATE mqtt_agent.format SET version = 99")
        with pytest.raises(StoreError, match="made by a newer version of mqtt-agent .its format is 99.*upgrade"):
            await soon(PostgresStore(url).open())

    async def test_tables_of_another_application_are_refused(self, url: str, sql: psycopg.Connection[Any]) -> None:
        sql.execute("CREATE SCHEMA mqtt_agent; CREATE TABLE mqtt_agent.tasks (id integer)")
        with pytest.raises(StoreError, match="a table 'tasks' of another application.*choose another schema"):
            await soon(PostgresStore(url).open())
        assert sql.execute("SELECT to_regclass('mqtt_agent.format')").fetchone() == (None,)

    @pytest.mark.parametrize(("encoding", "works"), [("LATIN1", False), ("SQL_ASCII", True)])
    async def test_a_database_that_cannot_hold_every_text_is_refused(
        self, sql: psycopg.Connection[Any], url: str, encoding: str, works: bool
    ) -> None:
        name = f"{url.rsplit('/', 1)[1]}_{encoding.lower()}"
        settings = f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        sql.execute(f"CREATE DATABASE {name} {settings}".encode())
        store = PostgresStore(url.replace(url.rsplit("/", 1)[1], name))
        if not works:
            with pytest.raises(StoreError, match="has the encoding LATIN1.*ENCODING 'UTF8'"):
                await soon(store.open())
            return
        async with store:
            record, _ = await soon(store.add(new_record("grüße 你好", saved="🐙")))
            assert await soon(store.get(record.key)) == record
            assert (record.task_id, record.saved) == ("grüße 你好", "🐙")

    async def test_a_database_with_too_many_connections_says_what_to_do(
        self, url: str, sql: psycopg.Connection[Any]
    ) -> None:
        user = f"user_{secrets.token_hex(4)}"
        sql.execute(f"CREATE ROLE {user} LOGIN CONNECTION LIMIT 0".encode())
        with pytest.raises(StoreError, match="has no free connection; each process needs one"):
            await soon(PostgresStore(url.replace("postgres@", f"{user}@"), patience=0.1).open())

    async def test_two_schemas_are_two_stores(self, url: str) -> None:
        async with PostgresStore(url, schema="one") as one, PostgresStore(url, schema="two") as two:
            await soon(one.add(new_record()))
            assert await soon(two.count(AGENT, "received", TaskState)) == 0

    async def test_a_user_without_rights_is_told_so_and_may_use_a_schema_that_is_made_for_it(
        self, url: str, sql: psycopg.Connection[Any]
    ) -> None:
        user = f"user_{secrets.token_hex(4)}"
        sql.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'secret'".encode())
        own = url.replace("postgres@", f"{user}:secret@")
        with pytest.raises(StoreError, match="may not be used by this user; let the database's owner grant"):
            await soon(PostgresStore(own).open())
        sql.execute(f"CREATE SCHEMA mqtt_agent AUTHORIZATION {user}".encode())
        async with PostgresStore(own) as store:
            assert (await soon(store.add(new_record())))[1]


class TestOtherSessions:
    async def test_a_claim_waits_for_a_task_that_another_session_is_changing(
        self, url: str, sql: psycopg.Connection[Any]
    ) -> None:
        async with PostgresStore(url) as store:
            await soon(store.add(new_record("1")))
            with sql.transaction():
                sql.execute("SELECT 1 FROM mqtt_agent.tasks FOR UPDATE")
                claiming = asyncio.create_task(store.claim(AGENT))
                await asyncio.wait([claiming], timeout=0.2)
                assert not claiming.done()
            claimed = await soon(claiming)
            assert claimed is not None
            assert claimed.task_id == "1"

    async def test_a_claim_finds_the_older_task_that_another_process_has_set_back(self, url: str) -> None:
        async with PostgresStore(url) as store, PostgresStore(url) as other:
            records = [(await soon(store.add(new_record(str(number)))))[0] for number in range(4)]
            for _ in range(3):
                assert await soon(store.claim(AGENT)) is not None
            assert await soon(other.change(records[0].key, [S.WORKING], state=S.SUBMITTED)) is not None
            claimed = [await soon(store.claim(AGENT)) for _ in range(3)]
            assert {record and record.task_id for record in claimed[:2]} == {"0", "3"}
            assert claimed[2] is None

    async def test_a_claim_finds_the_older_task_that_another_session_commits_late(
        self, url: str, sql: psycopg.Connection[Any]
    ) -> None:
        async with PostgresStore(url) as store:
            await soon(store.add(new_record("0")))
            with sql.transaction():
                copied = "agent, role, peer, task, digest, state, attempt, seq, inputs, settled, cancel_requested"
                copied += ", created_at, updated_at"
                insert = f"INSERT INTO mqtt_agent.tasks (task_id, {copied}) SELECT 'late', {copied}"
                sql.execute(f"{insert} FROM mqtt_agent.tasks".encode())
                for name in ("1", "2"):
                    await soon(store.add(new_record(name)))
                claimed = [await soon(store.claim(AGENT)) for _ in range(3)]
                assert [record and record.task_id for record in claimed] == ["0", "1", "2"]
            late = await soon(store.claim(AGENT))
            assert late is not None
            assert late.task_id == "late"
            assert await soon(store.claim(AGENT)) is None

    @pytest.mark.parametrize("how", ["reopened", "changed"])
    async def test_a_claim_finds_the_oldest_task_that_this_process_has_set_back(
        self, url: str, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "_WHOLE_EVERY", 1000.0)
        async with PostgresStore(url) as store:
            records = [(await soon(store.add(new_record(str(number)))))[0] for number in range(4)]
            for _ in range(3):
                assert await soon(store.claim(AGENT)) is not None
            if how == "reopened":
                assert await soon(store.reopen(AGENT)) == 3
            else:
                assert await soon(store.change(records[0].key, [S.WORKING], state=S.SUBMITTED)) is not None
            claimed = await soon(store.claim(AGENT))
            assert claimed is not None
            assert claimed.task_id == "0"

    async def test_a_claim_does_not_pass_the_dead_entries_of_earlier_claims(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "_WHOLE_EVERY", 1000.0)
        async with PostgresStore(url) as store:
            for number in range(3):
                await soon(store.add(new_record(str(number))))
            statements: list[Any] = []
            submit = store._submit  # pyright: ignore[reportPrivateUsage]

            async def watched(work: Any, *, writes: bool) -> Any:
                statements.append(work)
                return await submit(work, writes=writes)

            store._submit = watched  # pyright: ignore[reportPrivateUsage]
            positions = [record.position for record in [await soon(store.claim(AGENT)) for _ in range(3)] if record]
            assert [each.values["first"] for each in statements] == [0, *positions[:2]]

    async def test_a_deadlock_with_another_session_costs_no_change(
        self, url: str, sql: psycopg.Connection[Any]
    ) -> None:
        async with PostgresStore(url) as store:
            one, two = [(await soon(store.add(new_record(name))))[0] for name in ("1", "2")]
            sql.execute("SET deadlock_timeout = '60s'")  # so that PostgreSQL cancels the store's transaction
            with sql.transaction():
                sql.execute("UPDATE mqtt_agent.tasks SET saved = '0' WHERE task_id = '2'")
                changing = [asyncio.create_task(store.change(each.key, [S.SUBMITTED], saved=1)) for each in (one, two)]
                await until(lambda: sessions_that_wait(url) == 1)
                update = "UPDATE mqtt_agent.tasks SET saved = '0' WHERE task_id = '1'"
                await soon(asyncio.to_thread(sql.execute, update))
            changed = await soon(asyncio.gather(*changing))
            assert [record and record.saved for record in changed] == [1, 1]

    async def test_a_session_that_holds_a_lock_for_too_long_is_an_error_that_passes(
        self, url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mqtt_agent.agents.store import postgres_engine

        monkeypatch.setattr(postgres_engine, "_SETTINGS", _SETTINGS.replace(b"'20s'", b"'100ms'"))
        async with PostgresStore(url) as store:
            record, _ = await soon(store.add(new_record("1")))
            with sql.transaction():
                sql.execute("SELECT 1 FROM mqtt_agent.tasks FOR UPDATE")
                with pytest.raises(StoreError, match="another session that keeps its transaction open") as raised:
                    await soon(store.change(record.key, [S.SUBMITTED], saved=1))
                assert not raised.value.permanent
            assert await soon(store.change(record.key, [S.SUBMITTED], saved=1)) is not None

    async def test_no_setting_of_a_transaction_stays_in_a_session_of_the_pooler(self, url: str) -> None:
        through = shared_pooler().url(url.rsplit("/", 1)[1])
        async with PostgresStore(through) as store:
            await soon(asyncio.gather(*(store.add(new_record()) for _ in range(50))))
            with psycopg.connect(through, autocommit=True) as other:
                for setting, value in (("enable_seqscan", "on"), ("lock_timeout", "0"), ("statement_timeout", "0")):
                    assert other.execute(f"SHOW {setting}".encode()).fetchone() == (value,)
                assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)

    async def test_a_commit_waits_for_the_disk_also_where_the_database_says_otherwise(
        self, url: str, sql: psycopg.Connection[Any]
    ) -> None:
        sql.execute(f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET synchronous_commit = off".encode())
        async with PostgresStore(url) as store:
            found = await store.rows("SELECT current_setting('synchronous_commit')", ())
            assert found == [("on",)]


def sessions_that_wait(url: str) -> int:
    """How many sessions of a database wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(url) as connection:
        return (connection.execute(query).fetchone() or (0,))[0]


class TestValues:
    @pytest.mark.parametrize("name", ["\x01", "\x01\x02", "\0\x01", "\x02\0\0"])
    async def test_names_with_the_escape_character_come_back_the_same(self, url: str, name: str) -> None:
        async with PostgresStore(url) as store:
            await soon(store.add(new_record(name, agent=name, peer=name)))
            (found,) = await soon(store.find(name, "received", peer=name))
            assert (found.task_id, found.peer) == (name, name)

    async def test_a_name_that_no_index_can_hold_is_refused_and_harms_no_other(self, url: str) -> None:
        async with PostgresStore(url) as store:
            records = [new_record("1"), new_record(secrets.token_hex(20_000)), new_record("2")]
            answers = await soon(asyncio.gather(*map(store.add, records), return_exceptions=True))
            assert [type(answer) for answer in answers] == [tuple, StoreError, tuple]
            assert isinstance(answers[1], StoreError)
            assert answers[1].permanent
            assert await soon(store.count(AGENT, "received", TaskState)) == 2

    async def test_damaged_tasks_are_left_out_of_a_search_and_logged_once(
        self, url: str, sql: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        async with PostgresStore(url) as store:
            for number in range(5):
                await soon(store.add(new_record(str(number))))
            sql.execute("UPDATE mqtt_agent.tasks SET task = '{' WHERE task_id IN ('0', '2', '4')")
            for _ in range(2):
                found = await soon(store.find(AGENT, "received", limit=2))
                assert [record.task_id for record in found] == ["1", "3"]
            with pytest.raises(StoreError, match="task '0' in the store is damaged"):
                await soon(store.get(new_record("0").key))
        left_out = [each.getMessage() for each in caplog.records if "is left out" in each.getMessage()]
        assert len(left_out) == 2
        assert "restore a backup of the database" in left_out[0]


class TestAway:
    """The database, or the way to it, goes away and comes back."""

    async def test_a_restart_between_two_calls_is_not_noticed(self, own_database: Postgres) -> None:
        async with PostgresStore(own_database.url()) as store:
            await soon(store.add(new_record("1")))
            for end in (own_database.stop, own_database.kill):
                await asyncio.to_thread(end)
                await asyncio.to_thread(own_database.start)
                assert (await soon(store.add(new_record())))[1]
            assert await soon(store.count(AGENT, "received", TaskState)) == 3

    async def test_a_call_waits_for_a_database_that_comes_back_soon(self, own_database: Postgres) -> None:
        async with PostgresStore(own_database.url(), patience=60) as store:
            await asyncio.to_thread(own_database.kill)
            adding = asyncio.create_task(store.add(new_record("1")))
            await asyncio.wait([adding], timeout=0.2)
            assert not adding.done()
            await asyncio.to_thread(own_database.start)
            assert (await soon(adding))[1]

    async def test_a_database_that_stays_away_is_an_error_that_says_what_to_do_and_passes(
        self, own_database: Postgres
    ) -> None:
        url = own_database.url().replace("postgres@", "postgres:geheim@")
        async with PostgresStore(url, patience=0.3) as store:
            await asyncio.to_thread(own_database.kill)
            for _ in range(2):
                with pytest.raises(StoreError, match="cannot be reached; check that the database runs") as raised:
                    await soon(store.add(new_record("1")))
                assert str(own_database.port) in str(raised.value)
                assert "geheim" not in f"{raised.value}{store!r}"
                assert not raised.value.permanent
            await asyncio.to_thread(own_database.start)
            assert (await soon(store.add(new_record("1"))))[1]
            await asyncio.to_thread(own_database.kill)
        with pytest.raises(StoreError, match="not open"):
            await soon(store.add(new_record()))

    async def test_nothing_that_returned_is_lost_when_the_database_is_killed_in_the_middle(
        self, own_database: Postgres
    ) -> None:
        stored: dict[str, TaskState] = {}
        errors: list[BaseException] = []
        over = threading.Event()

        async def lives(worker: int) -> None:
            number = 0
            while not over.is_set():
                number += 1
                record = new_record(f"{worker}-{number}", agent=f"agent-{worker}")
                await self.insist(lambda record=record: store.add(record), errors)
                stored[record.task_id] = S.SUBMITTED
                await self.insist(
                    lambda record=record: store.change(
                        record.key, [S.SUBMITTED], state=S.COMPLETED, result={"of": record.task_id}
                    ),
                    errors,
                )
                stored[record.task_id] = S.COMPLETED

        async with PostgresStore(own_database.url(), patience=60) as store:
            workers = [asyncio.create_task(lives(number)) for number in range(32)]
            for kills in (1, 2):
                goal = len(stored) + 300
                await until(lambda goal=goal: len(stored) > goal, 30)
                await asyncio.to_thread(own_database.kill)
                await asyncio.to_thread(own_database.start)
                assert len(errors) <= 32 * kills
            goal = len(stored) + 100
            await until(lambda: len(stored) > goal, 30)
            over.set()
            await soon(asyncio.gather(*workers), 30)
            for task_id, state in stored.items():
                agent = f"agent-{task_id.split('-')[0]}"
                found = await soon(store.get(TaskKey(agent, "received", task_id)))
                assert found is not None
                assert found.state == state
                assert found.result == {"of": task_id}
        assert {type(error) for error in errors} <= {StoreError}
        assert [error for error in errors if "the change may have been made" not in str(error)] == []

    async def test_a_change_under_way_when_the_database_is_killed_says_that_it_may_have_been_made(
        self, own_database: Postgres
    ) -> None:
        url = own_database.url()
        async with PostgresStore(url, patience=60) as store:
            record, _ = await soon(store.add(new_record("1")))
            with psycopg.connect(url) as other:
                other.execute("SELECT 1 FROM mqtt_agent.tasks FOR UPDATE")
                changing = [asyncio.create_task(store.change(record.key, [S.SUBMITTED], saved=n)) for n in (1, 2)]
                await until(lambda: sessions_that_wait(url) == 1)
                await asyncio.to_thread(own_database.kill)
                for change in changing:
                    with pytest.raises(StoreError, match="the change may have been made") as raised:
                        await soon(change)
                    assert not raised.value.permanent
                other.close()
            await asyncio.to_thread(own_database.start)
            assert await soon(store.get(record.key)) == record

    async def insist(self, call: Any, errors: list[BaseException]) -> Any:
        while True:
            try:
                return await soon(call(), 30)
            except StoreError as error:
                errors.append(error)

    async def test_a_restart_of_the_pooler_is_survived(self, url: str) -> None:
        require(PgBouncer)
        with PgBouncer(shared_postgres()) as pooler:
            async with PostgresStore(pooler.url(url.rsplit("/", 1)[1])) as store:
                await soon(store.add(new_record()))
                await asyncio.to_thread(pooler.kill)
                await asyncio.to_thread(pooler.start)
                assert (await soon(store.add(new_record())))[1]

    async def test_a_standby_is_refused_until_it_is_the_primary(self, url: str, sql: psycopg.Connection[Any]) -> None:
        name = url.rsplit("/", 1)[1]
        async with PostgresStore(url, patience=0) as store:
            sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
            sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

            async def refused() -> bool:
                with pytest.raises(StoreError) as raised:  # the first error may be about the connection that was ended
                    await soon(store.add(new_record()))
                return "is read-only, because the server is a standby" in str(raised.value)

            await becomes(refused)
            sql.execute("SET default_transaction_read_only = off")
            sql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
            assert (await soon(store.add(new_record())))[1]


def sessions(sql: psycopg.Connection[Any]) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    return (sql.execute(query).fetchone() or (0,))[0]


class TestOpening:
    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("postgres@", "nobody:geheim@", "refuses the user; check the user and the password"),
            ("/test_", "/missing_", "does not exist; make the database"),
        ],
    )
    async def test_what_only_a_person_can_repair_is_told_at_once(
        self, url: str, old: str, new: str, words: str
    ) -> None:
        with pytest.raises(StoreError, match=words) as raised:
            await soon(PostgresStore(url.replace(old, new), patience=1000).open())
        assert "geheim" not in str(raised.value)

    @pytest.mark.parametrize("url", ["postgresql://host:port/", "postgresql://u:gehe%im@host/db", "postgresql://?x=1"])
    def test_a_text_that_is_no_url_is_refused_without_its_password(self, url: str) -> None:
        with pytest.raises(ValueError, match="not a PostgreSQL URL; write postgresql://") as raised:
            PostgresStore(url)
        assert "gehe" not in str(raised.value)

    @pytest.mark.parametrize("schema", ["", "Big", "a b", "a;b", "1a", "x" * 64])
    def test_an_odd_name_for_the_schema_is_refused(self, schema: str) -> None:
        with pytest.raises(ValueError, match="schema"):
            PostgresStore("postgresql://host/db", schema=schema)

    def test_the_extra_is_named_when_the_driver_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "mqtt_agent.agents.store.postgres_engine", raising=False)
        monkeypatch.setitem(sys.modules, "psycopg", None)
        import mqtt_agent.agents.store as package

        monkeypatch.delattr(package, "postgres_engine", raising=False)
        with pytest.raises(ImportError, match=r"pip install 'mqtt-agent\[postgres\]'"):
            PostgresStore("postgresql://host/db")

    @pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
    def test_an_agent_takes_the_url_as_its_store(self, scheme: str) -> None:
        agent = Agent("writer", store=f"{scheme}://app:geheim@db.example:6432/agents")
        assert isinstance(agent.store, PostgresStore)
        assert repr(agent.store) == "PostgresStore('postgresql://db.example:6432/agents')"

    async def test_a_fault_of_the_engine_fails_its_batch_and_no_later_one(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mqtt_agent.agents.store.postgres_engine import PostgresEngine

        def broken(self: object, batch: object) -> None:
            raise MemoryError("there is no memory")

        async with PostgresStore(url) as store:
            with monkeypatch.context() as patch:
                patch.setattr(PostgresEngine, "run", broken)
                with pytest.raises(StoreError, match="there is no memory"):
                    await soon(store.add(new_record()))
            assert (await soon(store.add(new_record())))[1]

    async def test_one_connection_and_one_thread_serve_a_process_and_nothing_is_left(
        self, url: str, sql: psycopg.Connection[Any]
    ) -> None:
        def threads() -> Sequence[threading.Thread]:
            return [each for each in threading.enumerate() if each.name == "mqtt-agent-store"]

        before = len(threads())
        store = PostgresStore(url)
        async with store, store:
            await soon(asyncio.gather(*(store.add(new_record()) for _ in range(100))))
            assert sessions(sql) == 2
            assert len(threads()) == before + 1
        await until(lambda: sessions(sql) == 1)
        assert len(threads()) == before

    async def test_a_database_that_keeps_the_connection_and_never_answers_is_given_up(
        self, url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_engine, "SILENT_FOR", 0.2)
        async with PostgresStore(url) as store:
            await soon(store.add(new_record("before")))
            ours = "application_name = 'mqtt-agent' AND datname = current_database()"
            [(process,)] = sql.execute(f"SELECT pid FROM pg_stat_activity WHERE {ours}".encode())
            os.kill(process, signal.SIGSTOP)  # as if its disk hung, or a proxy did not notice its end
            try:
                with pytest.raises(StoreError, match="the change may have been made"):
                    await soon(store.add(new_record("silent")))
                assert (await soon(store.add(new_record("after"))))[1]
            finally:
                os.kill(process, signal.SIGCONT)
        assert not [each for each in threading.enumerate() if each.name == "mqtt-agent-store"]

    async def test_a_database_that_is_silent_while_the_store_looks_for_its_tables_is_given_up(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(connection: psycopg.Connection[Any], *_: object) -> bool:
            connection.execute("SELECT pg_sleep(60)")
            return True

        engine = postgres_engine.PostgresEngine(url, "mqtt_agent", 0, silent_for=0.2)
        monkeypatch.setattr(postgres_engine, "is_present", never)
        with pytest.raises(StoreError):
            await soon(asyncio.to_thread(engine.execute, postgres_engine.Statement(b"SELECT 1")))

    @pytest.mark.long
    async def test_a_long_transaction_whose_database_goes_on_is_not_given_up(self, url: str) -> None:
        engine = postgres_engine.PostgresEngine(url, "mqtt_agent", 5, silent_for=2)
        steps = [postgres_engine.Statement(b"SELECT pg_sleep(0.125), %s::int", (number,)) for number in range(32)]
        assert len(await soon(asyncio.to_thread(engine.execute, *steps), 60)) == 32
        engine.close()

    async def test_each_sign_of_life_of_the_database_is_noted(self) -> None:
        heard: list[int] = []

        def steps() -> Any:
            got = [(yield 1), (yield 2), (yield 3)]
            assert got == [7, 0, 7]
            return "result"

        told = postgres_engine._told(steps(), lambda: heard.append(1))  # pyright: ignore[reportPrivateUsage]
        assert next(told) == 1
        assert [told.send(7), told.send(0)] == [2, 3]
        with pytest.raises(StopIteration, match="result"):
            told.send(7)
        assert len(heard) == 2

    @pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
    async def test_a_forked_child_opens_the_store_anew_and_the_parent_goes_on(self, url: str) -> None:
        program = """
import asyncio, os, sys
from mqtt_agent.agents.store import PostgresStore, TaskKey, TaskRecord

store = PostgresStore(sys.argv[1])
def record(name):
    return TaskRecord(TaskKey("a", "received", name), "p", {"task_id": name}, "0")
async def child():
    async with store:
        assert (await store.add(record("of the child")))[1]
loop = asyncio.new_event_loop()
async def main():
    await store.open()
    await store.add(record("before"))
loop.run_until_complete(main())
pid = os.fork()
if pid == 0:
    asyncio.run(child())
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
async def rest():
    assert (await store.add(record("after")))[1]
    print(*sorted(each.task_id for each in await store.find("a", "received")), sep=",")
    await store.close()
loop.run_until_complete(rest())
"""
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-c", program, url], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, errors = await soon(process.communicate(), 100)
        assert (process.returncode, out.decode()) == (0, "after,before,of the child\n"), errors.decode()


def test_a_record_of_the_store_is_the_record_of_the_contract() -> None:
    """Guards the columns: a field of a record that PostgreSQL does not keep would be lost."""
    from mqtt_agent.agents.store.rows import to_row

    for name in to_row(TaskRecord(TaskKey("a", "received", "1"), None, {}, ""))._fields:
        assert f"            {name} " in MIGRATIONS[0][0]
