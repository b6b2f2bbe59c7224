"""Tells that tasks wait for a remote agent: once when the wait begins or its reason changes, and once at its end."""

from __future__ import annotations

import logging

from mqtt_agent.adapting.logs import logger_of

__all__ = ["Trouble"]

logger: logging.Logger = logger_of(__name__)

_MOST_REASONS = 5


class Trouble:
    """Why the tasks of a remote agent wait at present. All its tasks share this object.

    Args:
        url: The address of the remote agent.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._reasons: set[str] = set()

    def note(self, error: BaseException) -> None:
        """Note a request that has failed, and is repeated."""
        reason = str(error) or type(error).__name__
        known = reason in self._reasons or len(self._reasons) >= _MOST_REASONS
        if not known:
            self._reasons.add(reason)
        logger.log(
            logging.DEBUG if known else logging.WARNING,
            "%s cannot be asked now, so its tasks wait, and are tried again for as long as it takes: %s",
            self._url,
            reason,
        )

    def over(self) -> None:
        """Note a request that was answered."""
        if self._reasons:
            self._reasons.clear()
            logger.warning("%s answers again", self._url)
