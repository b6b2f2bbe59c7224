"""The store that ``--store`` names, for verbs that only read."""

from __future__ import annotations

from pathlib import Path

from mqtt_agent.agents.store import PostgresStore, TaskStore
from mqtt_agent.agents.store.choosing import is_postgres_url, store_at
from mqtt_agent.cli.settings import UsageError

__all__ = ["store_to_read"]


def store_to_read(place: str) -> TaskStore:
    """The store of another program's agent. A missing file is not made, and neither are missing tables.

    Args:
        place: The path of an SQLite file, or the URL of a PostgreSQL database.

    Raises:
        UsageError: There is no such file, the URL is wrong, or the driver is not installed.
    """
    if not is_postgres_url(place) and not Path(place).is_file():
        raise UsageError(f"there is no file {place}")
    try:
        store = store_at(place)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from error
    if isinstance(store, PostgresStore):
        store.makes_tables = False
    return store
