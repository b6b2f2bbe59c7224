"""Trying again while the store cannot be written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mqtt_agent.errors import StoreError

__all__ = ["Patience"]

logger: logging.Logger = logging.getLogger(__name__)

_RETRY_FIRST, _RETRY_MAX = 0.5, 30.0

T = TypeVar("T")


class Patience:
    """Does work that ends in the store, again and again until the store takes it.

    Messages are acknowledged in the order of their arrival: one that was never acknowledged would in the end keep the
    broker from sending any more. So its work is not given up while the agent runs.
    """

    def __init__(self) -> None:
        self._over = asyncio.Event()

    def begin(self) -> None:
        """Be patient from now on."""
        self._over = asyncio.Event()

    def end(self) -> None:
        """Let the next failure be the last: the broker sends the message again after the next start."""
        self._over.set()

    async def stored(self, work: Callable[[], Awaitable[T]], what: str) -> T:
        """Do the work until no :class:`StoreError` comes of it.

        Returns:
            What the work returned.

        Raises:
            StoreError: It failed, and :meth:`end` was called.
        """
        wait = _RETRY_FIRST
        while True:
            try:
                return await work()
            except StoreError as error:
                if self._over.is_set():
                    raise
                logger.error("%s is not stored yet, will go on trying: %s", what, error)
            try:
                await asyncio.wait_for(self._over.wait(), wait)
            except asyncio.TimeoutError:
                wait = min(_RETRY_MAX, wait * 2)
