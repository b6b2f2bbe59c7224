"""Removes finished tasks from the store, when their retention is over."""

from __future__ import annotations

import asyncio
import logging
import time

from mqtt_agent.agents.scope import Scope
from mqtt_agent.endpoints.timeouts import checked_seconds
from mqtt_agent.errors import StoreError
from mqtt_agent.logs import logger_of

__all__ = ["Retention", "checked_retention"]

logger: logging.Logger = logger_of(__name__)

_SWEEP_EVERY = 3600.0
"""Seconds between two removals."""
_FOR_EVER = 1000 * 365.25 * 24 * 3600.0
"""Seconds of a retention without a limit: no task ended that long ago, and other records may say that they did."""


def checked_retention(seconds: float | None) -> float:
    """The retention that a person has given, in seconds. None and infinity mean a thousand years.

    Raises:
        ValueError: ``seconds`` is NaN.
    """
    checked = checked_seconds(seconds, "retention")
    return _FOR_EVER if checked is None else min(checked, _FOR_EVER)


class Retention:
    """Removes the agent's old tasks once an hour.

    Args:
        scope: The agent's shared values.
        seconds: How many seconds a finished task is kept.
    """

    def __init__(self, scope: Scope, seconds: float) -> None:
        self._scope = scope
        self._seconds: float = checked_retention(seconds)
        self._sweeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to remove tasks."""
        self._sweeping = asyncio.create_task(self._sweep(), name="mqtt-agent sweep")

    def stop(self) -> None:
        """Remove no further tasks."""
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def _sweep(self) -> None:
        while True:
            try:
                while await self._scope.store.sweep(self._scope.owner, time.time() - self._seconds):
                    logger.debug("agent %s removed old tasks from its store", self._scope.agent_id)
            except StoreError as error:
                logger.warning(
                    "agent %s could not remove old tasks from its store, and will try again in an hour: %s",
                    self._scope.agent_id,
                    error,
                )
            await asyncio.sleep(_SWEEP_EVERY)
