"""How to reach the broker, and what of that may be written down."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

__all__ = ["without_password"]


def without_password(broker: str | None) -> str | None:
    """A broker URL that can be stored: without user name and password."""
    if broker is None:
        return None
    parts = urlsplit(broker)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
