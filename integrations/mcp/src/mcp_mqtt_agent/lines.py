"""Reads the lines of peers over standard input and output, also those that the SDK cannot read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

import anyio
import mcp_types as types
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

__all__ = ["error_for", "read_line", "reread"]


def read_line(line: bytes) -> tuple[types.JSONRPCMessage | None, Any]:
    """Read a line.

    Python reads more than JSON is: half of a character such as an emoji, which programs in JavaScript write when they
    cut a text, and NaN. Bytes that are no UTF-8 are replaced.

    Returns:
        The message, or None; and if it is None, what the line holds instead, as far as that can be read.
    """
    adapter = types.jsonrpc_message_adapter
    with contextlib.suppress(ValueError):
        return adapter.validate_json(line, by_name=False), None
    try:
        value: Any = _whole(json.loads(line.decode(errors="replace")))
    except (ValueError, RecursionError):
        return None, None
    with contextlib.suppress(ValueError):
        return adapter.validate_python(value, by_name=False), None
    return None, value


def _whole(value: Any) -> Any:
    """A value without halves of characters."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in cast("dict[str, Any]", value).items()}
    return [_whole(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value


def error_for(value: Any, code: int, message: str) -> SessionMessage | None:
    """An error in the place of a message that cannot be read; None if the message has no id."""
    request_id: Any = cast("dict[str, Any]", value).get("id") if isinstance(value, dict) else None
    if not isinstance(request_id, (int, str)):
        return None
    error = types.ErrorData(code=code, message=message)
    return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=request_id, error=error))


def _again(error: ValidationError) -> tuple[types.JSONRPCMessage | None, Any]:
    """Read a line again that the SDK could not read; see :func:`read_line`."""
    inputs: list[Any] = [each["input"] for each in error.errors()]
    if inputs and isinstance(inputs[0], str):
        return read_line(inputs[0].encode(errors="surrogatepass"))
    return None, next((each for each in inputs if isinstance(each, dict) and "id" in each), None)


@contextlib.asynccontextmanager
async def reread(
    reading: ReadStream[SessionMessage | Exception], writing: WriteStream[SessionMessage]
) -> AsyncGenerator[ReadStream[SessionMessage | Exception]]:
    """Read the lines of a client again that the SDK could not read. A request that nobody can read gets an error."""
    put, get = anyio.create_memory_object_stream[SessionMessage | Exception](0)

    async def relay() -> None:
        async with put:
            async for item in reading:
                if isinstance(item, ValidationError):
                    message, value = _again(item)
                    error = error_for(value, types.INVALID_REQUEST, "this is no request of JSON-RPC")
                    if message is None and error is not None:
                        await writing.send(error)
                        continue
                    item = item if message is None else SessionMessage(message)
                await put.send(item)

    async with anyio.create_task_group() as tasks, get:
        tasks.start_soon(relay)
        yield get
        tasks.cancel_scope.cancel()
