"""Reads the lines of peers over standard input and output, also those that the SDK cannot read."""

from __future__ import annotations

import contextlib
import json
import logging
from typing import Any, cast

import mcp_types as types
from mcp.shared.message import SessionMessage
from mqtt_agent.adapting.logs import logger_of

__all__ = ["LONGEST", "Lines", "error_for", "read_line"]

logger: logging.Logger = logger_of(__name__)

LONGEST: int = 64 * 1024 * 1024
"""The longest message that is read, in bytes."""


class Lines:
    """Puts the lines of a peer together.

    Args:
        too_long: What to log about a line that is longer than :data:`LONGEST`.
    """

    def __init__(self, too_long: str) -> None:
        self._too_long = too_long
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes.

        Returns:
            The lines that are whole now. Empty lines, and those that are too long, are left out.
        """
        whole: list[bytes] = []
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            if self._size + len(end) <= LONGEST:
                whole.append(b"".join((*self._parts, end)))
            self._parts, self._size = [], 0
        self._size += len(rest)
        if self._size <= LONGEST:
            self._parts.append(rest)
        elif self._parts:
            logger.warning("%s", self._too_long)
            self._parts = []
        return [line for line in whole if line.strip()]


def read_line(line: bytes) -> tuple[types.JSONRPCMessage | None, Any]:
    """Read a line.

    Python reads more than JSON is: half of a character such as an emoji, which programs in JavaScript write when they
    cut a text, and NaN. Bytes that are no UTF-8 are replaced.

    Returns:
        The message, or None; and if it is None, what the line holds instead, as far as that can be read.
    """
    adapter = types.jsonrpc_message_adapter
    with contextlib.suppress(ValueError):
        return adapter.validate_json(line, by_name=False), None
    try:
        value: Any = _whole(json.loads(line.decode(errors="replace")))
    except (ValueError, RecursionError):
        return None, None
    with contextlib.suppress(ValueError):
        return adapter.validate_python(value, by_name=False), None
    return None, value


def _whole(value: Any) -> Any:
    """A value without halves of characters."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in cast("dict[str, Any]", value).items()}
    return [_whole(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value


def error_for(value: Any, code: int, message: str) -> SessionMessage | None:
    """An error in the place of a message that cannot be read; None if the message has no id."""
    request_id: Any = cast("dict[str, Any]", value).get("id") if isinstance(value, dict) else None
    if not isinstance(request_id, (int, str)):
        return None
    error = types.ErrorData(code=code, message=message)
    return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=request_id, error=error))
