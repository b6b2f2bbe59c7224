"""Repeats work that failed because the store does not work, and logs when a trouble begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mqtt_agent.aio.waiting import within
from mqtt_agent.errors import StoreError
from mqtt_agent.logs import logger_of

__all__ = ["StoreRetry"]

logger: logging.Logger = logger_of(__name__)

_RETRY_FIRST, _RETRY_MAX = 0.5, 5.0
"""Seconds until work is tried again: the first interval, and the longest."""
_MAX_REASONS = 5
"""How many different errors of one trouble are logged."""

T = TypeVar("T")


class StoreRetry:
    """Repeats an agent's work that stores something, until the store accepts the work.

    A message is acknowledged when it is stored, and messages are acknowledged in the order of their arrival. So a
    single message that is never stored would stop all acknowledgements, and then the broker would send nothing more.
    Therefore the work is tried until it succeeds, as long as the agent runs.

    A *trouble* of the store begins when a first piece of work fails, and ends when no piece of work waits any more. The
    log has one line for the beginning and one line for the end, however many pieces of work wait meanwhile. The store
    works again when the trouble has ended and at least one of the pieces of work that waited has succeeded.

    A store that reports a failure may still have made the change: only the answer was lost. So work must be written in
    such a way that a repeat finds what an earlier try has stored.

    Args:
        agent_id: The agent, for the log.

    Attributes:
        on_recovered: Functions to call when a trouble has ended because the store works again.
    """

    def __init__(self, agent_id: str) -> None:
        self.on_recovered: list[Callable[[], None]] = []
        self._agent_id = agent_id
        self._over = asyncio.Event()
        self._waiting = 0
        self._works = False  # whether work that waited in the present trouble has succeeded
        self._began = 0.0
        self._reasons: set[str] = set()

    @property
    def over(self) -> bool:
        """Whether work is given up when the store fails, because the agent stops."""
        return self._over.is_set()

    def end(self) -> None:
        """From now on, give up when the store fails. The broker sends the message again at the agent's next start."""
        if self._waiting and not self.over:
            logger.error(
                "agent %s stops while its store does not work: %d changes are tried once more, and then left to the "
                "agent's next start; the broker and the peers keep their messages until then",
                self._agent_id,
                self._waiting,
            )
        self._over.set()

    async def until_stored(self, work: Callable[[], Awaitable[T]], what: str) -> T:
        """Do some work until it raises no :class:`StoreError`.

        The wait between two attempts grows from 0.5 s to 5 s.

        Args:
            work: Does the work; called once for each attempt.
            what: What the work stores or reads, as a noun phrase for the log.

        Returns:
            The value that the work returned.

        Raises:
            StoreError: The store failed after :meth:`end` was called, or the error is permanent.
        """
        try:
            return await work()
        except StoreError as error:
            self._note_failure(what, error)
        return await self._repeat(work, what)

    async def _repeat(self, work: Callable[[], Awaitable[T]], what: str) -> T:
        wait = _RETRY_FIRST
        self._waiting += 1
        try:
            while True:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._over.wait(), wait)
                wait = min(_RETRY_MAX, wait * 2)
                try:
                    value = await work()
                except StoreError as error:
                    self._note_failure(what, error)
                else:
                    self._works = True
                    return value
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self._end_trouble()

    def _note_failure(self, what: str, error: StoreError) -> None:
        """Log an error that the present trouble did not have before.

        Raises:
            StoreError: Trying again is useless.
        """
        if error.permanent or self.over:
            raise error
        if self._waiting == 0 and not self._reasons:
            self._began = time.monotonic()
        if str(error) in self._reasons or len(self._reasons) >= _MAX_REASONS:
            return
        self._reasons.add(str(error))
        logger.error(
            "the store of agent %s does not work, so this work waits: %s; the agent tries again until the store works, "
            "and nothing is acknowledged before: %s",
            self._agent_id,
            what,
            error,
        )

    def gave_up(self, error: BaseException) -> bool:
        """Whether an error means only that the store does not work while the agent stops. The next start does the work.

        Args:
            error: What the work raised.
        """
        return isinstance(error, StoreError) and not error.permanent and self.over

    def _end_trouble(self) -> None:
        self._reasons.clear()
        works, self._works = self._works, False
        if not works:
            return
        seconds = time.monotonic() - self._began
        logger.warning("the store of agent %s works again after %.1f s", self._agent_id, seconds)
        if not self.over:
            for recovered in self.on_recovered:
                recovered()
