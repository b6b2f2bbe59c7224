"""Bounds what a remote HTTP server answers, so that an answer without end does not take all memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable

__all__ = ["up_to"]

_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")


async def up_to(
    most: int, pieces: AsyncIterable[bytes], too_large: Callable[[], Exception], *, events: bool
) -> AsyncGenerator[bytes]:
    """Pass on the pieces of an answer, up to a number of bytes.

    Args:
        most: The number of bytes.
        pieces: The pieces.
        too_large: Makes the exception that is raised above this number.
        events: Whether the answer is a stream of server-sent events. Then each event may have this number of bytes.
    """
    got, last = 0, b""
    async for piece in pieces:
        last = (last + piece)[-len(piece) - 3 :]
        ended = max(last.rfind(each) for each in _ENDS) if events else -1
        got = got + len(piece) if ended < 0 else len(last) - ended
        if got > most:
            raise too_large()
        yield piece
