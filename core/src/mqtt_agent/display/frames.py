"""Finds the lines of the user's own code in a traceback."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from types import TracebackType

__all__ = ["code_of", "place_here", "place_of", "user_frames"]

_PACKAGES = ("mqtt_agent", "langchain_mqtt_agent", "autogen_mqtt_agent", "crewai_mqtt_agent", "mcp_mqtt_agent")
_STDLIB = sysconfig.get_paths()["stdlib"]
_LIBRARIES = (sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"])


def user_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """The frames of a traceback that are neither of MQTT.Agent, nor of Python, nor of an installed library."""
    return [frame for frame in _others_frames(trace) if not _is_installed(frame.filename)]


def place_of(error: BaseException) -> str:
    """Where an exception was raised, for example ``/home/ada/weather.py:12 in forecast``.

    Returns:
        The last line of the user's own code. Without such a line, the last line of an installed library. An empty text
        when the traceback has neither.
    """
    frames = user_frames(error.__traceback__) or _others_frames(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""


def place_here() -> str:
    """The line of the user's own code from which this function was called, directly or through other functions.

    Returns:
        The same form as :func:`place_of`. An empty text when no line is of the user's own code.
    """
    for frame, line in traceback.walk_stack(None):
        file = frame.f_code.co_filename
        if not _is_ours(frame.f_globals) and not _is_of_python(file) and not _is_installed(file):
            return f"{file}:{line} in {frame.f_code.co_name}"
    return ""


def code_of(frame: traceback.FrameSummary) -> str:
    """The line of code of a frame."""
    return linecache.getline(frame.filename, frame.lineno or 0).strip() or frame.line or ""


def _others_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """The frames that are neither of MQTT.Agent nor of Python."""
    found = [(frame, line) for frame, line in traceback.walk_tb(trace) if not _is_ours(frame.f_globals)]
    return [frame for frame in traceback.StackSummary.extract(iter(found)) if not _is_of_python(frame.filename)]


def _is_ours(module: dict[str, object]) -> bool:
    name = str(module.get("__package__") or module.get("__name__"))
    return name.split(".", 1)[0] in _PACKAGES


def _is_of_python(file: str) -> bool:
    return file.startswith("<frozen") or (file.startswith(_STDLIB) and not _is_installed(file))


def _is_installed(file: str) -> bool:
    return file.startswith(_LIBRARIES) or "site-packages" in file or "dist-packages" in file
