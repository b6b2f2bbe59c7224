"""What the console shows: the cards of a namespace, its calls and tasks, and its latest messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
from collections import deque
from typing import Any

from mqtt_agent.agents.store import PostgresStore
from mqtt_agent.aio.waiting import within
from mqtt_agent.cli.console.pools import Pools
from mqtt_agent.cli.console.rows import Cards, Rows
from mqtt_agent.cli.console.work import Item, Work, short
from mqtt_agent.cli.watching import described
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import Topics

__all__ = ["Model"]

_LINES = 300
_EVERY = 0.25
"""Seconds between two updates. A page gets at most four updates in a second, however many messages there are."""
_LOAD_EVERY = 2.0
"""Seconds after which the load of the replicas, and a lost broker, are sent when nothing happens."""
_BEHIND = 40
"""How many updates may wait for a page. A page that is further behind is disconnected, and connects again."""
_CANCELED = "error=canceled"
_LISTS = ("servers", "tools", "agents", "pools", "calls", "tasks")


class Model:
    """Follows a namespace, and sends what has changed to each page.

    Args:
        connection: A started connection.
        topics: The topics of the namespace.
        about: Facts for the head of the page.
        payloads: Whether arguments, prompts and results are shown.
        own: The name under which the console itself calls tools and gives tasks; None when it only reads.
        store: The store of the namespace's pools, which must be open while :meth:`run` runs; None when the members of
            pools are not shown.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        about: dict[str, Any],
        *,
        payloads: bool,
        own: str | None = None,
        store: PostgresStore | None = None,
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._about = about
        self._cards = Cards(topics)
        self._work = Work(payloads, own, self._cards.server_of)
        self._pools = None if store is None else Pools(store, topics.namespace, self._work)
        self._payloads = payloads
        self._lines: deque[dict[str, Any]] = deque(maxlen=_LINES)
        self._new: deque[dict[str, Any]] = deque(maxlen=_LINES)
        self._changed = asyncio.Event()
        self._stale: set[str] = set()
        self._sent: dict[str, Rows] = {name: {} for name in _LISTS}
        self._state = self._present_state()
        self._pages: set[queue.Queue[str | None]] = set()

    async def run(self) -> None:
        """Follow the namespace until canceled.

        Raises:
            TopicNotAuthorized: The login may not subscribe to the whole namespace.
        """
        await self._connection.subscribe(f"{self._topics.namespace}/#", self._take, qos=0, snapshot=True)
        looking = None if self._pools is None else asyncio.create_task(self._pools.run(self._on_look))
        try:
            await self._follow()
        finally:
            if looking is not None:
                looking.cancel()

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._changed.wait(), _LOAD_EVERY)
            self._changed.clear()
            self._stale.add("servers")
            lines = list(self._new)
            self._new.clear()
            changes = self._changes()
            before, state = self._state, self._present_state()
            self._state = state
            if self._pages and (lines or changes or before != state):
                update = json.dumps({**state, "changes": changes, "lines": lines}, default=str)
                for page in tuple(self._pages):
                    self._send(page, update)
            await asyncio.sleep(_EVERY)

    async def join(self) -> queue.Queue[str | None]:
        """Add a page. Its queue begins with everything, then come the updates. None ends it."""
        page: queue.Queue[str | None] = queue.Queue(_BEHIND)
        lines = list(self._lines)[: len(self._lines) - len(self._new)]  # the new lines come with the next update
        everything = {"about": self._about, **self._state, "changes": self._sent, "lines": lines}
        page.put_nowait(json.dumps(everything, default=str))
        self._pages.add(page)
        self._note_pages()
        return page

    def _present_state(self) -> dict[str, Any]:
        """What the head of the page says: whether the broker is there, and what is wrong with the store."""
        fault = None if self._pools is None else self._pools.fault
        return {"broker": self._connection.connected, "store": fault}

    def leave(self, page: queue.Queue[str | None]) -> None:
        """Remove a page."""
        self._pages.discard(page)
        self._note_pages()

    def _note_pages(self) -> None:
        if self._pools is not None:
            (self._pools.watched.set if self._pages else self._pools.watched.clear)()

    async def tool(self, name: str) -> dict[str, Any] | None:
        """The description and the input schema of a tool, or None."""
        card = self._cards.picture.tools.get(name)
        return None if card is None else {"description": card.description, "schema": card.input_schema}

    async def item(self, kind: str, name: str) -> dict[str, Any] | None:
        """Everything that is known of a call or a task, or None.

        Args:
            kind: ``call`` or ``task``.
            name: The id of the call or the task.
        """
        where = self._work.calls if kind == "call" else self._work.tasks
        item = where.get(name) or next((each for each in where.values() if each.row["id"] == name), None)
        if item is None:
            return None
        return {**item.row, **self._member(item), **item.more, "events": item.events, "left_out": item.left_out}

    def task(self, task_id: str) -> Item | None:
        """A task that was seen, or None."""
        return self._work.tasks.get(task_id)

    def _changes(self) -> dict[str, dict[str, Any]]:
        """The rows that differ from what the pages have, by list and name. None stands for a row that has gone."""
        changes: dict[str, dict[str, Any]] = {}
        for name in self._stale:
            rows, sent = self._rows(name), self._sent[name]
            differ: dict[str, Any] = {key: row for key, row in rows.items() if sent.get(key) != row}
            differ.update(dict.fromkeys(sent.keys() - rows.keys()))
            if differ:
                changes[name] = differ
                self._sent[name] = rows
        self._stale.clear()
        return changes

    def _rows(self, name: str) -> Rows:
        if name == "servers":
            return self._cards.servers(self._work)
        if name in ("tools", "agents"):
            return self._cards.tools() if name == "tools" else self._cards.agents()
        if name == "pools":
            return {} if self._pools is None else self._pools.rows
        items = self._work.calls if name == "calls" else self._work.tasks
        return {
            key: {**each.row, **self._member(each), "asks": bool(each.more.get("question"))}
            for key, each in items.items()
        }

    def _member(self, item: Item) -> dict[str, str]:
        member = None if self._pools is None else self._pools.member_of(item)
        return {} if member is None else {"member": short(member)}

    def _on_look(self) -> None:
        self._stale.update(("pools", "tasks"))
        self._changed.set()

    def _send(self, page: queue.Queue[str | None], update: str) -> None:
        try:
            page.put_nowait(update)
        except queue.Full:
            self.leave(page)
            with contextlib.suppress(queue.Empty):
                page.get_nowait()  # makes room for the end, after which the page connects again
            page.put_nowait(None)

    def _take(self, message: InboundMessage) -> None:
        if MARKER_PREFIX.encode() in message.payload[:200]:
            return  # an endpoint sends itself a marker to find the end of a list
        levels = message.topic[len(self._topics.namespace) + 1 :].split("/")
        event: dict[str, Any] | None = None
        lost: str | None = None
        if levels[-1] in ("card", "status"):
            lost = self._cards.take(message)
            self._stale.update(("servers", "tools", "agents"))
        elif len(levels) >= 3 and not message.retain:
            event = self._work.take(levels, message)
            self._stale.add("calls" if levels[0] == "mcp" else "tasks")
        if not message.retain:
            self._add_line(message, event, lost)
        self._changed.set()

    def _add_line(self, message: InboundMessage, event: dict[str, Any] | None, lost: str | None) -> None:
        words = {key: short(value) for key, value in described(self._topics, message, self._payloads).items()}
        wrong = "an error of its sender" in words.get("about", "")
        line: dict[str, Any] = {**words, "fault": wrong or words.get("error", _CANCELED) != _CANCELED}
        if event is not None:
            line["fault"] = line["fault"] or event["fault"]
            ways = {key: self._cards.shared(event[key]) for key in ("from", "to")}
            line["event"] = {**ways, **{key: event[key] for key in ("time", "what", "ref")}}
        if lost is not None:
            line.update(fault=True, about=f"the connection of {short(lost)} was lost")
        self._lines.append(line)
        self._new.append(line)
