"""Calls a tool for a framework, and cancels the call at the server when the caller gives up."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from inspect import isawaitable
from typing import Any

from mqtt_agent.agents import Agent
from mqtt_agent.errors import CallError
from mqtt_agent.tools import CallHandle, ToolClient

__all__ = ["call_tool", "calling", "tool_client_of"]


def tool_client_of(endpoint: Agent | ToolClient) -> ToolClient:
    """The tool client of an agent; a tool client itself stays as it is."""
    return endpoint.tool_client if isinstance(endpoint, Agent) else endpoint


@asynccontextmanager
async def calling(
    client: ToolClient, tool: str, arguments: Mapping[str, Any], *, timeout: float | None, call_id: str | None = None
) -> AsyncGenerator[CallHandle]:
    """Make a call, and cancel the call at the end of the block if no answer has come by then.

    A call past its timeout is canceled too, because no language model submits a call again with the same call id.

    Args:
        client: The client that calls the tool.
        tool: The tool's name.
        arguments: The arguments by name.
        timeout: Seconds that the call may take; None for no limit.
        call_id: The id of the call; None makes an id.

    Raises:
        ToolUnavailable, TransportError, WireError: See :meth:`ToolClient.submit`.
    """
    handle = await client.submit(tool, arguments, timeout=timeout, call_id=call_id)
    try:
        yield handle
    finally:
        await handle.cancel("the caller gave up")


async def call_tool(
    client: ToolClient,
    tool: str,
    arguments: Mapping[str, Any],
    *,
    timeout: float | None,
    call_id: str | None = None,
    on_partial: Callable[[str, Any], Awaitable[None] | None] | None = None,
) -> CallHandle:
    """Call a tool, pass on its partial results, and wait for the answer.

    Args:
        client: The client that calls the tool.
        tool: The tool's name.
        arguments: The arguments by name.
        timeout: Seconds that the call may take; None for no limit.
        call_id: The id of the call; None makes an id.
        on_partial: Called, or awaited, with the call's id and each value that the tool streams before its result.

    Returns:
        The handle of the call, which is over. ``handle.response`` has the result and MCP content blocks. When the call
        has no result, ``handle.failure()`` returns the error.

    Raises:
        ToolUnavailable, TransportError, WireError: The call could not be sent, or the connection has failed
            permanently.
    """
    async with calling(client, tool, arguments, timeout=timeout, call_id=call_id) as handle:
        async for partial in handle.partials():
            told = None if on_partial is None else on_partial(handle.call_id, partial)
            if isawaitable(told):
                await told
        with suppress(CallError):  # the handle keeps the error
            await handle.result()
    return handle
