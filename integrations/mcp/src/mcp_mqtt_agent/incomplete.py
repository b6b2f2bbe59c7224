"""Says to MCP clients what a list lacks, and gives an error instead of an empty list, which a client would believe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

__all__ = ["INCOMPLETE", "lacking", "meta_of"]

INCOMPLETE = "mqtt-agent/incomplete"
"""The key in ``_meta`` of a list, with one sentence for each server or agent whose entries the list lacks."""


def meta_of(incomplete: Sequence[str]) -> dict[str, Any] | None:
    """The ``_meta`` of a list."""
    return {INCOMPLETE: list(incomplete)} if incomplete else None


def lacking(what: str, incomplete: Sequence[str]) -> MCPError:
    """The error instead of an empty list.

    Args:
        what: What is missing.
        incomplete: Why.
    """
    return MCPError(types.INTERNAL_ERROR, f"{what}: {'; '.join(incomplete)}", {INCOMPLETE: list(incomplete)})
