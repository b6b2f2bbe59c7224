"""Calls a tool for a framework, and cancels the call at the server when the caller gives up."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from inspect import isawaitable
from typing import Any

from mqtt_agent.agents import Agent
from mqtt_agent.errors import CallError
from mqtt_agent.tools import CallHandle, CallQuestion, ToolClient
from mqtt_agent.tools.calling.answering import OnQuestion

__all__ = ["call_tool", "calling", "tool_client_of"]


def tool_client_of(endpoint: Agent | ToolClient) -> ToolClient:
    """The tool client of an agent; a tool client itself stays as it is."""
    return endpoint.tool_client if isinstance(endpoint, Agent) else endpoint


@asynccontextmanager
async def calling(
    client: ToolClient,
    tool: str,
    arguments: Mapping[str, Any],
    *,
    timeout: float | None,
    call_id: str | None = None,
    on_question: OnQuestion | None = None,
) -> AsyncGenerator[CallHandle]:
    """Make a call, and cancel the call at the end of the block if no answer has come by then.

    A call past its timeout is canceled too, because no language model submits a call again with the same call id.

    Args:
        client: The client that calls the tool.
        tool: The tool's name.
        arguments: The arguments by name.
        timeout: Seconds that the call may take; None for no limit.
        call_id: The id of the call; None makes an id.
        on_question: Answers what the tool asks; see :meth:`ToolClient.call`.

    Raises:
        ToolUnavailable, TransportError, WireError: See :meth:`ToolClient.submit`.
    """
    handle = await client.submit(tool, arguments, timeout=timeout, call_id=call_id, on_question=on_question)
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
    ask: Callable[[str, Any], Awaitable[Any]] | None = None,
) -> CallHandle:
    """Call a tool, pass on its partial results, and wait for the answer.

    Args:
        client: The client that calls the tool.
        tool: The tool's name.
        arguments: The arguments by name.
        timeout: Seconds that the call may take; None for no limit.
        call_id: The id of the call; None makes an id.
        on_partial: Called, or awaited, with the call's id and each value that the tool streams before its result.
        ask: Awaited with a question of the tool and the JSON Schema of the answer. It returns the answer, or None when
            the person declines.

    Returns:
        The handle of the call, which is over. ``handle.response`` has the result and MCP content blocks. When the call
        has no result, ``handle.failure()`` returns the error.

    Raises:
        ToolUnavailable, TransportError, WireError: The call could not be sent, or the connection has failed
            permanently.
    """

    async def answer(question: CallQuestion) -> Any:
        assert ask is not None
        return await ask(question.prompt, question.schema)

    on_question = None if ask is None else answer
    async with calling(client, tool, arguments, timeout=timeout, call_id=call_id, on_question=on_question) as handle:
        async for partial in handle.partials():
            told = None if on_partial is None else on_partial(handle.call_id, partial)
            if isawaitable(told):
                await told
        with suppress(CallError):  # the handle keeps the error
            await handle.result()
    return handle
