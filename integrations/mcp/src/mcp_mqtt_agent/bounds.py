"""Bounds the answers of MCP servers over HTTP, so that an answer without end does not take all memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import httpx2
from mqtt_agent.adapting.answers import up_to

__all__ = ["AnswerTooLarge", "ask_plainly", "bound"]

_MOST = 64 * 1024 * 1024
"""Bytes of an answer, or of one event of a stream, as for a line over standard output."""


class AnswerTooLarge(httpx2.DecodingError):
    """An answer, or an event of a stream, is too large to be read."""


async def ask_plainly(request: httpx2.Request) -> None:
    """Ask for an answer that is not compressed: a small one could become a very large one."""
    request.headers["Accept-Encoding"] = "identity"


async def bound(response: httpx2.Response) -> None:
    """Bound the body of an answer, before it is read.

    Raises:
        AnswerTooLarge: The answer is compressed.
    """
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise AnswerTooLarge("the answer is compressed, and was not asked for in this form", request=response.request)
    response.stream = _Bounded(cast("httpx2.AsyncByteStream", response.stream), response)


class _Bounded(httpx2.AsyncByteStream):
    """The bytes of an answer, up to a number of bytes."""

    def __init__(self, stream: httpx2.AsyncByteStream, response: httpx2.Response) -> None:
        self._stream = stream
        self._request = response.request
        self._events = response.headers.get("content-type", "").startswith("text/event-stream")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return up_to(_MOST, self._stream, self._too_large, events=self._events)

    def _too_large(self) -> AnswerTooLarge:
        return AnswerTooLarge(f"the answer has more than {_MOST:,} bytes", request=self._request)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
