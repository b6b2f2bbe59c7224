"""Audit: one line of JSON for each message that an endpoint accepts, refuses or sends."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from mqtt_agent.errors import AuditFailed
from mqtt_agent.logs import logger_of

__all__ = ["Audit"]

logger: logging.Logger = logger_of(__name__)


class Audit:
    """Keeps a line about each message of the endpoints that get it as ``audit=``.

    Example:
        >>> lines = []
        >>> audit = Audit(lines.append)
        >>> audit.write({"claimed": "agent-a", "outcome": "refused"})
        >>> lines
        [{'claimed': 'agent-a', 'outcome': 'refused'}]

    A line has these values; null means unknown:

    - ``time``: ISO 8601 in UTC.
    - ``endpoint``: the MQTT client id of the connection; ``direction``: ``in`` or ``out``.
    - ``claimed``: the name of the sender in the message.
    - ``proven`` and ``how``: the name that the ``signature`` proves; or the name in the sender-bound ``topic``, which
      the broker proves if it has the rules for such topics. ``key``: the id of the key of the signature.
    - ``topic``, and from it the ``kind``, such as ``call``, ``responses`` or ``inbox``, and ``of``: the tool or agent.
    - ``id``: the call id or the task id.
    - ``outcome``: ``accepted``, ``refused`` or ``sent``; ``reason``: why it was refused, or why nothing is proven.
    - ``revises``, only if the message was refused after its first line was written: the ``time`` of that line, which
      says ``accepted``. Such a line has the same ``endpoint``, ``topic`` and ``id``.
    - ``retained``, only if true; ``payload``, only with ``payloads=True``.

    The file is opened for appending, and opened again when it was moved or removed, so ``logrotate`` and other tools
    can rotate the file. Several processes of one computer may write to one file. The lines are written on the event
    loop, so the file should be on a local disk.

    An audit that cannot be written is told in the log once, and work goes on. When it can be written again, the number
    of the lines that are missing is written as a line of the kind ``gap``.

    Args:
        to: The path of the file, or a function that gets each line as a dict. The function must not block.
        required: Whether an endpoint ends its connection when a line cannot be written: then everything raises
            :class:`~mqtt_agent.errors.AuditFailed`, and no message is acknowledged or sent.
        payloads: Whether the lines have the payloads of the messages. They may hold secrets.

    Attributes:
        required: As given.
        payloads: As given.
    """

    def __init__(
        self,
        to: str | os.PathLike[str] | Callable[[dict[str, Any]], object],
        *,
        required: bool = False,
        payloads: bool = False,
    ) -> None:
        self._to: str | Callable[[dict[str, Any]], object] = to if callable(to) else os.fspath(to)
        self.required: bool = required
        self.payloads: bool = payloads
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._file: int | None = None
        self._inode: tuple[int, int] = (0, 0)
        self._missing = 0

    def __repr__(self) -> str:
        return f"<Audit to {self._to}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Audit) and self._meaning() == other._meaning()

    def __hash__(self) -> int:
        return hash(self._meaning())

    def _meaning(self) -> tuple[object, ...]:
        return self._to, self.required, self.payloads

    def __getstate__(self) -> dict[str, Any]:
        return {"_to": self._to, "required": self.required, "payloads": self.payloads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __deepcopy__(self, memo: dict[int, Any]) -> Audit:
        return self

    def write(self, line: dict[str, Any]) -> None:
        """Write one line.

        Args:
            line: The values by their names.

        Raises:
            AuditFailed: The line cannot be written, and the audit is required.
        """
        with self._lock:
            try:
                if self._missing:
                    self._put(_gap(self._missing))
                    logger.warning("the audit to %s is written again; %d lines are missing", self._to, self._missing)
                    self._missing = 0
                self._put(line)
            except Exception as error:  # the function may raise anything
                what = f"the audit cannot be written to {self._to}: {error or type(error).__name__}"
                if self.required:
                    raise AuditFailed(f"{what}; the endpoint ends, because the audit is required") from error
                if not self._missing:
                    logger.error("%s; work goes on without it", what)
                self._missing += 1

    def _put(self, line: dict[str, Any]) -> None:
        if not isinstance(self._to, str):
            self._to(line)
            return
        data = json.dumps(line, ensure_ascii=False).encode(errors="replace") + b"\n"
        file = self._opened(self._to)
        written = os.write(file, data)
        if written < len(data):
            os.write(file, b"\n")  # the next line begins at the beginning of a line
            raise OSError(f"only {written} of {len(data)} bytes were written")

    def _opened(self, path: str) -> int:
        """The open file. It is opened again when the path has become another file."""
        try:
            found = os.stat(path)
            inode = (found.st_dev, found.st_ino)
        except FileNotFoundError:
            inode = None
        if self._file is not None and inode != self._inode:
            os.close(self._file)
            self._file = None
        if self._file is None:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            opened = os.fstat(self._file)
            self._inode = (opened.st_dev, opened.st_ino)
        return self._file


def _gap(missing: int) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": now, "kind": "gap", "reason": f"{missing} lines before this line could not be written"}
