"""What an MCP client is told when something fails here: nothing about the broker, the store or the programs."""

from __future__ import annotations

import logging

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mqtt_agent.adapting.failures import hide
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.errors import InvalidIdentifier, PayloadTooLarge, WireError

__all__ = ["hidden"]

logger: logging.Logger = logger_of(__name__)


def hidden(error: Exception, what: str) -> MCPError:
    """The error that a client is told.

    Args:
        error: Why the request failed.
        what: What failed, as a short text for the client.
    """
    if isinstance(error, (InvalidIdentifier, PayloadTooLarge, WireError)):  # about what the client itself has sent
        return MCPError(types.INVALID_PARAMS, f"{what}: {error}")
    reference = hide(logger, what, error)
    return MCPError(types.INTERNAL_ERROR, f"{what}: the log has the reason under the reference {reference}")
