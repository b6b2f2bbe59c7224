"""Bounds the answers of remote A2A agents, so that an answer without end does not take all memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import httpx
from mqtt_agent.adapting.answers import up_to

__all__ = ["AnswerTooLarge", "ask_plainly", "bound", "hooks"]

_MOST = 64 * 1024 * 1024
"""Bytes of an answer, or of one event of a stream. No MQTT packet of a result is larger."""


class AnswerTooLarge(httpx.DecodingError):
    """An answer, or an event of a stream, is too large to be read. A repeat would be too large too."""


async def ask_plainly(request: httpx.Request) -> None:
    """Ask for an answer that is not compressed: a small one could become a very large one."""
    request.headers["Accept-Encoding"] = "identity"


async def bound(response: httpx.Response, most: int | None = None) -> None:
    """Bound the body of an answer, before it is read.

    Args:
        response: The answer.
        most: The largest body, or event of a stream, in bytes; None for 64 MiB.

    Raises:
        AnswerTooLarge: The answer is compressed.
    """
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise AnswerTooLarge("the answer is compressed, and was not asked for in this form", request=response.request)
    response.stream = _Bounded(
        cast("httpx.AsyncByteStream", response.stream), response, _MOST if most is None else most
    )


def hooks(most: int) -> dict[str, list[Any]]:
    """The event hooks of a client whose answers have at most so many bytes."""
    return {"request": [ask_plainly], "response": [partial(bound, most=most)]}


class _Bounded(httpx.AsyncByteStream):
    """The bytes of an answer, up to a number of bytes."""

    def __init__(self, stream: httpx.AsyncByteStream, response: httpx.Response, most: int) -> None:
        self._stream = stream
        self._request = response.request
        self._most = most
        self._events = response.headers.get("content-type", "").startswith("text/event-stream")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return up_to(self._most, self._stream, self._too_large, events=self._events)

    def _too_large(self) -> AnswerTooLarge:
        return AnswerTooLarge(f"the answer has more than {self._most:,} bytes", request=self._request)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
