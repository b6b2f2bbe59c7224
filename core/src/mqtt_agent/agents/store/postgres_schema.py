"""The tables of a store in PostgreSQL, the migration of older tables, and the lock that lets one process migrate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState

if TYPE_CHECKING:
    import psycopg

__all__ = ["MIGRATIONS", "OVER", "prepare"]

OVER = "state IN ({})".format(", ".join(f"'{state}'" for state in TaskState if state.terminal))
"""The condition of the index ``tasks_over``. A statement uses the index only with exactly this condition."""

MIGRATIONS: list[Sequence[str]] = [
    (
        # Names and JSON are text: COLLATE "C" tells names apart byte by byte, and jsonb refuses the character \u0000.
        # Each index begins with another column, so that PostgreSQL chooses the right one also without statistics.
        # There are few indexes, because each change of a state writes to every index.
        # Each change of a state makes a new version of its row, so the table is vacuumed and analyzed early.
        """CREATE TABLE {schema}.tasks (
            position bigint GENERATED ALWAYS AS IDENTITY,
            agent text COLLATE "C" NOT NULL,
            role text COLLATE "C" NOT NULL,
            task_id text COLLATE "C" NOT NULL,
            requester text COLLATE "C" NOT NULL DEFAULT '',
            peer text COLLATE "C",
            task text NOT NULL,
            digest text COLLATE "C" NOT NULL,
            state text COLLATE "C" NOT NULL,
            attempt bigint NOT NULL,
            seq bigint NOT NULL,
            saved text,
            inputs text NOT NULL,
            result text,
            reply_to text COLLATE "C",
            settled boolean NOT NULL,
            cancel_requested boolean NOT NULL,
            created_at double precision NOT NULL,
            updated_at double precision NOT NULL,
            expires_at double precision,
            PRIMARY KEY (task_id, requester, agent, role)
        ) WITH (
            autovacuum_vacuum_scale_factor = 0.02,
            autovacuum_vacuum_threshold = 500,
            autovacuum_analyze_scale_factor = 0.02,
            autovacuum_analyze_threshold = 500
        )""",
        "CREATE INDEX tasks_by_state ON {schema}.tasks (state, agent, role, position)",
        "CREATE INDEX tasks_unsettled ON {schema}.tasks (agent, role, state, position) WHERE NOT settled",
        "CREATE INDEX tasks_over ON {schema}.tasks (agent, updated_at, position)"
        " WHERE state IN ('completed', 'failed', 'canceled', 'rejected')",
    ),
    (
        # The members of pools. The task of a member that has no row any more is run again by another member.
        """CREATE TABLE {schema}.pools (
            agent text COLLATE "C" PRIMARY KEY,
            started text NOT NULL,
            epoch bigint NOT NULL
        )""",
        """CREATE TABLE {schema}.members (
            agent text COLLATE "C" NOT NULL,
            member text COLLATE "C" NOT NULL,
            joined timestamptz NOT NULL DEFAULT clock_timestamp(),
            lease_until timestamptz NOT NULL,
            PRIMARY KEY (agent, member)
        )""",
        # The member that has begun a task; and the task's context, if tasks of one context run one after the other. A
        # column with NULL for each row that is there changes no row.
        'ALTER TABLE {schema}.tasks ADD COLUMN member text COLLATE "C", ADD COLUMN context text COLLATE "C"',
        "CREATE INDEX tasks_by_context ON {schema}.tasks (context, agent, state, position) WHERE context IS NOT NULL",
    ),
]
"""For each version of the tables, the statements that make the next version. ``format.version`` is their version."""


def is_present(connection: psycopg.Connection[Any], schema: str, name: str) -> bool:
    """Whether the tables have the present version.

    Raises:
        StoreError: A newer version has made the tables, or they belong to another application.
        psycopg.Error: The database fails.
    """
    return _version(connection, schema, name) == len(MIGRATIONS)


def prepare(connection: psycopg.Connection[Any], schema: str, name: str, *, make: bool = True) -> None:
    """Make the tables, or migrate older tables to the present version. Tables of the present version are only read.

    A lock in the database lets one process migrate, and the others wait. The lock belongs to the transaction, so it
    also works behind a pooler, which may give each transaction another session.

    Args:
        connection: A connection in autocommit mode.
        schema: The schema of the tables.
        name: The store's name in messages.
        make: Whether to make or migrate tables. Otherwise they must have the present version.

    Raises:
        StoreError: A newer version has made the tables, they belong to another application, or the database cannot
            hold every text; or ``make`` is False, and there are no tables of the present version.
        psycopg.Error: The database fails.
    """
    found = _version(connection, schema, name)
    if found == len(MIGRATIONS):
        return
    if not make:
        raise StoreError(f"task store {name} {_reason(schema, found)}", permanent=True)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('mqtt-agent ' || %s, 0))", (schema,))
        version = _version(connection, schema, name)
        if version is None:
            _check_encoding(connection, name)
            _make_schema(connection, schema)
            version = 0
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement.format(schema=schema).encode())
        connection.execute(f"UPDATE {schema}.format SET version = %s".encode(), (len(MIGRATIONS),))


def _reason(schema: str, version: int | None) -> str:
    """Why tables are not ready for a program that only reads them."""
    if version is None:
        return f"has no tables in the schema {schema}, and none were made; check the URL, or start the agent first"
    return (
        f"was made by an older version of mqtt-agent (its format is {version}, this version has {len(MIGRATIONS)}) "
        "and was left as it is; start an agent of this version first, or use the older version of mqtt-agent to look"
    )


def _check_encoding(connection: psycopg.Connection[Any], name: str) -> None:
    ((encoding,),) = connection.execute("SHOW server_encoding").fetchall()
    if encoding not in ("UTF8", "SQL_ASCII"):
        raise StoreError(
            f"task store {name} has the encoding {encoding}, which does not have every character; make a database with "
            "ENCODING 'UTF8', and use the new database"
        )


def _make_schema(connection: psycopg.Connection[Any], schema: str) -> None:
    # Only the owner of the database may make a schema. A schema that is there may belong to another user.
    if connection.execute("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", (schema,)).fetchone() is None:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
    connection.execute(f"CREATE TABLE {schema}.format (version integer NOT NULL)".encode())
    connection.execute(f"INSERT INTO {schema}.format VALUES (0)".encode())


def _version(connection: psycopg.Connection[Any], schema: str, name: str) -> int | None:
    """The version of the tables; None when the schema has no tables.

    Raises:
        StoreError: A newer version has made the tables, or they belong to another application.
    """
    # Not to_regclass(): it may answer from a cache that does not know yet what another process has made meanwhile.
    query = "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = %s"
    tables = {table for (table,) in connection.execute(query, (schema,))}
    if "format" not in tables:
        if "tasks" in tables:
            raise StoreError(
                f"task store {name}: the schema {schema} has a table 'tasks' of another application, which was left as "
                "it is; choose another schema"
            )
        return None
    (version,) = connection.execute(f"SELECT version FROM {schema}.format".encode()).fetchone() or (0,)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"task store {name} was made by a newer version of mqtt-agent (its format is {version}, this version knows "
            f"{len(MIGRATIONS)}) and was left as it is; upgrade mqtt-agent, or choose another schema"
        )
    return version
