"""Collects the changes of a running server's tools, so that many changes at once cost no more messages than one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.errors import ConnectionLost, MQTTAgentError, ToolNameTaken
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.offering import Offered

__all__ = ["Changes"]

logger: logging.Logger = logger_of(__name__)

Work = Callable[[list[str]], Awaitable["dict[str, ToolNameTaken] | None"]]
"""Changes the named tools. It returns the tools that could not be offered, each with the reason."""


class Changes:
    """Makes the changes of one server's tools, one group after the other: removals, replacements, additions.

    Args:
        server: The id of the server, for the log.
        tasks: Runs the changes in the background.
        add: Offers tools.
        remove: Stops offering tools.
        replace: Publishes the new cards of tools.
        missing: Whether a tool still has to be offered.
    """

    def __init__(
        self,
        server: str,
        tasks: BackgroundTasks,
        add: Work,
        remove: Work,
        replace: Work,
        missing: Callable[[str], bool],
    ) -> None:
        self._server = server
        self._tasks = tasks
        self._add_now, self._missing = add, missing
        self._steps: list[tuple[Work, dict[str, list[Offered]]]] = [(remove, {}), (replace, {}), (self._add, {})]
        self._open = False
        self._ended = False
        self._running = False

    def begin(self) -> None:
        """Make changes from now on, beginning with those that were asked for while the server started."""
        self._open = True
        self._run_soon()

    def end(self) -> None:
        """Make no further changes: the server stops."""
        self._open, self._ended = False, True
        for _, waiting in self._steps:
            for offered in [each for group in waiting.values() for each in group]:
                offered.end()
            waiting.clear()

    def remove(self, name: str, offered: Offered) -> None:
        """Remove a tool soon; ``offered`` gets the outcome."""
        self._note(0, name, offered)

    def replace(self, name: str, offered: Offered) -> None:
        """Publish the new card of a tool soon; ``offered`` gets the outcome."""
        self._note(1, name, offered)

    def add(self, name: str, offered: Offered) -> None:
        """Offer a tool soon; ``offered`` gets the outcome."""
        if self._open and not self._missing(name):
            offered.end()
        else:
            self._note(2, name, offered)

    def _note(self, step: int, name: str, offered: Offered) -> None:
        if self._ended:
            offered.end()
            return
        self._steps[step][1].setdefault(name, []).append(offered)
        self._run_soon()

    def _run_soon(self) -> None:
        if self._open and not self._running and any(waiting for _, waiting in self._steps):
            self._running = True
            self._tasks.start(self._run())

    async def _run(self) -> None:
        try:
            while self._open and any(waiting for _, waiting in self._steps):
                for work, waiting in self._steps:
                    group = dict(waiting)
                    waiting.clear()
                    if group:
                        await self._make(work, group)
        finally:
            self._running = False

    async def _make(self, work: Work, group: dict[str, list[Offered]]) -> None:
        """Make one change of several tools, and tell the outcome to those who wait for it."""
        outcome: dict[str, ToolNameTaken] = {}
        failure: BaseException | None = ConnectionLost("the server was stopped")
        try:
            outcome = await work(list(group)) or {}
            failure = None
        except MQTTAgentError as error:
            failure = error
            logger.warning("%s could not change its tools %s: %s", self._server, ", ".join(list(group)[:5]), error)
        finally:
            for name, waiting in group.items():
                for offered in waiting:
                    offered.end(failure or outcome.get(name))

    async def _add(self, names: list[str]) -> dict[str, ToolNameTaken] | None:
        return await self._add_now([name for name in names if self._missing(name)])
