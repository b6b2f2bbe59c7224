"""Passes the questions of an MCP server of 2026 on to the caller of a tool."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mqtt_agent.errors import ToolError
from mqtt_agent.tools import ELICITATION, ToolContext

__all__ = ["answers_of"]


async def answers_of(context: ToolContext, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the caller everything that the server asks.

    Args:
        context: The call over MQTT.
        asked: The ``inputRequests`` of the server.

    Returns:
        The ``inputResponses``.

    Raises:
        ToolError: The server asks for something that no caller can give.
        InputNotGiven: The caller does not answer.
    """
    answers = await asyncio.gather(*(_answer(context, each) for each in asked.values()))
    return dict(zip(asked, answers, strict=True))


async def _answer(context: ToolContext, request: Any) -> Any:
    method = request.get("method") if isinstance(request, dict) else None
    if method != ELICITATION:
        raise ToolError(f"the MCP server asks for {method!r}, which this bridge cannot give", code="NOT_SUPPORTED")
    return await context.request_input(ELICITATION, request.get("params") or {})
