"""Logs the failure of a tool or a task, in the process in which its handler runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mqtt_agent.aio.handlers import describe, raised_by
from mqtt_agent.display.frames import place_of
from mqtt_agent.display.html import one_line

__all__ = ["log_failure"]


def log_failure(
    logger: logging.Logger, what: str, error: BaseException, *, on_purpose: bool, handler: Callable[..., Any] | None
) -> None:
    """Log the exception that ended a tool call or a task.

    One line has the exception's class, the first line of its message, and the place where it was raised. The level is
    WARNING, which Python shows even in a program that does not configure logging. The traceback follows at DEBUG.

    Args:
        logger: The logger to write to.
        what: What failed, and for whom. This text may contain names that a peer has chosen.
        error: The exception.
        on_purpose: Whether the exception is the handler's answer to the caller, such as a ``ToolError``. Such an answer
            is logged at level INFO, in one line without the traceback.
        handler: The user's function. Its definition is the place when the user's code has not raised the exception.
    """
    error = raised_by(error)
    kind, message = describe(error)
    first = message.strip().partition("\n")[0]
    described = one_line(f"{kind}: {first}" if first else kind)
    if on_purpose:
        logger.info("%s: %s", one_line(what), described)
        return
    place = place_of(error) or _definition_of(handler)
    logger.warning("%s: %s%s", one_line(what), described, f" (at {place})" if place else "")
    logger.debug("the traceback of this failure:", exc_info=error)


def _definition_of(handler: Callable[..., Any] | None) -> str:
    code = getattr(getattr(handler, "__func__", handler), "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno} in {code.co_name}"
