"""What is used of LangGraph, and what is there in its place when it is not installed."""

from __future__ import annotations

import inspect
from typing import Any

from langchain_core.runnables import RunnableConfig

try:
    import langgraph.errors
    import langgraph.types
    from langgraph.prebuilt import ToolRuntime
    from langgraph.runtime import get_runtime
except ImportError:  # the rest works without
    langgraph = None  # type: ignore[assignment]
    ToolRuntime = Any  # type: ignore[assignment,misc]
    get_runtime = None  # type: ignore[assignment]

__all__ = ["INSTALLED", "ToolRuntime", "current_runtime", "in_node", "interrupt", "node_attempt", "require"]

INSTALLED = langgraph is not None

_SCRATCHPAD = "__pregel_scratchpad"


def require(what: str) -> None:
    """Say which extra is missing.

    Raises:
        ImportError: LangGraph is not installed.
    """
    if not INSTALLED:
        raise ImportError(f"{what} needs LangGraph: pip install 'langchain-mqtt-agent[langgraph]'")


def in_node(config: RunnableConfig) -> bool:
    """Whether a configuration is that of a running node, where ``interrupt`` works."""
    return INSTALLED and _SCRATCHPAD in (config.get("configurable") or {})


def scratchpad_of(config: RunnableConfig) -> Any:
    """An object that lives as long as one execution of a node."""
    return (config.get("configurable") or {}).get(_SCRATCHPAD)


def current_runtime() -> Any:
    """LangGraph's runtime of the node that runs here; None outside."""
    if get_runtime is None:
        return None
    try:
        return get_runtime()
    except (RuntimeError, KeyError):
        return None


def node_attempt(runtime: Any) -> int:
    """Which attempt of its retry policy a node is at."""
    return getattr(getattr(runtime, "execution_info", None), "node_attempt", 1)


def interrupt(value: Any, schema: dict[str, Any] | None) -> Any:
    """LangGraph's ``interrupt``; with a schema of the answer where this version takes one."""
    assert langgraph is not None
    if schema is not None and "response_schema" in inspect.signature(langgraph.types.interrupt).parameters:
        return langgraph.types.interrupt(value, response_schema=schema)
    return langgraph.types.interrupt(value)
