"""Bounds the answers of remote A2A agents, so that an answer without end does not take all memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import httpx

__all__ = ["AnswerTooLarge", "ask_plainly", "bound"]

_MOST = 64 * 1024 * 1024
"""Bytes of an answer, or of one event of a stream. No MQTT packet of a result is larger."""


class AnswerTooLarge(httpx.DecodingError):
    """An answer, or an event of a stream, is too large to be read. A repeat would be too large too."""


async def ask_plainly(request: httpx.Request) -> None:
    """Ask for an answer that is not compressed: a small one could become a very large one."""
    request.headers["Accept-Encoding"] = "identity"


async def bound(response: httpx.Response) -> None:
    """Bound the body of an answer, before it is read.

    Raises:
        AnswerTooLarge: The answer is compressed.
    """
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise AnswerTooLarge("the answer is compressed, and was not asked for in this form", request=response.request)
    events = response.headers.get("content-type", "").startswith("text/event-stream")
    response.stream = _Bounded(cast("httpx.AsyncByteStream", response.stream), response.request, events=events)


class _Bounded(httpx.AsyncByteStream):
    """The bytes of an answer, up to a number.

    Args:
        stream: The bytes.
        request: What was asked, for the error.
        events: Whether the answer is a stream of events. Then each event may have this number of bytes.
    """

    def __init__(self, stream: httpx.AsyncByteStream, request: httpx.Request, *, events: bool) -> None:
        self._stream = stream
        self._request = request
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        got, last = 0, b""
        async for piece in self._stream:
            last = (last + piece)[-len(piece) - 3 :]
            ended = max(last.rfind(each) for each in (b"\n\n", b"\r\r", b"\r\n\r\n")) if self._events else -1
            got = got + len(piece) if ended < 0 else len(last) - ended
            if got > _MOST:
                raise AnswerTooLarge(f"the answer has more than {_MOST:,} bytes", request=self._request)
            yield piece

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
