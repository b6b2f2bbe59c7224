"""Requests to a remote A2A agent: which failures are worth another try, and when the next try comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
from a2a.client.errors import A2AClientError
from mqtt_agent.adapting.background import Backoff

from a2a_mqtt_agent.bounds import AnswerTooLarge
from a2a_mqtt_agent.proving import NoToken
from a2a_mqtt_agent.trouble import Trouble

__all__ = ["FIRST_WAIT", "LONGEST_WAIT", "is_transient", "reached", "took_too_long", "was_not_reached"]

T = TypeVar("T")

FIRST_WAIT: float = 0.5
"""The most seconds until a request that has failed is sent again, the first time."""
LONGEST_WAIT: float = 60.0
"""The most seconds between two tries."""


def is_transient(error: BaseException) -> bool:
    """Whether a request that may be sent twice may succeed later."""
    if not isinstance(error, A2AClientError):
        return isinstance(error, (httpx.TransportError, OSError))
    cause = error.__cause__
    if isinstance(cause, httpx.HTTPStatusError):
        return cause.response.status_code >= 500 or cause.response.status_code in (408, 429)
    return not isinstance(cause, AnswerTooLarge)


def was_not_reached(error: BaseException) -> bool:
    """Whether the remote agent did not get a message, as far as can be known, and may get it later.

    An error that the agent itself has answered, and an answer that cannot be read, mean that the agent has the message:
    it would do the same work again, and perhaps for ever.
    """
    if not isinstance(error, A2AClientError) or isinstance(error, NoToken):
        return is_transient(error)
    return isinstance(error.__cause__, httpx.HTTPError) and is_transient(error)


def took_too_long(error: BaseException) -> bool:
    """Whether the remote agent has got a request, and has not answered in time."""
    return isinstance(error if isinstance(error, httpx.HTTPError) else error.__cause__, httpx.ReadTimeout)


async def reached(request: Callable[[], Awaitable[T]], trouble: Trouble) -> T:
    """Send a request, again and again until the remote agent is reached, and return the answer.

    Args:
        request: Sends the request. It must be a request that may be sent twice.
        trouble: Is told of each request that is repeated.
    """
    backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
    while True:
        try:
            answer = await request()
        except Exception as error:
            if not is_transient(error):
                raise
            trouble.note(error)
        else:
            trouble.over()
            return answer
        await backoff.wait()
