"""The SQLite file: its tables, the migration of older files, the check for damage, and what SQLite's errors mean."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from mqtt_agent.agents.store.paths import make_folder
from mqtt_agent.aio.forks import in_child
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState

__all__ = ["APPLICATION_ID", "MIGRATIONS", "OVER", "Synchronous", "connect", "translate"]

Synchronous = Literal["full", "normal"]

APPLICATION_ID = int.from_bytes(b"MQTA", "big")
"""Marks the file of a task store, in SQLite's header."""

OVER = "({})".format(" OR ".join(f"state = '{state}'" for state in TaskState if state.terminal))
"""The condition of the index ``tasks_over``. SQLite uses the index only for a statement with exactly this condition.

With IN in place of OR, SQLite would make a table of the states for each row that it writes.
"""

MIGRATIONS: list[Sequence[str]] = [
    (
        """CREATE TABLE tasks (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            agent TEXT NOT NULL,
            role TEXT NOT NULL,
            task_id TEXT NOT NULL,
            peer TEXT,
            task TEXT NOT NULL,
            digest TEXT NOT NULL,
            state TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            saved TEXT,
            inputs TEXT NOT NULL,
            result TEXT,
            reply_to TEXT,
            settled INTEGER NOT NULL,
            cancel_requested INTEGER NOT NULL,
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL,
            expires_at REAL,
            UNIQUE (agent, role, task_id)
        )""",
        "CREATE INDEX tasks_by_state ON tasks (agent, role, state)",
        "CREATE INDEX tasks_by_peer ON tasks (agent, role, peer, state) WHERE peer IS NOT NULL",
        "CREATE INDEX tasks_unsettled ON tasks (agent, role, state) WHERE settled = 0",
        "CREATE INDEX tasks_over ON tasks (updated_at) WHERE state IN ('completed', 'failed', 'canceled', 'rejected')",
    ),
    (  # each agent removes its own old tasks
        "DROP INDEX tasks_over",
        "CREATE INDEX tasks_over ON tasks (agent, updated_at)"
        " WHERE state IN ('completed', 'failed', 'canceled', 'rejected')",
    ),
    (  # the ids of received tasks belong to their requesters: SQLite can change a key only by making a new table
        "ALTER TABLE tasks RENAME TO old_tasks",
        """CREATE TABLE tasks (
            position INTEGER PRIMARY KEY AUTOINCREMENT,
            agent TEXT NOT NULL,
            role TEXT NOT NULL,
            task_id TEXT NOT NULL,
            requester TEXT NOT NULL,
            peer TEXT,
            task TEXT NOT NULL,
            digest TEXT NOT NULL,
            state TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            saved TEXT,
            inputs TEXT NOT NULL,
            result TEXT,
            reply_to TEXT,
            settled INTEGER NOT NULL,
            cancel_requested INTEGER NOT NULL,
            created_at REAL NOT NULL,
            updated_at REAL NOT NULL,
            expires_at REAL,
            UNIQUE (agent, role, task_id, requester)
        )""",
        """INSERT INTO tasks SELECT
            position, agent, role, task_id, CASE role WHEN 'received' THEN coalesce(peer, '') ELSE '' END, peer, task,
            digest, state, attempt, seq, saved, inputs, result, reply_to, settled, cancel_requested, created_at,
            updated_at, expires_at
        FROM old_tasks ORDER BY position""",
        # The number of a removed record is not used again.
        "DELETE FROM sqlite_sequence WHERE name = 'tasks'",
        "UPDATE sqlite_sequence SET name = 'tasks' WHERE name = 'old_tasks'",
        "DROP TABLE old_tasks",
        "CREATE INDEX tasks_by_state ON tasks (agent, role, state)",
        "CREATE INDEX tasks_by_peer ON tasks (agent, role, peer, state) WHERE peer IS NOT NULL",
        "CREATE INDEX tasks_unsettled ON tasks (agent, role, state) WHERE settled = 0",
        "CREATE INDEX tasks_over ON tasks (agent, updated_at)"
        " WHERE state IN ('completed', 'failed', 'canceled', 'rejected')",
    ),
    (  # less work for each task: an index has only the rows that are searched with it, and OR is cheaper than IN
        "DROP INDEX tasks_by_peer",
        "CREATE INDEX tasks_by_peer ON tasks (agent, peer, state) WHERE role = 'delegated' AND peer IS NOT NULL",
        "DROP INDEX tasks_unsettled",
        "CREATE INDEX tasks_unsettled ON tasks (agent, role, state) WHERE settled = 0"
        " AND (state = 'completed' OR state = 'failed' OR state = 'canceled' OR state = 'rejected')",
        "DROP INDEX tasks_over",
        "CREATE INDEX tasks_over ON tasks (agent, updated_at)"
        " WHERE (state = 'completed' OR state = 'failed' OR state = 'canceled' OR state = 'rejected')",
    ),
]
"""For each version of the file, the statements that make the next version. ``user_version`` is the file's version."""

_MAX_CHECKS = 20
"""How many times a file that looks damaged is checked at most."""
_RETRY_AFTER = 0.05
"""Seconds until the next check, or until the next attempt to open the file."""
_JOURNAL_LIMIT = 64 * 1024 * 1024
"""The size to which SQLite cuts the write-ahead log, in bytes."""

# On POSIX systems, a process that closes a descriptor of a file loses all its locks on the file. So while a thread
# opens the file, no other thread may open and close the file.
_opening = threading.Lock()

_inherited: list[tuple[tuple[int, int], sqlite3.Connection]] = []
"""In a child process, the connections that were open at the fork, each with the device and inode of its file.

SQLite forbids using them, closing them, and opening their files again: its locks belong to the parent process.
"""


@in_child
def _renew_lock() -> None:
    global _opening
    _opening = threading.Lock()


def file_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Device and inode of the file of a connection."""
    found = os.stat(connection.execute("PRAGMA database_list").fetchone()[2])
    return found.st_dev, found.st_ino


def leave_to_parent(file: tuple[int, int], connection: sqlite3.Connection) -> None:
    """Note in a child process that a connection was open at the fork. See :func:`file_of` for the file."""
    _inherited.append((file, connection))  # a connection that nobody refers to would be closed


def check_process(path: Path) -> None:
    """Refuse a file that was open before ``os.fork()``, in the child process.

    Raises:
        StoreError: The file belongs to the parent process.
    """
    if not _inherited or not path.exists():
        return
    found = path.stat()
    if any(file == (found.st_dev, found.st_ino) for file, _ in _inherited):
        raise StoreError(
            f"task store {path} was open before os.fork(), and SQLite forbids opening it in the child process too: "
            "stop the agent before the fork, or give the agent of the child a store of its own"
        )


def connect(path: Path, *, synchronous: Synchronous, busy_timeout: float, check_limit: int) -> sqlite3.Connection:
    """Open a file. A missing file is made, but not its folder. An older file is migrated to the present version.

    Args:
        path: The absolute path of the file.
        synchronous: ``full``: a commit waits for the disk. ``normal``: a power cut may lose the latest commits.
        busy_timeout: How long to wait for other processes, in seconds.
        check_limit: The size of the largest file that is checked for damage, in bytes.

    Raises:
        StoreError: The file is not the file of a task store, is damaged, or cannot be used. The file is left unchanged.
    """
    check_process(path)
    try:
        with _opening:
            _make(path)
            _inspect(path, check_limit)
            return _open(path, synchronous, busy_timeout)
    except (sqlite3.Error, OSError, ValueError) as error:
        raise translate(error, path) from error


def translate(error: BaseException, path: Path) -> StoreError:
    """Make a :class:`StoreError` from an error of SQLite or of the file system. Its message says what to do next."""
    if isinstance(error, StoreError):
        copy = StoreError(*error.args, permanent=error.permanent)
        copy.__cause__ = error.__cause__
        return copy
    text = str(error)
    advice = next((advice for words, advice in _ADVICE if words in text), f"failed: {text or type(error).__name__}")
    if isinstance(error, OSError):
        advice = f"cannot be created ({error.strerror}); choose another path, or make its folder writable"
    translated = StoreError(f"task store {path} {advice}")
    translated.__cause__ = error
    return translated


_ADVICE = (
    ("file is not a database", "is not an SQLite database and was left as it is; choose another path"),
    (
        "malformed",
        "is damaged and was left as it is; move the file away to start with an empty store, restore a copy, "
        "or save the readable data with: sqlite3 FILE .recover",
    ),
    ("disk is full", "cannot be written: the disk is full; free some space. Acknowledged tasks are kept"),
    ("disk I/O error", "cannot be read or written: the disk is full, over a quota, or failing; check it"),
    ("locked", "is locked by another process; end the program that locks the file, or raise busy_timeout"),
    ("readonly", "cannot be written; check the permissions of the file and of its folder"),
    ("unable to open", "cannot be opened; check the permissions of the file and of its folder"),
    ("it is closed", "is not open; call open() first"),
)


def _make(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"task store {path} is a folder; name a file in it")
    if path.exists():
        if not path.is_file():
            raise StoreError(f"task store {path} is not a regular file; choose another path")
        if not os.access(path, os.W_OK):  # SQLite would open the file, and fail at the first change
            raise sqlite3.OperationalError("readonly")
        return
    make_folder(path)
    try:
        # Only the user may read the file, because tasks may hold secrets. SQLite gives its other files the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:  # another process was faster
        return


def _inspect(path: Path, check_limit: int) -> None:
    """Check a file without changing it.

    The check takes no lock. So another process may write meanwhile, and a good file may look damaged. A file counts as
    damaged only when two checks fail, and no process has written the file between them.
    """
    seen: object = None
    for _ in range(_MAX_CHECKS):
        try:
            return _check(path, check_limit)
        except (StoreError, sqlite3.Error):
            now = [_stat(path, suffix) for suffix in ("", "-wal", "-journal")]
            if now == seen:
                raise
            seen = now
            time.sleep(_RETRY_AFTER)
    return _check(path, check_limit)


def _check(path: Path, check_limit: int) -> None:
    if (_stat(path, "-journal") or (0,))[0]:
        return  # a process died while it made the file: SQLite must roll back before the file can be read
    size = path.stat().st_size
    # SQLite treats a file of one byte as empty, because SQLite itself makes such files on macOS.
    if size == 1 and sys.platform != "darwin":
        raise sqlite3.DatabaseError("file is not a database")
    mode = "mode=ro" if (_stat(path, "-wal") or (0,))[0] else "immutable=1"
    with closing(sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, isolation_level=None)) as connection:
        if _is_ours(connection, path) and size <= check_limit:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"malformed: {verdict}")


def _stat(path: Path, suffix: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(f"{path}{suffix}")
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is the file of a task store; False when the file is empty.

    Raises:
        StoreError: The file belongs to another application, or was made by a newer version.
    """
    application, version, is_empty = _read_header(connection)
    if is_empty:
        return False
    if application != APPLICATION_ID:
        raise StoreError(
            f"task store {path} is the database of another application and was left as it is; choose another path"
        )
    if version > len(MIGRATIONS):
        raise StoreError(
            f"task store {path} was made by a newer version of mqtt-agent (its format is {version}, this version knows "
            f"{len(MIGRATIONS)}) and was left as it is; upgrade mqtt-agent, or choose another path"
        )
    return True


def _read_header(connection: sqlite3.Connection) -> tuple[int, int, bool]:
    """The application id, the version, and whether the file is empty: all three from one moment."""
    # Without a transaction, another process could make the file between the reads, and the file would look foreign.
    own = not connection.in_transaction
    if own:
        connection.execute("BEGIN")
    try:
        application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        has_tables = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None
    finally:
        if own:
            connection.execute("ROLLBACK")
    return application, version, application == version == 0 and not has_tables


def _open(path: Path, synchronous: Synchronous, busy_timeout: float) -> sqlite3.Connection:
    deadline = time.monotonic() + busy_timeout
    while True:
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, timeout=busy_timeout, isolation_level=None, cached_statements=256
        )
        try:
            connection.execute(f"PRAGMA synchronous = {'FULL' if synchronous == 'full' else 'NORMAL'}")
            connection.execute(f"PRAGMA fullfsync = {int(synchronous == 'full')}")
            connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")
            _migrate(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            connection.close()
            # When several processes open a file at once, SQLite does not always wait, in order to avoid a deadlock.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_AFTER)
        except BaseException:
            connection.close()
            raise
        else:
            return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if _is_ours(connection, path) and _pragma(connection, "user_version") == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_ours(connection, path):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for statements in MIGRATIONS[_pragma(connection, "user_version") :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]
