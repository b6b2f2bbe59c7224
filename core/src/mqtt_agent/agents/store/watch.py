"""Notices that the file of an open store was deleted or replaced. SQLite itself does not report this."""

from __future__ import annotations

import os
from pathlib import Path

from mqtt_agent.errors import StoreError

__all__ = ["FileWatch"]


class FileWatch:
    """Remembers which files an open store uses.

    After a file was deleted, SQLite still writes to it, and every commit succeeds. But nobody can open the file again,
    so all its tasks are lost when the process ends.

    Args:
        path: The path of the store's file, which is open.

    Raises:
        StoreError: The file cannot be found.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # SQLite follows a link, and puts the write-ahead log beside the file that the link names.
        self._log = f"{path.resolve()}-wal"
        self._file_id = self._id_of(path)
        self._log_id: tuple[int, int] | None = None

    def check(self) -> None:
        """Check that the paths still name the files that the store uses.

        Raises:
            StoreError: A file was deleted or replaced. When the file is moved back, the next check succeeds.
        """
        if self._id_of(self._path) != self._file_id:
            raise self._error("was replaced by another file")
        if self._log_id is None:
            if os.path.exists(self._log):
                self._log_id = self._id_of(self._log)
        elif self._id_of(self._log) != self._log_id:
            raise self._error("got another write-ahead log (-wal)")

    def _id_of(self, path: Path | str) -> tuple[int, int]:
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            what = "was deleted or moved" if path is self._path else "lost its write-ahead log (-wal)"
            raise self._error(what) from None
        except OSError as error:
            raise self._error(f"became unreachable ({error.strerror})") from error
        return stat.st_dev, stat.st_ino

    def _error(self, what: str) -> StoreError:
        return StoreError(
            f"task store {self._path} {what} while it was in use, so nothing is stored any more; move the file back "
            "with its -wal file, or stop the program, restore a copy of the file, and start the program again"
        )
