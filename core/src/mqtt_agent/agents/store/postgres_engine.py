"""How a worker uses PostgreSQL: one connection, one transaction for each batch, and the way back after a failure."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg
from psycopg import conninfo
from typing_extensions import override

from mqtt_agent.agents.store.postgres_schema import is_present, prepare
from mqtt_agent.agents.store.postgres_sets import Statement, join
from mqtt_agent.agents.store.silence import Silence
from mqtt_agent.agents.store.worker import Engine, Job, Outcome
from mqtt_agent.aio.forks import in_child
from mqtt_agent.errors import StoreError

__all__ = ["PostgresEngine", "Statement", "label"]


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that tells whenever the database has answered, or has taken what was sent."""

    on_heard: Callable[[], None] | None = None

    @override
    def wait(self, gen: Any, *timeout: Any, **options: Any) -> Any:
        """Wait for the database, as psycopg does."""
        told = gen if self.on_heard is None else _told(gen, self.on_heard)
        return super().wait(told, *timeout, **options)


def _told(steps: Any, on_heard: Callable[[], None]) -> Generator[Any, Any, Any]:
    """A generator of psycopg, which is resumed with 0 when it has waited in vain, and else when the socket is ready."""
    ready: Any = None
    while True:
        try:
            wanted: Any = next(steps) if ready is None else steps.send(ready)
        except StopIteration as ended:
            return ended.value
        ready = yield wanted
        if ready:
            on_heard()


_DEFAULTS = {
    "client_encoding": "utf8",
    "connect_timeout": 5,
    "fallback_application_name": "mqtt-agent",
    "keepalives_idle": 10,  # a database whose machine has died is noticed after 20 s
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
    "target_session_attrs": "read-write",  # after a failover: the server that takes changes
}
"""Settings of the connection that a URL may change."""

# A pooler may give each transaction another session, so every setting ends with its transaction. The statements are
# written for their indexes, and the statistics of a young table would let PostgreSQL read the whole table instead: for
# one record, or to join it with a set of records.
_BEGIN = b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_SETTINGS = b"""SELECT set_config('lock_timeout', '20s', true), set_config('statement_timeout', '60s', true),
    set_config('idle_in_transaction_session_timeout', '30s', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
    set_config('enable_material', 'off', true),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
        ELSE current_setting('synchronous_commit') END, true)"""

_LOCK = b"SELECT pg_advisory_xact_lock(hashtextextended('mqtt-agent lock ' || %s, 0))"

SILENT_FOR = 90.0
"""Seconds after which a database that is silent in a transaction is given up. It ends each statement earlier."""
_MIGRATES_FOR = 3600.0
"""Seconds for which a database may be silent while it changes the tables: it may have to rewrite a large one."""
_FLUSHED = 8
"""After how many statements the database sends the results that it has: these show that it goes on."""

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 1.0
"""Seconds until the next attempt to connect."""
_ATTEMPTS = 5
"""How many times a statement is tried that PostgreSQL has canceled in favour of another transaction."""
_CONFLICTS = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_BAD_VALUES = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.NotSupportedError,
    psycopg.errors.ProgramLimitExceeded,
    ArithmeticError,
    TypeError,
    ValueError,
)

_inherited: list[Connection] = []
"""In a child process, the connections that were open at the fork. They belong to the parent process."""


def label(url: str) -> str:
    """The database that a URL names, without the password.

    Raises:
        ValueError: The URL is not a PostgreSQL URL.
    """
    try:
        found = conninfo.conninfo_to_dict(url)
        host, port = found.get("host") or found.get("hostaddr") or "localhost", found.get("port")
        [int(each) for each in str(port or 0).split(",")]
    except (psycopg.Error, ValueError):  # the message may contain the password
        raise ValueError(
            "this is not a PostgreSQL URL; write postgresql://USER:PASSWORD@HOST:5432/DATABASE, and write special "
            "characters of the password as %XX"
        ) from None
    return f"postgresql://{host}{f':{port}' if port else ''}/{found.get('dbname') or found.get('user') or ''}"


class PostgresEngine(Engine):
    """Runs statements on a PostgreSQL database.

    All statements of a batch go to the database at once, in one transaction, so a batch takes one round trip.
    Statements that differ only in their record are joined. When PostgreSQL refuses a statement, each statement of the
    batch runs again alone. When the connection is lost, nobody knows whether the transaction was committed. So its jobs
    fail, and the next batch makes a new connection.

    Statements are never prepared on the server: behind a pooler in transaction mode, a prepared statement of another
    client could run in the place of our own.

    Args:
        url: The URL of the database.
        schema: The schema of the tables.
        patience: How long a batch tries to connect, in seconds.
        make: Whether to make the tables, or to migrate older tables.
        silent_for: How many seconds the database may be silent in a transaction before its connection is given up;
            None for 90 s.
        lock_timeout: How many seconds a statement waits for a lock.
    """

    def __init__(
        self,
        url: str,
        schema: str,
        patience: float,
        *,
        make: bool = True,
        silent_for: float | None = None,
        lock_timeout: float = 20.0,
    ) -> None:
        self._name = label(url)
        given = conninfo.conninfo_to_dict(url)
        self._conninfo = conninfo.make_conninfo(url, **{k: v for k, v in _DEFAULTS.items() if k not in given})
        self._schema = schema
        self._patience = patience
        self._make = make
        self._silence = Silence(SILENT_FOR if silent_for is None else silent_for)
        self._settings = _SETTINGS.replace(b"20s", f"{lock_timeout * 1000:.0f}ms".encode())
        self._connection: Connection | None = None
        self._ending = threading.Event()
        in_child(self._after_fork)

    def _after_fork(self) -> None:
        if self._connection is not None:
            _inherited.append(self._connection)  # a connection that nobody refers to would be closed

    @override
    def open(self) -> None:
        return  # the first batch connects, and so does each batch after a failure

    @override
    def close(self) -> None:
        if self._connection is not None:
            self._give_up(self._connection)

    @override
    def hurry(self) -> None:
        self._ending.set()

    @override
    def run(self, batch: list[Job]) -> list[Outcome]:
        if len(batch) > 1:
            try:
                return self._transact(batch)
            except Exception as error:
                if not self._was_refused(error):
                    return [self._failed(job, error) for job in batch]
        return [self._run_alone(job) for job in batch]

    def execute(self, *statements: Statement) -> list[list[tuple[Any, ...]] | int]:
        """Run statements in one transaction, for a caller that has a thread of its own.

        Each statement sees what other transactions have committed before the statement began.

        Returns:
            For each statement its rows, or the number of rows that the statement has changed.

        Raises:
            StoreError: The database cannot be reached, or has refused a statement.
        """
        loop: Any = None
        try:
            outcomes = self._transact([Job(each, True, loop, loop) for each in statements])
        except Exception as error:
            raise self.translate(error) from error
        return [outcome.value for outcome in outcomes]

    def _run_alone(self, job: Job) -> Outcome:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._transact([job])[0]
            except Exception as error:
                if attempt == _ATTEMPTS or not isinstance(error, _CONFLICTS):
                    return self._failed(job, error)
        raise AssertionError("unreachable")

    def _was_refused(self, error: Exception) -> bool:
        """Whether the database or the driver has refused a statement: then nothing was changed."""
        return self._connection is not None and not isinstance(error, StoreError)

    def _transact(self, batch: list[Job]) -> list[Outcome]:
        connection = self._connect()
        with self._silence.ended(connection):
            return self._transact_on(connection, batch)

    def _transact_on(self, connection: Connection, batch: list[Job]) -> list[Outcome]:
        """Run a batch in one transaction.

        Raises:
            StoreError: There is no connection, or it was lost, and the transaction may have been committed.
            Exception: The database or the driver has refused a statement, and nothing was changed.
        """
        steps = join([job.work for job in batch])
        cursors: list[psycopg.Cursor[tuple[Any, ...]]] = []
        failure: Exception | None = None
        try:
            with connection.pipeline():  # its end is the only round trip
                try:
                    connection.execute(_BEGIN)
                    connection.execute(self._settings)
                    for lock in sorted({job.work.lock for job in batch if job.work.lock is not None}):
                        connection.execute(_LOCK, (lock,))
                        connection.pgconn.send_flush_request()  # it may have waited for a long time
                    for number, step in enumerate(steps, 1):
                        cursor = connection.cursor()
                        cursors.append(cursor.execute(step.sql, step.values))
                        if number % _FLUSHED == 0:
                            connection.pgconn.send_flush_request()
                    connection.execute(b"COMMIT")
                except Exception as error:
                    failure = error
        except Exception as error:  # a statement was refused, or the connection is lost
            failure = failure or error
        if failure is None:
            results = {
                place: result
                for step, cursor in zip(steps, cursors, strict=True)
                for place, result in step.share(_result(cursor))
            }
            return [Outcome(job, results[place]) for place, job in enumerate(batch)]
        if not self._roll_back(connection):
            raise self._error("has lost its connection, and the change may have been made", failure)
        if isinstance(failure, psycopg.errors.ReadOnlySqlTransaction):
            self._give_up(connection)  # the server has become a standby: look for the primary
        raise failure

    def _roll_back(self, connection: Connection) -> bool:
        """End a failed transaction. Returns whether the database has answered; else the connection is given up."""
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            self._give_up(connection)
            return False
        return True

    def _give_up(self, connection: Connection) -> None:
        self._connection = None
        with self._silence.closing():
            connection.close()

    def _connect(self) -> Connection:
        """The connection to the database. A new one is made when there is none, or when it was lost.

        Raises:
            StoreError: No connection could be made in time.
        """
        if self._connection is not None and not _is_lost(self._connection):
            return self._connection
        if self._connection is not None:
            self._give_up(self._connection)
        deadline, wait = time.monotonic() + self._patience, _FIRST_WAIT
        while True:
            try:
                self._connection = self._new_connection()
            except psycopg.Error as error:
                if _needs_a_person(error) or time.monotonic() + wait > deadline or self._ending.wait(wait):
                    raise self.translate(error) from error
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                return self._connection

    def _new_connection(self) -> Connection:
        connection = Connection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        connection.on_heard = self._silence.heard
        try:
            with self._silence.ended(connection):  # a proxy may log clients in although its server never answers
                connection.execute("SELECT 1")
                present = is_present(connection, self._schema, self._name)
            if not present:
                with self._silence.ended(connection, _MIGRATES_FOR):
                    prepare(connection, self._schema, self._name, make=self._make)
        except BaseException:
            connection.close()
            raise
        return connection

    def _failed(self, job: Job, error: Exception) -> Outcome:
        return Outcome(job, error=self.translate(error))

    @override
    def unusable(self) -> StoreError:
        return StoreError(f"task store {self._name} is not open; call open() first")

    @override
    def translate(self, error: BaseException) -> StoreError:
        if isinstance(error, StoreError):
            translated = StoreError(*error.args, permanent=error.permanent)
            translated.__cause__ = error.__cause__
            return translated
        advice = next((advice for words, advice in _ADVICE if words.search(str(error))), "failed")
        return self._error(advice, error, permanent=isinstance(error, _BAD_VALUES))

    def _error(self, what: str, cause: BaseException, *, permanent: bool = False) -> StoreError:
        text = " ".join(str(cause).split()) or type(cause).__name__
        error = StoreError(f"task store {self._name} {what}: {text}", permanent=permanent)
        error.__cause__ = cause
        return error


def _is_lost(connection: Connection) -> bool:
    """Whether the server has closed a connection since its last use, or is about to."""
    try:
        for _ in range(2):  # the first look may find only the server's last words
            connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.closed


def _result(cursor: psycopg.Cursor[tuple[Any, ...]]) -> list[tuple[Any, ...]] | int:
    # Not `description`: it makes an object for each column of each statement, which took a third of the thread's time.
    result = cursor.pgresult
    return cursor.fetchall() if result is not None and result.nfields else cursor.rowcount


def _needs_a_person(error: psycopg.Error) -> bool:
    """Whether it is useless to try again soon."""
    return any(words.search(str(error)) for words, _ in _FOR_PERSONS)


def _advice(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(words), advice) for words, advice in pairs)


_FOR_PERSONS = _advice(
    (
        'authentication failed|no password supplied|role ".*" does not exist|pg_hba.conf',
        "refuses the user; check the user and the password of the URL",
    ),
    ('database ".*" does not exist', "does not exist; make the database, for example with createdb"),
    ("permission denied|must be owner", "may not be used by this user; let the database's owner grant the rights"),
)
_ADVICE = _FOR_PERSONS + _advice(
    (
        "too many (clients|connections)|connection slots are reserved|no more connections allowed",
        "has no free connection; each process needs one, and each member of a pool two: allow more connections, use a "
        "pooler in transaction mode, or start fewer processes",
    ),
    (
        "read-only",
        "is read-only, because the server is a standby, or because default_transaction_read_only is on; name the "
        "primary server, or all servers, or turn that setting off (some providers turn it on when the disk is full)",
    ),
    (
        "connection failed|connection timeout|could not|refused|starting up|shutting down|closed|consuming input",
        "cannot be reached; check that the database runs, and check the URL",
    ),
    ("lock timeout|statement timeout", "waits for another session that keeps its transaction open; end the session"),
    ("No space left|disk full", "cannot be written: the disk of the database is full; free some space"),
)
