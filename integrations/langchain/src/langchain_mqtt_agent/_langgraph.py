"""Access to a running LangGraph node. LangGraph is optional, and imported only where it runs or is needed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import RunnableConfig

__all__ = [
    "current_runtime",
    "heartbeat_of",
    "in_node",
    "interrupt",
    "is_interrupt",
    "is_resuming",
    "node_attempt",
    "require",
    "scratchpad_of",
    "send_resume",
]

_SCRATCHPAD = "__pregel_scratchpad"
_RESUMING = "__pregel_resuming"
_SEND = "__pregel_send"
_RESUME = "__resume__"


def require(what: str) -> None:
    """Make sure that LangGraph is installed.

    Args:
        what: What needs LangGraph, for the error message.

    Raises:
        ImportError: LangGraph is missing; the message names the extra to install.
    """
    try:
        import langgraph.graph  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{what} needs LangGraph: pip install 'langchain-mqtt-agent[langgraph]'") from error


def in_node(config: RunnableConfig) -> bool:
    """Whether a configuration belongs to a running node, where ``interrupt`` works."""
    return scratchpad_of(config) is not None


def scratchpad_of(config: RunnableConfig) -> Any:
    """An object that lives as long as one execution of a node; None outside a node."""
    return (config.get("configurable") or {}).get(_SCRATCHPAD)


def is_resuming(config: RunnableConfig) -> bool:
    """Whether the node of a configuration may have run before: the graph was resumed here, or the node is retried."""
    return bool((config.get("configurable") or {}).get(_RESUMING))


def send_resume(config: RunnableConfig, answers: list[Any]) -> None:
    """Let LangGraph store the answers of a node when the node is interrupted, as its own ``interrupt`` does."""
    (config.get("configurable") or {})[_SEND]([(_RESUME, list(answers))])


def current_runtime() -> Any:
    """LangGraph's runtime of the node that runs here; None outside a node."""
    runtime = sys.modules.get("langgraph.runtime")
    if runtime is None:
        return None
    try:
        return runtime.get_runtime()
    except (RuntimeError, KeyError):
        return None


def node_attempt(runtime: Any) -> int:
    """The number of the attempt in the node's retry policy, from 1."""
    return getattr(getattr(runtime, "execution_info", None), "node_attempt", 1)


def heartbeat_of(runtime: Any) -> Callable[[], None] | None:
    """The function that tells LangGraph that a node is not idle; None when the node has no idle timeout."""
    beat = getattr(runtime, "heartbeat", None)
    # Without an idle timeout, LangGraph's function is one that does nothing.
    return None if beat is None or getattr(beat, "__name__", "").startswith("_no_op") else beat


def is_interrupt(error: BaseException) -> bool:
    """Whether an error stops the graph until there is an answer."""
    from langgraph.errors import GraphInterrupt

    return isinstance(error, GraphInterrupt)


def interrupt(value: Any, schema: dict[str, Any] | None) -> Any:
    """Call LangGraph's ``interrupt``, with the schema of the answer if this version of LangGraph takes a schema."""
    from langgraph.types import interrupt

    if schema is not None and "response_schema" in inspect.signature(interrupt).parameters:
        return interrupt(value, response_schema=schema)
    return interrupt(value)
