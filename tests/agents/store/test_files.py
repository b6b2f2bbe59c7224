"""What a store does with a file: it makes the file, migrates it, or leaves it unchanged."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent.agents.store import SqliteStore, TaskStore, database, default_store_path
from mqtt_agent.agents.store.database import APPLICATION_ID, MIGRATIONS
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState
from support import soon

from .conftest import AGENT, new_record

OPEN = """
import asyncio, os, sys
from mqtt_agent import SqliteStore
from mqtt_agent.errors import StoreError
if os.getuid() == 0:  # only now: a user without rights may not be able to read this program's packages
    os.setgroups([])
    os.setuid(65534)
try:
    asyncio.run(SqliteStore(sys.argv[1]).open())
except StoreError as error:
    print(error)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and open files differ")


async def add_many(store: TaskStore, count: int) -> None:
    for number in range(count):
        await soon(store.add(new_record(str(number), saved="x" * 500)))


async def make_good(path: Path) -> None:
    async with SqliteStore(path, synchronous="normal") as store:
        await add_many(store, 300)


def write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def write_and_crash(path: Path, *statements: str) -> None:
    """Run statements as a process does that dies before the write-ahead log is moved into the file."""
    work = path.with_name("work.db")
    if path.exists():
        path.rename(work)
    with closing(sqlite3.connect(work, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in statements:
            connection.execute(statement)
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{work}{suffix}", f"{path}{suffix}")
    for file in path.parent.glob("work.db*"):
        file.unlink()


def overwrite(path: Path, first_page: int) -> None:
    """Replace every third page by noise."""
    noise = random.Random(1)
    with path.open("r+b") as file:
        for page in range(first_page, path.stat().st_size // 4096, 3):
            file.seek(page * 4096)
            file.write(noise.randbytes(4096))


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        file.name: (file.read_bytes(), file.stat().st_mode, file.stat().st_mtime_ns)
        for file in folder.iterdir()
        if not file.name.endswith("-shm")
    }


async def refused(path: Path, words: str) -> None:
    """Opening the file fails with an error that says why, and leaves the file unchanged."""
    before = snapshot(path.parent)
    for _ in range(2):
        with pytest.raises(StoreError, match=words) as raised:
            await soon(SqliteStore(path).open())
        assert str(path) in str(raised.value)
    assert snapshot(path.parent) == before


class TestBadFiles:
    @pytest.mark.parametrize(
        "content",
        [b"x", b"a note of mine\n" * 1000, b"\0" * 8192, b"SQLite format 3", b"SQLite format 3\0" + b"\xff" * 5000],
        ids=["a byte", "text", "zeros", "no header", "header and noise"],
    )
    async def test_a_file_that_is_no_database(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        await refused(path, "is not an SQLite database and was left as it is; choose another path")

    async def test_a_database_of_another_application(self, path: Path) -> None:
        write(path, "CREATE TABLE accounts (owner TEXT)", "INSERT INTO accounts VALUES ('me')")
        await refused(path, "another application and was left as it is; choose another path")

    async def test_a_database_that_bears_the_mark_of_another_application(self, path: Path) -> None:
        write(path, "PRAGMA application_id = 42")
        await refused(path, "another application")

    @pytest.mark.parametrize("mode", ["wal", "delete", "persist"])
    async def test_a_database_of_another_application_in_any_mode(self, path: Path, mode: str) -> None:
        write(path, f"PRAGMA journal_mode = {mode}", "CREATE TABLE tasks (id)", "INSERT INTO tasks VALUES (1)")
        await refused(path, "another application")

    async def test_a_database_of_another_application_that_has_crashed(self, path: Path) -> None:
        write_and_crash(path, "CREATE TABLE tasks (id)", "INSERT INTO tasks VALUES (1)")
        await refused(path, "another application")

    async def test_a_file_of_a_newer_version(self, path: Path) -> None:
        await make_good(path)
        write(path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        await refused(path, "was made by a newer version of mqtt-agent.*left as it is; upgrade mqtt-agent")

    async def test_a_file_of_a_newer_version_that_has_crashed(self, path: Path) -> None:
        await make_good(path)
        write_and_crash(path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}", "DROP TABLE tasks")
        await refused(path, "newer version")

    @pytest.mark.parametrize("first_page", [1, 2, 3])
    async def test_a_file_with_damaged_pages(self, path: Path, first_page: int) -> None:
        await make_good(path)
        overwrite(path, first_page)
        await refused(path, "is damaged and was left as it is; move the file away.*recover")

    async def test_a_damaged_file_of_a_process_that_has_crashed(self, path: Path) -> None:
        await make_good(path)
        overwrite(path, 4)
        write_and_crash(path, "INSERT INTO sqlite_sequence VALUES ('other', 1)")
        await refused(path, "is damaged")

    async def test_a_file_that_was_cut_off(self, path: Path) -> None:
        await make_good(path)
        os.truncate(path, path.stat().st_size // 2)
        await refused(path, "is damaged")

    async def test_damage_in_a_file_too_large_to_read_through_is_told_when_it_is_met(self, path: Path) -> None:
        await make_good(path)
        overwrite(path, 8)
        async with SqliteStore(path, check_limit=0) as store:
            with pytest.raises(StoreError, match=r"tasks\.db is damaged"):
                await soon(store.find(AGENT, "received"))

    @pytest.mark.parametrize(
        "damage",
        ["state = 'gone'", "task = '{\"a'", "inputs = x'00ff'", "saved = '1 2'", "expires_at = 'soon'", "peer = x'00'"],
    )
    async def test_damage_in_one_task_is_told_when_it_is_met(self, path: Path, damage: str) -> None:
        async with SqliteStore(path) as store:
            await add_many(store, 2)
            write(path, f"UPDATE tasks SET {damage} WHERE task_id = '0'")
            with pytest.raises(StoreError, match="task '0' in the store is damaged"):
                await soon(store.get(new_record("0").key))
            assert await soon(store.get(new_record("1").key)) is not None

    async def test_damaged_tasks_are_left_out_of_a_search_and_logged_once(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with SqliteStore(path) as store:
            await add_many(store, 7)
            write(path, "UPDATE tasks SET task = '{' WHERE task_id IN ('0', '1', '2', '4', '6')")
            first = await soon(store.find(AGENT, "received", limit=1))
            assert [record.task_id for record in first] == ["3"]
            rest = await soon(store.find(AGENT, "received", after=first[-1].position, limit=2))
            assert [record.task_id for record in rest] == ["5"]
            assert [record.task_id for record in await soon(store.find(AGENT, "received"))] == ["3", "5"]
        left_out = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
        assert len(left_out) == 5
        assert "task '0' in the store is damaged" in left_out[0]

    @pytest.mark.parametrize("damage", ["state = 'gone'", "expires_at = 'soon'", "peer = x'00'", "reply_to = x'07'"])
    async def test_damaged_outlines_are_left_out_and_logged_once(
        self, path: Path, damage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with SqliteStore(path) as store:
            await add_many(store, 7)
            write(path, f"UPDATE tasks SET {damage} WHERE task_id IN ('0', '1', '2', '4', '6')")
            for _ in range(2):
                found = await soon(store.outlines(AGENT, "received", TaskState, limit=2))
                assert [each.task_id for each in found] == ["3", "5"]
        left_out = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
        assert len(left_out) == (0 if damage == "state = 'gone'" else 4)  # no search finds a state that does not exist

    async def test_a_folder(self, path: Path) -> None:
        path.mkdir()
        with pytest.raises(StoreError, match=r"tasks\.db is a folder; name a file in it"):
            await soon(SqliteStore(path).open())

    async def test_a_folder_with_a_typing_error_in_its_name_is_not_made(self, tmp_path: Path) -> None:
        (tmp_path / "agents").mkdir()
        (tmp_path / "other").mkdir()
        path = tmp_path / "agnets" / "writer" / "tasks.db"
        words = (
            f"there is no folder {tmp_path / 'agnets'}; did you mean {tmp_path / 'agents'}\\? If not, make the folder"
        )
        with pytest.raises(StoreError, match=words):
            await soon(SqliteStore(path).open())
        assert sorted(each.name for each in tmp_path.iterdir()) == ["agents", "other"]

    async def test_a_folder_that_is_missing(self, tmp_path: Path) -> None:
        words = f"there is no folder {tmp_path / 'a'}; make the folder, or choose another path"
        with pytest.raises(StoreError, match=words):
            await soon(SqliteStore(tmp_path / "a" / "b" / "tasks.db").open())
        assert list(tmp_path.iterdir()) == []

    async def test_a_file_where_a_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for place in (tmp_path / "file" / "tasks.db", tmp_path / "file" / "a" / "tasks.db"):
            with pytest.raises(StoreError, match=f"{tmp_path / 'file'} is a file and not a folder"):
                await soon(SqliteStore(place).open())

    @pytest.mark.parametrize("what", ["folder", "file"])
    def test_a_place_that_this_user_may_not_write(self, what: str) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755 if what == "folder" else 0o777)
            path = folder / "tasks.db"
            if what == "file":
                asyncio.run(make_good(path))
                path.chmod(0o444)
            said = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, check=False)
        assert f"task store {path} cannot be" in said.stdout, said
        assert "writable" in said.stdout or "check the permissions of the file and of its folder" in said.stdout

    async def test_a_pipe(self, path: Path) -> None:
        os.mkfifo(path)
        with pytest.raises(StoreError, match=r"tasks\.db is not a regular file"):
            await soon(SqliteStore(path).open())

    @pytest.mark.parametrize("name", ["file/tasks.db", "file/folder/tasks.db", "x" * 300, "nul\0"])
    async def test_a_place_where_no_file_can_be(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError) as raised:
            await soon(SqliteStore(tmp_path / name).open())
        assert str(tmp_path / name) in str(raised.value)
        assert [file.name for file in tmp_path.iterdir()] == ["file"]

    async def test_a_link_to_nowhere(self, path: Path, tmp_path: Path) -> None:
        path.symlink_to(tmp_path / "nowhere" / "tasks.db")
        with pytest.raises(StoreError, match=r"tasks\.db cannot be created .*choose another path"):
            await soon(SqliteStore(path).open())


class TestGoodFiles:
    async def test_odd_names_of_folders_are_no_problem(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b c?#%ü" / "tasks.db"
        path.parent.mkdir(parents=True)
        async with SqliteStore(path) as store:
            await add_many(store, 1)
        assert path.exists()

    async def test_only_the_default_folder_is_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home" / "state"))
        monkeypatch.setattr("sys.platform", "linux")
        path = default_store_path("a2a/v1", "writer")
        async with SqliteStore(path) as store:
            await add_many(store, 1)
        assert path.exists()

    async def test_only_the_user_may_read_the_files(self, path: Path) -> None:
        before = os.umask(0)
        try:
            async with SqliteStore(path) as store:
                await add_many(store, 1)
                modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        finally:
            os.umask(before)
        assert modes == {"tasks.db": 0o600, "tasks.db-wal": 0o600, "tasks.db-shm": 0o600}

    async def test_the_mode_that_a_file_has_is_kept(self, path: Path) -> None:
        await make_good(path)
        path.chmod(0o640)
        async with SqliteStore(path) as store:
            await add_many(store, 1)
        assert path.stat().st_mode & 0o777 == 0o640

    @pytest.mark.parametrize("statements", [[], ["PRAGMA journal_mode = WAL"]], ids=["empty", "a header only"])
    async def test_an_empty_file_is_taken(self, path: Path, statements: list[str]) -> None:
        path.touch()
        write(path, *statements)
        await make_good(path)

    async def test_a_link_is_followed(self, path: Path, tmp_path: Path) -> None:
        await make_good(tmp_path / "real.db")
        path.symlink_to(tmp_path / "real.db")
        async with SqliteStore(path) as store:
            assert len(await soon(store.find(AGENT, "received"))) == 300

    async def test_the_file_bears_our_mark(self, path: Path) -> None:
        await make_good(path)
        header = path.read_bytes()[:100]
        assert int.from_bytes(header[68:72], "big") == APPLICATION_ID
        assert int.from_bytes(header[60:64], "big") == len(MIGRATIONS)

    async def test_opening_and_closing_changes_nothing(self, path: Path) -> None:
        await make_good(path)
        before = path.read_bytes()
        async with SqliteStore(path) as store:
            await soon(store.find(AGENT, "received"))
        assert path.read_bytes() == before

    async def test_a_file_whose_maker_died_at_once_is_made_again(self, path: Path) -> None:
        work = path.with_name("work.db")
        with closing(sqlite3.connect(work, isolation_level=None)) as connection:
            connection.execute("PRAGMA cache_size = 1")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE tasks (id)")
            connection.executemany("INSERT INTO tasks VALUES (?)", [("x" * 5000,)] * 100)
            for suffix in ("", "-journal"):
                shutil.copyfile(f"{work}{suffix}", f"{path}{suffix}")
        assert path.stat().st_size > 0
        await make_good(path)


class TestVersions:
    @pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
    async def test_a_file_of_each_older_version_is_read(self, path: Path, version: int) -> None:
        """The tasks keep their places and values, and each received task belongs to its requester."""
        columns = (
            "position, agent, role, task_id, peer, task, digest, state, attempt, seq, saved, inputs, settled, "
            "cancel_requested, created_at, updated_at"
        )
        rows: list[tuple[Any, ...]] = [
            (1, AGENT, "received", "1", "planner", "{}", "a", "submitted", 0, 0, None, "[]", 0, 0, 1.5, 2.5),
            (3, AGENT, "received", "2", None, "{}", "b", "working", 2, 2000, '{"page": 3}', "[]", 0, 0, 1.5, 2.5),
            (7, AGENT, "delegated", "1", "drawer", "{}", "c", "completed", 0, 0, None, "[]", 1, 1, 1.5, 2.5),
        ]
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            for statement in (each for statements in MIGRATIONS[:version] for each in statements):
                connection.execute(statement)
            if version >= 3:  # the requester is part of the key
                columns += ", requester"
                rows = [(*row, (row[4] or "") if row[2] == "received" else "") for row in rows]
            statement = f"INSERT INTO tasks ({columns}) VALUES ({', '.join('?' * len(rows[0]))})"
            connection.executemany(statement, [*rows, (9, *rows[0][1:3], "gone", *rows[0][4:])])
            connection.execute("DELETE FROM tasks WHERE position = 9")
            connection.execute(f"PRAGMA user_version = {version}")
        async with SqliteStore(path) as store:
            received = await soon(store.find(AGENT, "received"))
            delegated = await soon(store.find(AGENT, "delegated"))
            assert [(each.position, each.task_id, each.key.requester, each.peer) for each in received] == [
                (1, "1", "planner", "planner"),
                (3, "2", "", None),
            ]
            assert (received[1].attempt, received[1].seq, received[1].saved) == (2, 2000, {"page": 3})
            assert [(each.position, each.key.requester, each.peer) for each in delegated] == [(7, "", "drawer")]
            assert (delegated[0].settled, delegated[0].cancel_requested, delegated[0].updated_at) == (True, True, 2.5)
            there, added = await soon(store.add(new_record("1", requester="planner")))
            assert (there.position, added) == (1, False)
            new, added = await soon(store.add(new_record("1", requester="stranger")))
            assert added
            assert new.position > 9  # the place of a removed task is not used again
            claimed = await soon(store.claim(AGENT))
            assert claimed is not None
            assert claimed.position == 1

    NEXT = ("ALTER TABLE tasks ADD COLUMN note TEXT", "UPDATE tasks SET note = 'upgraded'")

    @pytest.fixture
    def upgraded(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Add a migration, as a later version would."""
        return lambda *statements: monkeypatch.setattr(database, "MIGRATIONS", [*MIGRATIONS, statements])

    async def test_an_older_file_becomes_the_present_version_and_keeps_its_tasks(
        self, path: Path, upgraded: Callable[..., None]
    ) -> None:
        await make_good(path)
        upgraded(*self.NEXT)
        for _ in range(2):
            async with SqliteStore(path) as store:
                assert len(await soon(store.find(AGENT, "received"))) == 300
                assert await soon(store.claim(AGENT)) is not None
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT DISTINCT note FROM tasks").fetchall() == [("upgraded",)]
            assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)

    async def test_a_new_file_goes_through_all_steps(self, path: Path, upgraded: Callable[..., None]) -> None:
        upgraded(*self.NEXT)
        await make_good(path)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM tasks WHERE note IS NULL").fetchone() == (300,)

    async def test_the_version_before_refuses_an_upgraded_file(
        self, path: Path, upgraded: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upgraded(*self.NEXT)
        await make_good(path)
        monkeypatch.undo()
        await refused(path, "newer version")

    async def test_a_step_that_fails_leaves_the_file_as_it_was(self, path: Path, upgraded: Callable[..., None]) -> None:
        await make_good(path)
        upgraded(*self.NEXT, "INSERT INTO nowhere VALUES (1)")
        await refused(path, "nowhere")


async def test_a_file_that_another_process_makes_in_this_moment_is_not_taken_for_a_foreign_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "tasks.db", database._pragma  # pyright: ignore[reportPrivateUsage]
    path.touch(0o600)
    outcomes: list[str] = []

    def read_while_another_process_makes_the_file(connection: sqlite3.Connection, name: str) -> int:
        value = read(connection, name)
        if name == "application_id" and not outcomes:
            try:
                with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    other.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    for statement in (each for statements in MIGRATIONS for each in statements):
                        other.execute(statement)
                    other.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
                    other.execute("COMMIT")
                outcomes.append("made between the reads")
            except sqlite3.OperationalError:
                outcomes.append("must wait until all is read")
        return value

    monkeypatch.setattr(database, "_pragma", read_while_another_process_makes_the_file)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert database._is_ours(connection, path) is False  # pyright: ignore[reportPrivateUsage]
    assert outcomes == ["must wait until all is read"]
    async with SqliteStore(path) as store:
        await add_many(store, 1)
