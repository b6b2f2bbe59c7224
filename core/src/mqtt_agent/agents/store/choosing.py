"""The store that a value for ``store=`` names."""

from __future__ import annotations

import os
import re

from mqtt_agent.agents.store.base import TaskStore
from mqtt_agent.agents.store.postgres import PostgresStore
from mqtt_agent.agents.store.sqlite import SqliteStore

__all__ = ["is_postgres_url", "store_at"]

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")


def is_postgres_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place is the URL of a PostgreSQL database, and not the path of a file."""
    return isinstance(place, str) and place.startswith(("postgresql://", "postgres://"))


def store_at(place: str | os.PathLike[str]) -> TaskStore:
    """Make the store for a place: the URL of a PostgreSQL database, or the path of an SQLite file.

    Raises:
        ImportError: The driver of the database is not installed.
        ValueError: The URL or the path is wrong.
    """
    if isinstance(place, str) and is_postgres_url(place):
        return PostgresStore(place)
    if isinstance(place, str) and (scheme := _SCHEME.match(place)):
        kind = scheme[1]
        raise ValueError(
            f"a store is the path of an SQLite file or a URL postgresql://USER@HOST/DATABASE, and not a URL {kind}://"
        )
    return SqliteStore(place)
