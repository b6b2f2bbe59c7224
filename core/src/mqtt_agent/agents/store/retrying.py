"""Repeats work that failed because the store could not be written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mqtt_agent.errors import StoreError

__all__ = ["StoreRetry"]

logger: logging.Logger = logging.getLogger(__name__)

_RETRY_FIRST, _RETRY_MAX = 0.5, 30.0
"""Seconds until work is tried again: the first interval, and the longest."""

T = TypeVar("T")


class StoreRetry:
    """Repeats work that stores something, until the store accepts the work.

    A message is acknowledged when it is stored, and messages are acknowledged in the order of their arrival. So a
    single message that is never stored would stop all acknowledgements, and then the broker would send nothing more.
    Therefore the work is tried until it succeeds, as long as the agent runs.
    """

    def __init__(self) -> None:
        self._over = asyncio.Event()

    def begin(self) -> None:
        """From now on, try until the store accepts the work."""
        self._over = asyncio.Event()

    def end(self) -> None:
        """From now on, give up when the store fails. The broker sends the message again at the agent's next start."""
        self._over.set()

    async def until_stored(self, work: Callable[[], Awaitable[T]], what: str) -> T:
        """Do some work until it raises no :class:`StoreError`.

        The wait between two attempts grows from 0.5 s to 30 s.

        Args:
            work: Does the work; called once for each attempt.
            what: What is stored, for the log.

        Returns:
            What the work returned.

        Raises:
            StoreError: The store failed after :meth:`end` was called.
        """
        wait = _RETRY_FIRST
        while True:
            try:
                return await work()
            except StoreError as error:
                if self._over.is_set():
                    raise
                logger.error("%s is not stored yet; trying again: %s", what, error)
            try:
                await asyncio.wait_for(self._over.wait(), wait)
            except asyncio.TimeoutError:
                wait = min(_RETRY_MAX, wait * 2)
