"""Which task a place in a graph stands for: the same after a crash, a retry or an interrupt."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from mqtt_agent.wire import new_task_id

from langchain_mqtt_agent._langgraph import current_runtime, in_node, node_attempt, scratchpad_of

__all__ = ["Place", "place_of"]


@dataclass(frozen=True)
class Place:
    """Where a task is given away.

    Attributes:
        task_id: The id of the task's first try; those of further ones are made from it.
        in_graph: Whether it is in a node, so that questions can become interrupts.
        thread_id: The thread of the graph; None without a checkpointer.
    """

    task_id: str
    in_graph: bool
    thread_id: str | None

    def attempt_id(self, number: int) -> str:
        """The task id of a try, from 0."""
        return self.task_id if number == 0 else f"{self.task_id}.{number}"


_lock = threading.Lock()
_executions: dict[int, tuple[Any, dict[tuple[Any, ...], int]]] = {}
_MAX_EXECUTIONS = 10_000


def place_of(config: RunnableConfig, namespace: str, peer: str, tool_call_id: str | None) -> Place:
    """Where the code that runs with this configuration is.

    In a node, the place is known by the thread, the node's checkpoint namespace (which names its task in the graph),
    the call id for a tool, and by how many tasks the node has given to this peer before. Anywhere else it is new.
    """
    configurable = config.get("configurable") or {}
    thread_id = configurable.get("thread_id")
    if not in_node(config):
        return Place(new_task_id(), False, None if thread_id is None else str(thread_id))
    node = str(configurable.get("checkpoint_ns", ""))
    before = _count(config, namespace, peer, tool_call_id)
    parts = (namespace, peer, str(thread_id or ""), node, tool_call_id or "", str(before))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return Place(f"lg-{digest[:32]}", True, None if thread_id is None else str(thread_id))


def _count(config: RunnableConfig, *what: Any) -> int:
    """How often this was asked before in this attempt of this execution of the node."""
    scratchpad = scratchpad_of(config)
    key = (node_attempt(current_runtime()), *what)
    with _lock:
        # Nothing that LangGraph has one of per execution takes a weak reference. Kept here, its id is not used again.
        _, counts = _executions.pop(id(scratchpad), (scratchpad, {}))
        _executions[id(scratchpad)] = (scratchpad, counts)
        if len(_executions) > _MAX_EXECUTIONS:
            _executions.pop(next(iter(_executions)))
        counts[key] = counts.get(key, -1) + 1
        return counts[key]
