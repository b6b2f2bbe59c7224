"""The calls and tasks of a namespace, as far as they can be seen in its messages."""

from __future__ import annotations

import contextlib
import json
import time
from collections import OrderedDict
from typing import Any, cast

from mqtt_agent.display.html import one_line
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.transport import InboundMessage

__all__ = ["Work", "short"]

_KEPT = 300
_EVENTS = 100
_LONGEST = 300
_READ = 1024 * 1024


def short(value: object) -> str:
    """A peer's text or JSON value in one line of limited length."""
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _LONGEST)


class Work:
    """Follows calls and tasks.

    Args:
        payloads: Whether arguments, prompts, questions and results are kept. They may hold secrets.

    Attributes:
        calls: The latest calls, by call id.
        tasks: The latest tasks, by task id.
    """

    def __init__(self, payloads: bool) -> None:
        self.calls: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.tasks: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._payloads = payloads

    def take(self, levels: list[str], message: InboundMessage) -> None:
        """Add a message.

        Args:
            levels: The levels of its topic, without the namespace.
            message: The message.
        """
        if len(message.payload) > _READ:
            return
        with contextlib.suppress(ValueError, RecursionError, OverflowError):  # a hostile message: it changes nothing
            read: Any = json.loads(message.payload)
            data = cast("dict[str, Any]", read) if isinstance(read, dict) else {}
            if levels[0] == "mcp":
                self._take_call(levels, data)
            elif isinstance(data.get("task_id"), str):
                self._take_task(levels, data)

    def _take_call(self, levels: list[str], data: dict[str, Any]) -> None:
        call_id = data.get("call_id")
        if not isinstance(call_id, str) or len(levels) < 4:
            return
        if levels[1] == "tools" and levels[3] == "call":
            call = _kept(self.calls, call_id)
            call.update(tool=levels[2], client=short(data.get("client", "")), state="working", begun=time.time())
            if self._payloads:
                call["arguments"] = short(data.get("arguments"))
        elif call_id in self.calls and levels[3] == "cancel":
            self.calls[call_id]["state"] = "canceling"
        elif call_id in self.calls and "stream" in levels:
            self.calls[call_id]["partials"] = self.calls[call_id].get("partials", 0) + 1
        elif call_id in self.calls and levels[3] == "responses":
            call = self.calls[call_id]
            call.update(state="failed" if data.get("error") else "completed", server=short(data.get("server", "")))
            call["seconds"] = time.time() - call["begun"]
            if isinstance(data.get("error"), dict):
                call["error"] = short(data["error"].get("type", ""))
            if self._payloads:
                call["result"] = short(data.get("error") or data.get("result"))

    def _take_task(self, levels: list[str], data: dict[str, Any]) -> None:
        kind = levels[2] if len(levels) > 2 else ""
        task_id: str = data["task_id"]
        if task_id.startswith(MARKER_PREFIX) or kind not in ("inbox", "events", "results", "result", "control"):
            return
        if kind == "control" and task_id not in self.tasks:
            return
        task = _kept(self.tasks, task_id)
        if kind == "inbox":
            task.update(to=levels[1], sender=short(data.get("from", "")))
            task.setdefault("state", "submitted")
            if self._payloads:
                task["prompt"] = short(data.get("prompt", ""))
        elif kind == "control":
            _note(task, short(data.get("action", "")), "")
        elif kind == "events":
            self._take_event(task, data)
        else:
            task["state"] = short(data.get("status", ""))
            _note(task, task["state"], short(data.get("result") or data.get("error") or "") if self._payloads else "")

    def _take_event(self, task: dict[str, Any], data: dict[str, Any]) -> None:
        if isinstance(data.get("status"), str):
            task["state"] = short(data["status"])
        if isinstance(data.get("progress"), (int, float)):
            total = data.get("total")
            task["progress"] = f"{data['progress']:g}" + (f"/{total:g}" if isinstance(total, (int, float)) else "")
        said = short(data.get("content") or "") if self._payloads else ""
        _note(task, short(data.get("status") or data.get("type") or "event"), said)


def _kept(where: OrderedDict[str, dict[str, Any]], key: str) -> dict[str, Any]:
    found = where.setdefault(key, {"id": short(key), "begun": time.time()})
    where.move_to_end(key)
    if len(where) > _KEPT:
        where.popitem(last=False)
    return found


def _note(task: dict[str, Any], what: str, said: str) -> None:
    events: list[dict[str, Any]] = task.setdefault("events", [])
    events.append({"time": time.time(), "what": what, "said": said})
    del events[:-_EVENTS]
