"""The messages of an MCP client over standard input and output, in a way that lets the process end at any time.

The SDK reads standard input in a thread that it waits for. So a process that is told to end waits for the next line of
its client, and does not end by SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
from collections.abc import AsyncGenerator, Generator
from functools import partial

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.adapting.threads import run_in_thread

from mcp_mqtt_agent.child import Streams
from mcp_mqtt_agent.lines import LONGEST, Lines, error_for, read_line

__all__ = ["standard_streams"]

logger: logging.Logger = logger_of(__name__)

_CHUNK = 256 * 1024
_WRITTEN_WITHIN = 5.0
"""Seconds that a client has at the end to read what it was told."""


@contextlib.asynccontextmanager
async def standard_streams() -> AsyncGenerator[Streams]:
    """Connect to the client at standard input and output.

    In the block, other code reads nothing from standard input, and what it prints goes to standard error.
    """
    received, reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    writing, sent = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        with _diverted() as (source, sink):
            async with anyio.create_task_group() as tasks:
                reader = anyio.CancelScope()
                tasks.start_soon(_read, source, received, writing, reader)
                tasks.start_soon(_write, sink, sent, received)
                yield reading, writing
                reader.cancel()
                writing.close()
                tasks.cancel_scope.deadline = anyio.current_time() + _WRITTEN_WITHIN
    finally:
        for stream in (received, reading, writing, sent):
            stream.close()


@contextlib.contextmanager
def _diverted() -> Generator[tuple[int, int]]:
    """Take standard input and output away from all other code.

    Returns:
        The descriptors of both. They are never closed: a thread may still wait for the client.
    """
    source, sink, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        yield source, sink
    finally:
        os.dup2(source, 0)
        os.dup2(sink, 1)


async def _read(
    source: int,
    received: MemoryObjectSendStream[SessionMessage | Exception],
    writing: MemoryObjectSendStream[SessionMessage],
    scope: anyio.CancelScope,
) -> None:
    """Pass on each message. A request that nobody can read gets an error."""
    lines = Lines(f"a message of more than {LONGEST:,} bytes is left out")
    with scope, received, contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        ended = False
        while not ended:
            # Not a buffered file: the thread that waits would hold its lock, and the interpreter could not end.
            chunk = await run_in_thread(partial(_read_some, source), "mqtt-agent-stdin")
            ended = not chunk
            for line in lines.feed(chunk or b"\n"):
                message, value = read_line(line)
                if message is not None:
                    await received.send(SessionMessage(message))
                    continue
                logger.warning("the MCP client wrote a line that is no message: %.200r", line)
                error = error_for(value, types.INVALID_REQUEST, "this is no request of JSON-RPC")
                if error is not None:
                    await writing.send(error)


async def _write(
    sink: int,
    sent: MemoryObjectReceiveStream[SessionMessage],
    received: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    """Write each message. When the client reads no more, that is the end of its messages too."""
    with sent, contextlib.suppress(OSError):
        async for message in sent:
            line = message.message.model_dump_json(by_alias=True, exclude_unset=True).encode(errors="replace") + b"\n"
            await run_in_thread(partial(_write_all, sink, line), "mqtt-agent-stdout")
        return
    received.close()


def _read_some(source: int) -> bytes:
    while True:
        try:
            return os.read(source, _CHUNK)
        except BlockingIOError:  # another program has changed the mode of a terminal or pipe that both of them have
            select.select([source], [], [])


def _write_all(sink: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(sink, left) :]
        except BlockingIOError:
            select.select([], [sink], [])
