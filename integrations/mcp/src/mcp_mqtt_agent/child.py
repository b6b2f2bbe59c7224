"""The connection to an MCP server that runs as a child process and speaks over its standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage
from mqtt_agent.adapting.background import within
from mqtt_agent.adapting.logs import logger_of

from mcp_mqtt_agent.lines import LONGEST, Lines, error_for, read_line

__all__ = ["Streams", "child_process", "environment"]

logger: logging.Logger = logger_of(__name__)

Streams = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]
"""What a connection to an MCP server is made of: the stream to read from, and the stream to write to."""

_CHUNK = 256 * 1024
_LEAVES_WITHIN = 2.0
"""Seconds that a child has to end by itself after its standard input was closed."""
_ENDED_WITHIN = 6.0
_SECRETS = ("MQTT_AGENT_PASSWORD", "MQTT_AGENT_TOKEN")
_GUARD = Path(__file__).with_name("guard.py")


def environment() -> dict[str, str]:
    """The environment of a child: the bridge's own, without the secrets of the bridge."""
    return {name: value for name, value in os.environ.items() if name not in _SECRETS}


@contextlib.asynccontextmanager
async def child_process(command: Sequence[str], env: Mapping[str, str] | None = None) -> AsyncGenerator[Streams]:
    """Start a command, and connect to its standard input and output. Its standard error stays the bridge's.

    At the end of the block, and when the bridge itself is killed, the child and all its descendants are ended.

    Args:
        command: The words of the command.
        env: The environment of the child; None means :func:`environment`.

    Raises:
        OSError: The process cannot be started.
    """
    env = environment() if env is None else dict(env)
    if sys.platform == "win32":
        parameters = StdioServerParameters(command=command[0], args=list(command[1:]), env=env)
        async with stdio_client(parameters) as streams:
            yield streams
        return
    life, hold = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", str(_GUARD), str(life)),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=(life,),
            env=env,
        )
    except BaseException:
        os.close(hold)
        raise
    finally:
        os.close(life)
    received, reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    writing, sent = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read, process, received)
            tasks.start_soon(_write, process, sent)
            try:
                yield reading, writing
            finally:
                reading.close()
                writing.close()
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process, hold)
        for stream in (received, reading, writing, sent):
            stream.close()


async def _end(process: asyncio.subprocess.Process, hold: int) -> None:
    """Close the child's standard input, and end the child when it does not end by itself."""
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(asyncio.TimeoutError):
        await within(process.wait(), _LEAVES_WITHIN)
    os.close(hold)
    try:
        await within(process.wait(), _ENDED_WITHIN)
    except asyncio.TimeoutError:
        logger.warning("process %d does not end, and is killed", process.pid)
        process.kill()
    transport = getattr(process, "_transport", None)
    if transport is not None:  # asyncio closes the pipe of a process only when no descendant holds it any more
        transport.close()


async def _read(
    process: asyncio.subprocess.Process, received: MemoryObjectSendStream[SessionMessage | Exception]
) -> None:
    """Pass on each line of the child's standard output. Lines that are no messages are left out."""
    assert process.stdout is not None
    lines = Lines(f"a message of more than {LONGEST:,} bytes from process {process.pid} is left out")
    with received, contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        while chunk := await process.stdout.read(_CHUNK):
            for line in lines.feed(chunk):
                message = _message(line)
                if message is not None:
                    await received.send(message)


def _message(line: bytes) -> SessionMessage | None:
    """The message in a line. An answer that cannot be read becomes an error, so that nobody waits for it for ever."""
    message, value = read_line(line)
    if message is not None:
        return SessionMessage(message)
    logger.warning("the MCP server wrote a line that is no JSON-RPC message: %.200r", line)
    if isinstance(value, dict) and "method" in value:
        return None
    return error_for(value, types.INTERNAL_ERROR, f"the MCP server answers with what is no message: {line[:200]!r}")


async def _write(process: asyncio.subprocess.Process, sent: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert process.stdin is not None
    with sent, contextlib.suppress(ConnectionError):  # the reader sees the end of a child
        async for message in sent:
            line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(line.encode(errors="replace") + b"\n")
            await process.stdin.drain()
