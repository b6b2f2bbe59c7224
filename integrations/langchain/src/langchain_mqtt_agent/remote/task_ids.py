"""Task ids for places in a LangGraph graph: a place has the same task after a crash, a retry or an interrupt."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from mqtt_agent.adapting.forks import in_child
from mqtt_agent.wire import new_task_id

from langchain_mqtt_agent._langgraph import current_runtime, in_node, node_attempt, scratchpad_of

__all__ = ["Place", "place_of"]


@dataclass(frozen=True)
class Place:
    """A place in a program at which tasks are given.

    Attributes:
        task_id: The id of the first task that is given here.
        in_graph: Whether the place is in a node, so that questions can become interrupts.
        thread_id: The ``thread_id`` of the configuration; None when there is none.
    """

    task_id: str
    in_graph: bool
    thread_id: str | None


_lock = threading.Lock()


@in_child
def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


_executions: dict[int, tuple[Any, dict[tuple[Any, ...], int]]] = {}
_MAX_EXECUTIONS = 10_000


def place_of(config: RunnableConfig, namespace: str, peer: str, tool_call_id: str | None) -> Place:
    """The place of the code that runs with a configuration.

    In a node, the place consists of the thread, the node's checkpoint namespace (which names the node's execution in
    the graph), the id of the tool call, and the number of tasks that the node has given to this peer before. Outside
    a node, each place is new.
    """
    configurable = config.get("configurable") or {}
    thread_id = configurable.get("thread_id")
    thread_id = None if thread_id is None else str(thread_id)
    if not in_node(config):
        return Place(new_task_id(), False, thread_id)
    node = str(configurable.get("checkpoint_ns", ""))
    before = _count(config, namespace, peer, tool_call_id)
    parts = (namespace, peer, thread_id or "", node, tool_call_id or "", str(before))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return Place(f"lg-{digest[:32]}", True, thread_id)


def _count(config: RunnableConfig, *what: Any) -> int:
    """How often ``what`` was counted before in this attempt of this execution of the node."""
    scratchpad = scratchpad_of(config)
    key = (node_attempt(current_runtime()), *what)
    with _lock:
        # The scratchpad is kept here: while it exists, no other object can get its id. A weak reference would be
        # better, but LangGraph has no object per execution that allows weak references.
        _, counts = _executions.pop(id(scratchpad), (scratchpad, {}))
        _executions[id(scratchpad)] = (scratchpad, counts)
        if len(_executions) > _MAX_EXECUTIONS:
            _executions.pop(next(iter(_executions)))
        counts[key] = counts.get(key, -1) + 1
        return counts[key]
