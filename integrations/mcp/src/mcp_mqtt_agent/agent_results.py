"""Turns what an agent answers into the result of ``tools/call``."""

from __future__ import annotations

from typing import Any

from mqtt_agent.adapting.content import Link, Media, Text, as_text, content_of, kind_of, to_mcp
from mqtt_agent.errors import TaskError
from mqtt_agent.wire import Artifact, Part, TaskResult

__all__ = ["failed", "result_of"]

_ANY_FILE = "application/octet-stream"


def result_of(response: TaskResult, peer: str) -> dict[str, Any]:
    """The result of a task that was completed: the agent's answer, and then the artifacts as further blocks.

    Args:
        response: The result message.
        peer: The agent that has done the task.
    """
    if response.message is not None:
        blocks = _blocks(response.message.all_parts)
    else:
        found = content_of(response.result)
        blocks = to_mcp(found) if found is not None else _texts(response.result)
    for each in response.artifacts or ():
        artifact = Artifact.read(each)
        about = {"mqtt-agent/artifact": artifact.name}
        blocks += [block | {"_meta": about} for block in _blocks(artifact.all_parts)]
    answer: dict[str, Any] = {"content": blocks, "_meta": _about(response.task_id, peer)}
    if isinstance(response.result, dict) and response.message is None:
        answer["structuredContent"] = response.result
    return answer


def failed(error: Exception) -> dict[str, Any]:
    """The result of a task that has no result."""
    answer: dict[str, Any] = {"content": _texts(str(error)), "isError": True}
    if isinstance(error, TaskError):
        if isinstance(error.data, dict):
            answer["structuredContent"] = error.data
        if error.task_id is not None:
            answer["_meta"] = _about(error.task_id, error.peer)
    return answer


def _about(task_id: str, peer: str | None) -> dict[str, Any]:
    return {"mqtt-agent/task": task_id, "mqtt-agent/agent": peer}


def _texts(value: Any) -> list[dict[str, Any]]:
    return [] if value is None else [{"type": "text", "text": as_text(value)}]


def _blocks(parts: list[Part]) -> list[dict[str, Any]]:
    return to_mcp([_block(part) for part in parts])


def _block(part: Part) -> Text | Media | Link:
    if part.text is not None:
        return Text(part.text)
    if part.raw is not None:
        uri = None if part.filename is None else f"file:///{part.filename}"
        return Media(kind_of(part.media_type), part.raw, part.media_type or _ANY_FILE, uri)
    if part.url is not None:
        return Link(kind_of(part.media_type), part.url, part.media_type)
    return Text(as_text(part.data))
