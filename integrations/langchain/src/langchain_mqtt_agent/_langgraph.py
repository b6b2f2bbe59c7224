"""What is used of LangGraph, which is imported only where it runs already or is asked for."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from langchain_core.runnables import RunnableConfig

__all__ = ["current_runtime", "in_node", "interrupt", "node_attempt", "require", "scratchpad_of"]

_SCRATCHPAD = "__pregel_scratchpad"


def require(what: str) -> None:
    """Say which extra is missing.

    Raises:
        ImportError: LangGraph is not installed.
    """
    try:
        import langgraph.graph  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{what} needs LangGraph: pip install 'langchain-mqtt-agent[langgraph]'") from error


def in_node(config: RunnableConfig) -> bool:
    """Whether a configuration is that of a running node, where ``interrupt`` works."""
    return _SCRATCHPAD in (config.get("configurable") or {})


def scratchpad_of(config: RunnableConfig) -> Any:
    """An object that lives as long as one execution of a node."""
    return (config.get("configurable") or {}).get(_SCRATCHPAD)


def current_runtime() -> Any:
    """LangGraph's runtime of the node that runs here; None outside."""
    runtime = sys.modules.get("langgraph.runtime")
    if runtime is None:
        return None
    try:
        return runtime.get_runtime()
    except (RuntimeError, KeyError):
        return None


def node_attempt(runtime: Any) -> int:
    """Which attempt of its retry policy a node is at."""
    return getattr(getattr(runtime, "execution_info", None), "node_attempt", 1)


def interrupt(value: Any, schema: dict[str, Any] | None) -> Any:
    """LangGraph's ``interrupt``; with a schema of the answer where this version takes one."""
    from langgraph.types import interrupt

    if schema is not None and "response_schema" in inspect.signature(interrupt).parameters:
        return interrupt(value, response_schema=schema)
    return interrupt(value)
