"""Answers what an MCP server of 2026 asks in the middle of a call, and makes the call again with the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from mcp_types import LOG_LEVEL_META_KEY
from mqtt_agent.errors import ToolError
from mqtt_agent.tools import ELICITATION, ToolContext

from mcp_mqtt_agent.session import Session

__all__ = ["finish"]

_MOST_ROUNDS = 100
_PAUSE = 1.0
"""Seconds before a call is made again for a server that asks nothing and is not ready."""


async def finish(session: Session, params: Mapping[str, Any], context: ToolContext) -> dict[str, Any]:
    """Call a tool of an MCP server, and pass on its questions until it has a result.

    Args:
        session: The session with the server.
        params: The parameters of ``tools/call``.
        context: The call over MQTT.

    Returns:
        The result of ``tools/call`` as it arrived.

    Raises:
        MCPError: See :meth:`Session.request`.
        ToolError: The server asks for something that no caller can give.
        InputNotGiven: The caller does not answer.
    """
    params = dict(params)
    if session.modern and context.log_level is not None:
        params["_meta"] = {**params.get("_meta", {}), LOG_LEVEL_META_KEY: context.log_level}
    for _ in range(_MOST_ROUNDS):
        raw = await session.request("tools/call", params, context.progress, answers=context.answers)
        if raw.get("resultType") != "input_required":
            return raw
        asked = cast("dict[str, Any]", raw.get("inputRequests") or {})
        if asked:
            answers = await asyncio.gather(*(_answer(context, each) for each in asked.values()))
            params["inputResponses"] = dict(zip(asked, answers, strict=True))
        else:
            params.pop("inputResponses", None)
            await asyncio.sleep(_PAUSE)
        if raw.get("requestState") is not None:
            params["requestState"] = raw["requestState"]
    raise ToolError(f"the MCP server has asked {_MOST_ROUNDS} times, and has no result", code="TOO_MANY_ROUNDS")


async def _answer(context: ToolContext, request: Any) -> Any:
    method = request.get("method") if isinstance(request, dict) else None
    if method != ELICITATION:
        raise ToolError(f"the MCP server asks for {method!r}, which this bridge cannot give", code="NOT_SUPPORTED")
    return await context.request_input(ELICITATION, request.get("params") or {})
