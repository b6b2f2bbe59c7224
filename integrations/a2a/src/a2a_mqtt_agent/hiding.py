"""What an A2A client is told when something fails here: nothing about the broker, the store or the programs."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

from a2a.server.request_handlers.request_handler import validate_request_params
from a2a.utils.errors import A2AError, InternalError, InvalidParamsError
from mqtt_agent.adapting.failures import hide
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.errors import InvalidIdentifier, PeerUnavailable

__all__ = ["answers", "hidden"]

logger: logging.Logger = logger_of(__name__)


def hidden(error: Exception) -> A2AError:
    """The error that a client is told.

    Args:
        error: Why the request failed. An A2A error is for the client already.
    """
    if isinstance(error, A2AError):
        return error
    if isinstance(error, InvalidIdentifier):  # about an id that the client itself has chosen
        return InvalidParamsError(str(error))
    reference = hide(logger, "a request of an A2A client failed", error)
    if isinstance(error, PeerUnavailable):
        return InternalError(f"The agent cannot be reached now: try again later (reference {reference})")
    return InternalError(f"The gateway cannot do this now: its log has the reason under the reference {reference}")


def answers(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method answer the requests of A2A clients: it checks the required fields, and hides unexpected errors."""
    checked: Callable[..., Any] = validate_request_params(method)
    if inspect.isasyncgenfunction(method):

        @functools.wraps(method)
        async def stream(*arguments: Any) -> AsyncGenerator[Any]:
            inner = checked(*arguments)
            try:
                async for each in inner:
                    yield each
            except Exception as error:
                raise hidden(error) from error
            finally:
                await inner.aclose()

        return stream

    @functools.wraps(method)
    async def answer(*arguments: Any) -> Any:
        try:
            return await checked(*arguments)
        except Exception as error:
            raise hidden(error) from error

    return answer
