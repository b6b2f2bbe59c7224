"""Password hashes as Mosquitto keeps them: PBKDF2 with SHA-512."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping

from mqtt_agent.errors import RosterError

__all__ = ["ITERATIONS", "hashed", "hashed_of", "read_passwords"]

ITERATIONS: int = 10_000
"""Rounds of PBKDF2 for each password. Mosquitto does this work at every connect, on its only thread (some ms)."""


def hashed(password: str) -> tuple[str, str]:
    """A new salt and the hash of a password, both in base64."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS, 64)
    return base64.b64encode(salt).decode(), base64.b64encode(digest).decode()


def hashed_of(user: str, passwords: Mapping[str, str]) -> tuple[str, str]:
    """A new salt and the hash of a user's password; see :func:`hashed`.

    Raises:
        RosterError: The user has no password.
    """
    if user not in passwords:
        raise RosterError(f"there is no password for {user!r}; add a line {user}:PASSWORD")
    return hashed(passwords[user])


def read_passwords(text: str, source: str = "the password file") -> dict[str, str]:
    """Read lines of the form ``user:password``. Empty lines and lines that begin with ``#`` are skipped.

    Raises:
        RosterError: A line has another form.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            user, colon, password = line.partition(":")
            if not colon or not user or not password:
                raise RosterError(f"{source}, line {number}: there is no user and password; write USER:PASSWORD")
            found[user] = password
    return found
