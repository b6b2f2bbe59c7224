"""Reads files of settings, and checks the addresses in them."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from mqtt_agent.adapting.bearers import is_loopback

__all__ = ["is_https", "read_strings"]


def read_strings(path: Path, known: Collection[str], needed: Collection[str] = ()) -> dict[str, str]:
    """Read a JSON object whose values are texts.

    Args:
        path: The file.
        known: The names that the object may have.
        needed: The names that the object must have.

    Raises:
        ValueError: The file has no such object.
        OSError: The file cannot be read.
    """
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in cast("Any", value).values()):
        raise ValueError(f"{path} must hold a JSON object of strings")
    given = cast("dict[str, str]", value)
    if missing := sorted(set(needed) - given.keys()):
        raise ValueError(f"{path} has no {', '.join(missing)}; known: {', '.join(sorted(known))}")
    if unknown := sorted(given.keys() - set(known)):
        raise ValueError(f"{path} has {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return given


def is_https(url: str) -> bool:
    """Whether nobody else can read what is exchanged with an address: https, or http on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
