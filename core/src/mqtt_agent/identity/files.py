"""Writes files that must not be lost or cut off when a disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

__all__ = ["write_new_secret", "write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Write a text file. When this fails, for example because the disk is full, the file has what it had before.

    Where the system lets nobody replace the file, it is written in its place, and a full disk may cut it off. This is
    so for a file that is mounted into a container by itself, and in a folder that is not writable.

    Args:
        path: The file. Its rights and, where the system allows it, its owner stay.
        text: The whole text.

    Raises:
        OSError: The file cannot be written.
    """
    path = path.resolve()  # a link stays a link
    try:
        _replace(path, text)
    except OSError as error:
        if error.errno not in _IRREPLACEABLE or not path.exists():
            raise
        path.write_text(text, encoding="utf-8")


_IRREPLACEABLE = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)


def _replace(path: Path, text: str) -> None:
    before = path.stat() if path.exists() else None
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            os.chmod(temporary, before.st_mode & 0o7777)
            with contextlib.suppress(OSError, AttributeError):
                os.chown(temporary, before.st_uid, before.st_gid)
        else:
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def write_new_secret(path: Path, text: str) -> None:
    """Write a new file that only its owner may read. When this fails, there is no file.

    Args:
        path: The file, which does not exist yet.
        text: The whole text.

    Raises:
        FileExistsError: There is such a file.
        OSError: The file cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
