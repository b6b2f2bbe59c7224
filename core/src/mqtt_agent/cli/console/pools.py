"""The members of the pools of a namespace, and which member has which task, as the pools' store says."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from mqtt_agent.agents.store import PostgresStore
from mqtt_agent.agents.store.pool_view import Held, Member, held, members_of, pools
from mqtt_agent.cli.console.rows import Rows
from mqtt_agent.cli.console.work import TERMINAL, Item, Work, short
from mqtt_agent.errors import StoreError
from mqtt_agent.logs import logger_of

__all__ = ["Pools"]

logger: logging.Logger = logger_of(__name__)

_EVERY = 1.0
"""Seconds between two looks at the store."""
_MOST_MEMBERS, _MOST_TASKS = 1000, 2000
"""How many members, and how many of their tasks, are read at once."""
_SHOWN = 20
"""How many tasks of one member are shown."""


class Pools:
    """Looks at the store of a namespace's pools. It changes nothing there.

    The store is the only place that is believed: anybody who may publish could invent members in messages.

    Args:
        store: The store, which must be open while :meth:`run` runs.
        namespace: The namespace.
        work: The tasks that the console has seen.

    Attributes:
        rows: One row for each pool.
        fault: Why the store could not be read at the latest look; empty when it was read.
        watched: Is set while a page is open. Nothing is read while it is not set.
    """

    def __init__(self, store: PostgresStore, namespace: str, work: Work) -> None:
        self.rows: Rows = {}
        self.fault: str = ""
        self.watched: asyncio.Event = asyncio.Event()
        self._store = store
        self._namespace = namespace
        self._work = work
        self._members: dict[tuple[str, str, str], str] = {}
        """By pool, requester and id, the member that works on a task, or that has worked on it last."""
        self._final: set[tuple[str, str, str]] = set()
        """The tasks whose member was read after they were over."""

    async def run(self, on_look: Callable[[], None]) -> None:
        """Look at the store once a second while a page is open, until canceled.

        Args:
            on_look: Called after each look.
        """
        while True:
            await self.watched.wait()
            try:
                await self._look()
                self.fault = ""
            except StoreError as error:
                self.fault = short(str(error))
            except Exception as error:  # the page tells it, and the next look may be better
                logger.debug("the store of the pools cannot be read", exc_info=True)
                self.fault = short(f"{type(error).__name__}: {error}")
            on_look()
            await asyncio.sleep(_EVERY)

    def member_of(self, item: Item) -> str | None:
        """The member that works on a task, or that has worked on it last; None when this is not known."""
        return self._members.get(_key(item))

    async def _look(self) -> None:
        seen = {key: item for item in self._work.tasks.values() if (key := _key(item)) not in self._final}
        over = {key for key, item in seen.items() if item.row.get("state") in TERMINAL}
        found = await pools(self._store, self._namespace, _MOST_MEMBERS)
        tasks = await held(self._store, self._namespace, list(found), _MOST_TASKS) if found else []
        names = found.keys() | self.rows.keys()
        wanted: dict[str, list[str]] = defaultdict(list)
        for agent_id, _, task_id in seen:
            if agent_id in names:
                wanted[agent_id].append(task_id)
        members = {(each.agent_id, each.requester, each.task_id): each.member for each in tasks}
        for agent_id, task_ids in wanted.items():
            there = await members_of(self._store, f"{self._namespace}/{agent_id}", task_ids)
            members.update({(agent_id, key.requester, key.task_id): member for key, member in there.items()})
        kept = {_key(item) for item in self._work.tasks.values()}
        self._final = (self._final | {key for key in over if key[0] in names}) & kept
        old = {key: member for key, member in self._members.items() if key in self._final}
        self._members = {**old, **{key: member for key, member in members.items() if key in kept}}
        self.rows = {name: _row(name, each, tasks) for name, each in found.items()}


def _row(name: str, members: Iterable[Member], tasks: Iterable[Held]) -> dict[str, Any]:
    having: dict[str, list[Held]] = defaultdict(list)
    for each in tasks:
        if each.agent_id == name:
            having[each.member].append(each)
    return {
        "name": short(name),
        "members": [
            {
                "member": short(each.member),
                "live": each.lease > 0,
                "joined": round(each.joined),
                "count": each.tasks,
                "tasks": [_task(task) for task in having[each.member][:_SHOWN]],
            }
            for each in members
        ],
    }


def _task(task: Held) -> dict[str, Any]:
    return {"id": short(task.task_id), "from": short(task.requester), "state": short(task.state), "since": task.since}


def _key(item: Item) -> tuple[str, str, str]:
    return str(item.row.get("to", "")), str(item.row.get("sender", "")), str(item.row["id"])
