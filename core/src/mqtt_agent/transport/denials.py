"""Tells about messages that the broker denied and that nobody waits for, such as partial results."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from mqtt_agent.aio.seen import Seen
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.reasons import is_denied

__all__ = ["tell_if_denied", "tell_when_denied"]

logger: logging.Logger = logger_of(__name__)

_told = Seen(1000)  # the kinds of messages that were told


def tell_when_denied(confirmed: asyncio.Future[int], topic: str, kind: str) -> None:
    """Log a warning when the broker denies a message, once for each kind of message.

    Args:
        confirmed: The future of the broker's confirmation.
        topic: The topic of the message.
        kind: What the message is, in words, such as ``the partial results of tool 'crawl'``.
    """
    confirmed.add_done_callback(partial(tell_if_denied, topic, kind))


def tell_if_denied(topic: str, kind: str, confirmed: asyncio.Future[int]) -> None:
    """Log a warning if the broker has denied a message: the ``on_trouble`` of :meth:`Connection.publish_soon`.

    Args:
        topic: The topic of the message.
        kind: What the message is, in words; see :func:`tell_when_denied`.
        confirmed: The future of the broker's confirmation, which is done.
    """
    if confirmed.cancelled() or confirmed.exception() is not None or not is_denied(confirmed.result()):
        return
    level = logging.WARNING if _told.add(kind) else logging.DEBUG
    logger.log(
        level,
        "the broker does not let this client publish %s to %s, so nobody gets them: allow it in the broker's "
        'access rules, see "What the broker must allow" in docs/wire-format.md',
        kind,
        topic,
    )
