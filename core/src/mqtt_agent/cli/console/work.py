"""The calls and tasks of a namespace, as far as they can be seen in its messages."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from mqtt_agent.cli.output import printable
from mqtt_agent.display.html import one_line
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.transport import InboundMessage

__all__ = ["TERMINAL", "Item", "Load", "Work", "browser_json", "long", "short"]

_KEPT = 300
_FIRST, _EVENTS = 20, 200
"""How many events of an item are kept: the first ones, and all together."""
_LOADS = 5000
_LONGEST, _LONG = 300, 8000
_READ = 1024 * 1024
_MINUTE = 60.0
TERMINAL = ("completed", "failed", "rejected", "canceled")


def short(value: object) -> str:
    """A peer's text or JSON value in one line of limited length."""
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _LONGEST)


def long(value: object) -> str:
    """A peer's text or JSON value in several lines of limited length."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return printable(text if len(text) <= _LONG else text[:_LONG] + " …")


def browser_json(value: Any) -> str:
    """JSON for a browser: peers may send infinite numbers and NaN, which Python reads and browsers do not."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None))


@dataclass
class Item:
    """A call or a task.

    Attributes:
        row: What the list of calls or tasks shows.
        more: What only the item's own page shows: texts, the open question.
        events: What has happened, oldest first.
        left_out: How many events in the middle were dropped.
    """

    row: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    left_out: int = 0

    def note(self, source: str, target: str, what: str, said: str = "", *, fault: bool = False) -> dict[str, Any]:
        """Add an event: who has told whom what."""
        event = {"time": time.time(), "from": source, "to": target, "what": what, "said": said, "fault": fault}
        self.events.append(event)
        if len(self.events) > _EVENTS:
            del self.events[_FIRST]
            self.left_out += 1
        return event


@dataclass
class Load:
    """What one replica has done since the console was opened.

    Attributes:
        answered: How many calls the replica has answered.
        failed: How many of these answers were errors.
        seconds: How long the answered calls took together.
        latest: When the latest calls were answered.
    """

    answered: int = 0
    failed: int = 0
    seconds: float = 0.0
    latest: deque[float] = field(default_factory=lambda: deque[float](maxlen=10_000))

    def in_a_minute(self) -> int:
        """How many calls were answered within the last minute."""
        since = time.time() - _MINUTE
        while self.latest and self.latest[0] < since:
            self.latest.popleft()
        return len(self.latest)


class Work:
    """Follows calls and tasks.

    Args:
        payloads: Whether arguments, prompts, questions and results are kept. They may hold secrets.
        own: The name under which the console itself calls tools and gives tasks. The texts of its own work are kept.
        server_of: Returns the server that offers a tool.

    Attributes:
        calls: The latest calls, by call id.
        tasks: The latest tasks, by task id.
        loads: What each replica has done, by the replica's id.
    """

    def __init__(self, payloads: bool, own: str | None, server_of: Callable[[str], str]) -> None:
        self.calls: OrderedDict[str, Item] = OrderedDict()
        self.tasks: OrderedDict[str, Item] = OrderedDict()
        self.loads: dict[str, Load] = {}
        self._payloads = payloads
        self._own = own
        self._server_of = server_of

    def running(self) -> Counter[str]:
        """How many calls are under way, by tool."""
        return Counter(each.row["tool"] for each in self.calls.values() if each.row["state"] == "working")

    def take(self, levels: list[str], message: InboundMessage) -> dict[str, Any] | None:
        """Add a message.

        Args:
            levels: The levels of its topic, without the namespace.
            message: The message.

        Returns:
            Who has told whom what, and the item to which it belongs; None for a message that belongs to none.
        """
        if len(message.payload) > _READ:
            return None
        with contextlib.suppress(ValueError, RecursionError, OverflowError):  # a hostile message: it changes nothing
            read: Any = json.loads(message.payload)
            data = cast("dict[str, Any]", read) if isinstance(read, dict) else {}
            if levels[0] == "mcp":
                return self._take_call(levels, data)
            if isinstance(data.get("task_id"), str):
                return self._take_task(levels, data)
        return None

    # Calls

    def _take_call(self, levels: list[str], data: dict[str, Any]) -> dict[str, Any] | None:
        call_id = data.get("call_id")
        if not isinstance(call_id, str) or len(levels) < 4:
            return None
        kind = levels[3]
        if levels[1] == "tools" and kind == "call":
            return self._begin_call(levels[2], call_id, data)
        item = self.calls.get(call_id)
        if item is None or item.row["state"] not in ("working", "canceling"):
            return None
        row, client = item.row, item.row["client"]
        server = short(data.get("server") or row["server"] or self._server_of(row["tool"]))
        if kind == "cancel":
            row["state"] = "canceling"
            event = item.note(client, server, "cancel", short(data.get("reason") or ""))
        elif kind == "stream":
            event = self._take_partial(item, server, data)
        elif kind == "responses":
            event = self._end_call(item, server, data)
        else:
            return None
        return {**event, "ref": f"call/{row['id']}"}

    def _begin_call(self, tool: str, call_id: str, data: dict[str, Any]) -> dict[str, Any]:
        item = _kept(self.calls, call_id)
        again = bool(item.events)
        server = self._server_of(tool)
        item.row.update(tool=short(tool), client=short(data.get("client", "")), state="working", server="")
        if self._shows(item.row["client"]):
            item.more["arguments"] = long(data.get("arguments"))
        event = item.note(item.row["client"], server, f"call {item.row['tool']}" + (" again" if again else ""))
        return {**event, "ref": f"call/{item.row['id']}"}

    def _take_partial(self, item: Item, server: str, data: dict[str, Any]) -> dict[str, Any]:
        row, kind = item.row, short(data.get("type") or "partial")
        if isinstance(data.get("server"), str):
            row["server"] = server
        if kind not in ("accepted", "done"):
            row["partials"] = row.get("partials", 0) + 1
        said = short(data.get("content") or data.get("data") or "") if self._shows(row["client"]) else ""
        return item.note(server, row["client"], kind, said)

    def _end_call(self, item: Item, server: str, data: dict[str, Any]) -> dict[str, Any]:
        row, error = item.row, _fault(data)
        row.update(state="failed" if error else "completed", server=server, seconds=time.time() - row["begun"])
        if error:
            row["error"] = short(error.get("type", ""))
        if self._shows(row["client"]):
            item.more["result"] = long(error or data.get("result"))
        self._count(server, row)
        return item.note(server, row["client"], row.get("error") or row["state"], fault=bool(error))

    def _count(self, server: str, row: dict[str, Any]) -> None:
        if server not in self.loads and len(self.loads) >= _LOADS:
            del self.loads[next(iter(self.loads))]  # peers may write any name
        load = self.loads.setdefault(server, Load())
        load.answered += 1
        load.failed += row["state"] == "failed"
        load.seconds += row["seconds"]
        load.latest.append(time.time())

    # Tasks

    def _take_task(self, levels: list[str], data: dict[str, Any]) -> dict[str, Any] | None:
        kind = levels[2] if len(levels) > 2 else ""
        task_id: str = data["task_id"]
        if task_id.startswith(MARKER_PREFIX) or kind not in ("inbox", "events", "results", "result", "control"):
            return None
        if kind == "control" and task_id not in self.tasks:
            return None
        item = _kept(self.tasks, task_id)
        if kind == "inbox":
            event = self._take_inbox(item, levels[1], data)
        elif kind == "control":
            event = self._take_control(item, levels[1], data)
        elif kind == "events":
            event = self._take_event(item, data)
        else:
            event = self._take_result(item, data)
        return {**event, "ref": f"task/{item.row['id']}"}

    def _take_inbox(self, item: Item, to: str, data: dict[str, Any]) -> dict[str, Any]:
        again = bool(item.events)
        item.row.update(to=short(to), sender=short(data.get("from") or ""))
        item.row.setdefault("state", "submitted")
        if self._shows(item.row["sender"]):
            prompt = data.get("prompt") or data.get("data") or data.get("messages") or ""
            item.row["title"], item.more["prompt"] = short(data.get("title") or prompt), long(prompt)
        return item.note(item.row["sender"] or "unknown", item.row["to"], "task again" if again else "task")

    def _take_control(self, item: Item, to: str, data: dict[str, Any]) -> dict[str, Any]:
        sender, action = short(data.get("from") or ""), short(data.get("action") or "")
        what = {"input": "answer", "get": "how is it?"}.get(action, action)
        said = short(data.get("input") or data.get("reason") or "") if self._shows(item.row.get("sender")) else ""
        return item.note(sender or "unknown", short(to), what, said)

    def _take_event(self, item: Item, data: dict[str, Any]) -> dict[str, Any]:
        row, status = item.row, data.get("status")
        shows = self._shows(row.get("sender"))
        if isinstance(status, str) and row.get("state") not in TERMINAL:
            row["state"] = short(status)
            asked: Any = data.get("data")
            item.more.pop("question", None)
            if status == "input-required" and isinstance(asked, dict):
                asked = cast("dict[str, Any]", asked)
                item.more["question"] = {
                    "input_id": asked.get("input_id"),
                    "text": long(data.get("content") or "") if shows else None,
                    "schema": asked.get("schema") if shows else None,
                    "fault": short(asked.get("fault") or ""),
                }
        if isinstance(data.get("progress"), (int, float)):
            total = data.get("total")
            row["progress"] = f"{data['progress']:g}" + (f"/{total:g}" if isinstance(total, (int, float)) else "")
        said = short(data.get("content") or "") if shows else ""
        source, target = self._ways(item, data)
        what = short(status or (row.get("progress") if data.get("type") == "progress" else data.get("type")) or "event")
        return item.note(source, target, what, said, fault=status in ("failed", "rejected"))

    def _take_result(self, item: Item, data: dict[str, Any]) -> dict[str, Any]:
        row, state = item.row, short(data.get("status", ""))
        source, target = self._ways(item, data)
        fault = state in ("failed", "rejected", "error")
        if item.more.get("settled"):
            return item.note(source, target, f"{state} again", fault=fault)
        row["state"] = state
        row["seconds"] = time.time() - row["begun"]
        item.more.update(settled=True, question=None)
        error = _fault(data)
        if error:
            row["error"] = short(error.get("type", ""))
        said = ""
        if self._shows(row.get("sender")):
            item.more["result"] = long(error or data.get("result"))
            said = short(error or data.get("result") or "")
        return item.note(source, target, f"result: {state}", said, fault=fault)

    def _ways(self, item: Item, data: dict[str, Any]) -> tuple[str, str]:
        """From whom an event or a result is, and to whom."""
        source = short(data.get("from") or item.row.get("to") or "unknown")
        return source, short(data.get("to") or item.row.get("sender") or "unknown")

    def _shows(self, sender: str | None) -> bool:
        return self._payloads or (self._own is not None and sender == self._own)


def _fault(data: dict[str, Any]) -> dict[str, Any] | None:
    """The error of a response or a result; None when there is none."""
    error: Any = data.get("error")
    if isinstance(error, dict):
        return cast("dict[str, Any]", error)
    return {"message": error} if error else None


def _kept(where: OrderedDict[str, Item], key: str) -> Item:
    found = where.get(key)
    if found is None:
        found = where[key] = Item({"id": short(key), "begun": time.time()})
    where.move_to_end(key)
    if len(where) > _KEPT:
        where.popitem(last=False)
    return found
