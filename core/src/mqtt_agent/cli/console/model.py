"""What the console shows: the cards of a namespace, its calls and tasks, and its latest messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
from collections import deque
from typing import Any

from mqtt_agent.cli.console.work import Work, short
from mqtt_agent.cli.doctor.picture import Picture
from mqtt_agent.cli.watching import described
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import Topics

__all__ = ["Model"]

_LINES = 300
_EVERY = 0.25
"""Seconds between two updates. A page gets at most four updates in a second, however many messages there are."""
_BEHIND = 40
"""How many updates may wait for a page. A page that is further behind is disconnected, and connects again."""


class Model:
    """Follows a namespace, and sends what has changed to each page.

    Args:
        connection: A started connection.
        topics: The topics of the namespace.
        about: Facts for the head of the page.
        payloads: Whether arguments, prompts and results are shown.
    """

    def __init__(self, connection: Connection, topics: Topics, about: dict[str, Any], *, payloads: bool) -> None:
        self._connection = connection
        self._topics = topics
        self._about = about
        self._picture = Picture(topics)
        self._work = Work(payloads)
        self._payloads = payloads
        self._lines: deque[dict[str, str]] = deque(maxlen=_LINES)
        self._new: deque[dict[str, str]] = deque(maxlen=_LINES)
        self._changed = asyncio.Event()
        self._pages: set[queue.Queue[str | None]] = set()

    async def run(self) -> None:
        """Follow the namespace until canceled.

        Raises:
            TopicNotAuthorized: The login may not subscribe to the whole namespace.
        """
        await self._connection.subscribe(f"{self._topics.namespace}/#", self._take, qos=0, snapshot=True)
        while True:
            await self._changed.wait()
            self._changed.clear()
            lines = list(self._new)
            self._new.clear()
            if self._pages:
                update = json.dumps({"state": self._state(), "lines": lines}, default=str)
                for page in tuple(self._pages):
                    self._send(page, update)
            await asyncio.sleep(_EVERY)

    async def join(self) -> queue.Queue[str | None]:
        """Add a page. Its queue begins with everything, then come the updates. None ends it."""
        page: queue.Queue[str | None] = queue.Queue(_BEHIND)
        page.put_nowait(
            json.dumps({"about": self._about, "state": self._state(), "lines": list(self._lines)}, default=str)
        )
        self._pages.add(page)
        return page

    def leave(self, page: queue.Queue[str | None]) -> None:
        """Remove a page."""
        self._pages.discard(page)

    def schema(self, tool: str) -> dict[str, Any] | None:
        """The description and the input schema of a tool, or None."""
        card = self._picture.tools.get(tool)
        return None if card is None else {"description": card.description, "schema": card.input_schema}

    def _send(self, page: queue.Queue[str | None], update: str) -> None:
        try:
            page.put_nowait(update)
        except queue.Full:
            self._pages.discard(page)
            with contextlib.suppress(queue.Empty):
                page.get_nowait()  # makes room for the end, after which the page connects again
            page.put_nowait(None)

    def _take(self, message: InboundMessage) -> None:
        if MARKER_PREFIX.encode() in message.payload[:200]:
            return  # an endpoint sends itself a marker to find the end of a list
        levels = message.topic[len(self._topics.namespace) + 1 :].split("/")
        if levels[-1] in ("card", "status"):
            self._picture.take(message)
        elif len(levels) >= 3 and not message.retain:
            self._work.take(levels, message)
        if not message.retain:
            line = {key: short(value) for key, value in described(self._topics, message, self._payloads).items()}
            self._lines.append(line)
            self._new.append(line)
        self._changed.set()

    def _state(self) -> dict[str, Any]:
        picture = self._picture
        online = {each.server for each in picture.online_servers()}
        served = {tool for each in picture.online_servers() for tool in each.tools}
        servers = [
            {
                "name": short(each.shared_name),
                "replica": short(each.server),
                "status": "on standby" if each.standby else "online" if each.server in online else "offline",
                "tools": [short(tool) for tool in each.tools],
                "since": short(each.started or each.last_seen),
                "running": sum(
                    call["state"] == "working" and call["tool"] in each.tools for call in self._work.calls.values()
                ),
            }
            for each in sorted(picture.servers.values(), key=lambda each: each.server)
        ]
        tools = [
            {
                "name": short(name),
                "status": "online" if name in served else "offline",
                "server": short(card.server),
                "description": short(card.description),
            }
            for name, card in sorted(picture.tools.items())
        ]
        agents = [
            {
                "name": short(name),
                "status": "online" if picture.is_online(name) else "offline",
                "capabilities": [short(each) for each in card.capabilities],
                "description": short(card.description),
            }
            for name, card in sorted(picture.agents.items())
        ]
        calls, tasks = list(self._work.calls.values())[::-1], list(self._work.tasks.values())[::-1]
        return {"servers": servers, "tools": tools, "agents": agents, "calls": calls, "tasks": tasks}
