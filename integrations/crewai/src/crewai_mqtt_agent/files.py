"""The input files of a CrewAI task, for a peer on another host, which cannot read the files here."""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mqtt_agent.adapting.content import Link, Media, kind_of

if TYPE_CHECKING:
    from crewai import Task

__all__ = ["input_files"]

_ANY_TYPE = "application/octet-stream"


def input_files(task: Task, crew: Any) -> list[Media | Link]:
    """The files of a task and of its crew: bytes are read here, and an address is passed on.

    Raises:
        OSError: A file cannot be read.
        TypeError: A value is no file.
    """
    given: dict[str, Any] = {**(_files_of_crew(task, crew) or {}), **task.input_files}
    return [_read(name, value) for name, value in given.items()]


def _files_of_crew(task: Task, crew: Any) -> dict[str, Any] | None:
    """The files that were given to ``kickoff``. CrewAI keeps files only if ``crewai-files`` is installed."""
    try:
        import crewai_files as _  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    from crewai.utilities.file_store import get_all_files

    return None if crew is None else get_all_files(crew.id, task.id)


def _read(name: str, value: Any) -> Media | Link:
    url = getattr(getattr(value, "source", value), "url", value)
    if isinstance(url, str) and "://" in url:
        guessed = mimetypes.guess_type(url)[0]
        return Link(kind_of(guessed), url, guessed, name)
    if isinstance(value, (str, Path)):
        path = Path(value)
        mime_type = mimetypes.guess_type(path.name)[0] or _ANY_TYPE
        return Media(kind_of(mime_type), _encoded(path.read_bytes()), mime_type, name=path.name)
    read = getattr(value, "read", None)
    content = value if isinstance(value, bytes) else read() if read is not None else None
    if not isinstance(content, bytes):
        raise TypeError(f"the input file {name!r} has the type {type(value).__name__}, and is no file, path or address")
    filename = getattr(value, "filename", None) or name
    mime_type = getattr(value, "content_type", None) or mimetypes.guess_type(filename)[0] or _ANY_TYPE
    return Media(kind_of(mime_type), _encoded(content), mime_type, name=filename)


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
