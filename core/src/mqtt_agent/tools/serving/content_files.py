"""The files in which a tool server keeps contents, and the list of them that survives the process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from mqtt_agent.errors import ToolError
from mqtt_agent.logs import logger_of
from mqtt_agent.wire.contents import CONTENT_CHANGED, CONTENT_GONE

__all__ = ["ContentFile", "FileIndex", "Owner", "Source", "opened", "pieces_of"]

logger: logging.Logger = logger_of(__name__)

Source = bytes | os.PathLike[str] | IO[bytes] | Iterable[bytes] | AsyncIterable[bytes]
"""Where the bytes of a content come from. A text is none of these: one that a model wrote must not name a file."""

_PIECE = 256 * 1024


@dataclass(frozen=True)
class Owner:
    """The client that may read a content.

    Attributes:
        client: The id of the client.
        proven: Whether a sender-bound topic or a signature says that the client is this one.
    """

    client: str
    proven: bool = False

    def is_same(self, asker: Owner) -> bool:
        """Whether ``asker`` is the owner, and proves its name as well as the owner did."""
        return asker.client == self.client and (asker.proven or not self.proven)


@dataclass(eq=False)
class ContentFile:
    """One content and its open file. Its methods may be called in any thread.

    Attributes:
        content_id: The id of the content.
        owner: The client that may read it.
        file: The open file.
        path: The path of the file; None for a temporary file without a name.
        foreign: Whether the file belongs to the handler, so that the server neither changes nor deletes it.
        stamp: Time of the last change and size of a foreign file, when it was shared.
        listed: The entry in the list of contents; None without one.
        size: Bytes of the content.
        sha256: SHA-256 of the content, in hexadecimal digits.
        used: Loop time at which the content was last read or was shared.
    """

    content_id: str
    owner: Owner
    file: IO[bytes]
    path: str | None = None
    foreign: bool = False
    stamp: tuple[int, int] | None = None
    listed: Path | None = None
    size: int = 0
    sha256: str = ""
    name: str | None = None
    mime_type: str | None = None
    used: float = 0.0
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def own_bytes(self) -> int:
        """Bytes that the content takes on the server's disk beside the handlers' own files."""
        return 0 if self.foreign else self.size

    @classmethod
    def new(cls, content_id: str, owner: Owner, index: FileIndex | None) -> ContentFile:
        """Make an empty file of the server's own. Without a list, it ends with the process, however that ends."""
        if index is None:
            return cls(content_id, owner, tempfile.TemporaryFile(prefix="mqtt-agent-"))
        path = index.path_of(content_id)
        return cls(content_id, owner, open(path, "w+b"), os.fspath(path))

    def write(self, piece: bytes) -> None:
        """Add bytes at the end."""
        self.size += self.file.write(piece)

    def flush(self) -> None:
        """Give all written bytes to the operating system, so that they outlive the process."""
        self.file.flush()

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes.

        Raises:
            ToolError: The content was dropped meanwhile, or a file of the handler's own has changed.
        """
        with self.guard:
            if self.file.closed:
                raise ToolError("the content was dropped while it was read: call the tool again", code=CONTENT_GONE)
            if self.foreign and _stamp(self.file) != self.stamp:
                what = f"the file of the content has changed since it was shared: {self.name}"
                raise ToolError(f"{what}. Call the tool again", code=CONTENT_CHANGED)
            self.file.seek(offset)
            if self.listed is not None:
                with contextlib.suppress(OSError):
                    os.utime(self.listed)  # the next process of the replica sees when the content was last read
            return self.file.read(length)

    def close(self) -> None:
        """Close the file and leave it where it is."""
        with self.guard:
            self.file.close()

    def remove(self) -> None:
        """Close the file, delete it unless it is the handler's own, and take it from the list."""
        self.close()
        for path in (self.listed, None if self.foreign or self.path is None else Path(self.path)):
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink()


def opened(content_id: str, owner: Owner, path: str) -> ContentFile:
    """Open a file of the handler's own, and compute its SHA-256.

    Raises:
        OSError: The file cannot be read.
    """
    path = os.path.abspath(path)
    file = open(path, "rb")  # noqa: SIM115
    try:
        digest, stamp = hashlib.sha256(), _stamp(file)
        while piece := file.read(_PIECE):
            digest.update(piece)
    except BaseException:
        file.close()
        raise
    sha256 = digest.hexdigest()
    return ContentFile(content_id, owner, file, path, True, stamp, size=stamp[1], sha256=sha256)


def pieces_of(source: bytes | IO[bytes] | Iterable[bytes]) -> Iterable[bytes]:
    """The bytes of a source, piece by piece."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return [bytes(source)]
    read = getattr(source, "read", None)
    if read is not None:
        return iter(lambda: read(_PIECE), b"")
    return source


class FileIndex:
    """The contents in a directory, with one JSON file for each of them.

    Args:
        directory: The directory. It is made when it is needed, with a folder for the replica.
        server: The id of the replica whose contents these are.
    """

    def __init__(self, directory: str | os.PathLike[str], server: str) -> None:
        self._directory = Path(directory) / quote(server, safe="")

    def path_of(self, content_id: str) -> Path:
        """The path of the file of a content."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._directory / f"{content_id}.content"

    def note(self, content: ContentFile) -> None:
        """Put a content on the list."""
        listed = self.path_of(content.content_id).with_suffix(".json")
        entry: dict[str, Any] = {"owner": asdict(content.owner)}
        for key in ("content_id", "path", "foreign", "stamp", "size", "sha256", "name", "mime_type"):
            entry[key] = getattr(content, key)
        unfinished = listed.with_suffix(".new")
        unfinished.write_text(json.dumps(entry), encoding="utf-8")
        unfinished.replace(listed)  # a process that is killed leaves a whole entry or none
        content.listed = listed

    def load(self, max_age: float) -> list[ContentFile]:
        """Open the contents of the list that can still be read. Delete the others, and what a killed process left.

        Args:
            max_age: Seconds since a content was shared or last read after which it is deleted.
        """
        if not self._directory.is_dir():
            return []
        loaded: list[ContentFile] = []
        for listed in sorted(self._directory.glob("*.json")):
            content = self._open(listed, max_age)
            if content is None:
                listed.unlink(missing_ok=True)
            else:
                loaded.append(content)
        known = {content.path for content in loaded}
        for left in [*self._directory.glob("*.content"), *self._directory.glob("*.new")]:
            if os.fspath(left) not in known:
                left.unlink(missing_ok=True)
        return loaded

    def _open(self, listed: Path, max_age: float) -> ContentFile | None:
        try:
            entry = json.loads(listed.read_text(encoding="utf-8"))
            entry.pop("shared", None)  # an earlier version has written it
            if time.time() - listed.stat().st_mtime > max_age:
                return None
            owner, stamp = Owner(**entry.pop("owner")), entry.pop("stamp")
            file = open(entry["path"], "rb")  # noqa: SIM115
            return ContentFile(owner=owner, file=file, stamp=stamp and tuple(stamp), listed=listed, **entry)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("the content of %s is dropped, because it cannot be read: %r", listed, error)
            return None


def _stamp(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_mtime_ns, status.st_size
