"""Keeps the responses of a server, so that a repeated call gets its stored response and is not run again."""

from __future__ import annotations

import time
from collections import OrderedDict

__all__ = ["CallKey", "ReplayStore", "Request"]

CallKey = tuple[str, str, bool]
"""``(client, call_id, bound)``, which names a call. ``bound`` is whether the call arrived on a sender-bound topic."""
Request = tuple[str, bytes]
"""The tool's name, and the message of a call as JSON. A long message is replaced by a digest of its content."""


class ReplayStore:
    """The latest responses of a server, limited in number, age and size.

    Args:
        max_entries: How many responses to keep.
        max_age: Seconds to keep each response.
        max_bytes: How many bytes the responses may take together.

    Attributes:
        max_age: As given.
        forgotten: A call that the store does not know, and that was sent before this time, may have run already. Unix
            seconds.
    """

    def __init__(self, max_entries: int, max_age: float, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_entries = max_entries
        self.max_age: float = max_age
        self._max_bytes = max_bytes
        self._bytes = 0
        self.forgotten: float = 0.0
        self._entries: OrderedDict[CallKey, tuple[float, bytes, Request]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: CallKey, response: bytes, request: Request) -> None:
        """Keep the response to a call. The oldest responses are dropped when there are too many.

        Args:
            key: The name of the call.
            response: The response.
            request: The call, to recognize another call with the same id.
        """
        self._forget(key)
        now = time.monotonic()
        self._entries[key] = (now + self.max_age, response, request)
        self._bytes += _size(key, response, request)
        while self._entries:
            oldest, (expires, _, _) = next(iter(self._entries.items()))
            if expires > now and len(self._entries) <= self._max_entries and self._bytes <= self._max_bytes:
                break
            self.note_forgotten(time.time() - (now - expires) - self.max_age if expires > now else 0.0)
            self._forget(oldest)

    def note_forgotten(self, sent: float) -> None:
        """Note that a call has run, was sent not later than at this time, and is not kept.

        Args:
            sent: Unix seconds.
        """
        self.forgotten = max(self.forgotten, sent)

    def get(self, key: CallKey) -> tuple[bytes, Request] | None:
        """The response to a call, and the call; None when the store has no response, or has dropped it."""
        entry = self._live(key)
        return None if entry is None else entry[1:]

    def _live(self, key: CallKey) -> tuple[float, bytes, Request] | None:
        entry = self._entries.get(key)
        if entry is not None and entry[0] <= time.monotonic():
            self._forget(key)
            return None
        return entry

    def _forget(self, key: CallKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _size(key, entry[1], entry[2])


def _size(key: CallKey, response: bytes, request: Request) -> int:
    return len(key[0]) + len(key[1]) + len(response) + len(request[1])
