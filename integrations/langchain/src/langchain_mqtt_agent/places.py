"""Places in a LangGraph graph: at a place, a call or a task is the same after a crash, a retry or an interrupt."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from mqtt_agent.adapting.forks import in_child
from mqtt_agent.adapting.replaying import fingerprint
from mqtt_agent.wire import to_json

from langchain_mqtt_agent._langgraph import current_runtime, in_node, is_resuming, node_attempt, scratchpad_of

__all__ = ["Place", "begin_anew", "notes_of", "place_of"]


@dataclass(frozen=True)
class Place:
    """A place in a graph at which a call is made or a task is given.

    Attributes:
        id: The id of the call or the task; None outside a graph, where no place comes again.
        thread_id: The ``thread_id`` of the configuration; None when there is none.
        resumed: Whether the code at this place may have run before: the graph was resumed, or the node is tried again.
    """

    id: str | None
    thread_id: str | None
    resumed: bool = False


_lock = threading.Lock()


@in_child
def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


_executions: dict[int, tuple[Any, dict[tuple[object, ...], int]]] = {}
_MAX_EXECUTIONS = 10_000
_anew: OrderedDict[str, int] = OrderedDict()
_MAX_ANEW = 10_000


def place_of(config: RunnableConfig, what: tuple[str, ...], content: object) -> Place:
    """The place of the code that runs with a configuration.

    In a node, the place consists of the thread, the node's checkpoint namespace (which names the node's execution in
    the graph), what is done there, the content, and the number of times that the node has done exactly the same before.
    So the order in which a node does different things does not matter.

    Args:
        config: The configuration of the run.
        what: What is done, as texts: the kind, the names, and the id of the tool call.
        content: The arguments of the call or the content of the task, any JSON value.

    Raises:
        WireError: ``content`` has no JSON form. The error names the place in the value.
    """
    configurable = config.get("configurable") or {}
    thread_id = configurable.get("thread_id")
    thread_id = None if thread_id is None else str(thread_id)
    if not in_node(config):
        return Place(None, thread_id)
    execution = str(configurable.get("checkpoint_ns", ""))
    digest = fingerprint(to_json(content, what[0])).hex()
    before = _count(config, *what, digest)
    parts = (*what, thread_id or "", execution, digest, str(before))
    place = f"lg-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"
    number = _anew.get(place, 0)
    return Place(f"{place}.{number}" if number else place, thread_id, is_resuming(config))


def begin_anew(place: Place) -> None:
    """Let the code that runs next at this place in this process make another call.

    For a call that has failed or was canceled: its server would give the same answer again.
    """
    if place.id is None:
        return
    first, _, number = place.id.partition(".")
    with _lock:
        _anew[first] = int(number or 0) + 1
        _anew.move_to_end(first)
        if len(_anew) > _MAX_ANEW:
            _anew.popitem(last=False)


def _count(config: RunnableConfig, *what: Any) -> int:
    """How often ``what`` was counted before in this attempt of this execution of the node."""
    key = (node_attempt(current_runtime()), *what)
    notes = notes_of(config)
    with _lock:
        notes[key] = notes.get(key, -1) + 1
        return notes[key]


def notes_of(config: RunnableConfig) -> dict[tuple[object, ...], int]:
    """What was counted in this execution of the node, by its names."""
    scratchpad = scratchpad_of(config)
    with _lock:
        # The scratchpad is kept here: while it exists, no other object can get its id. A weak reference would be
        # better, but LangGraph has no object per execution that allows weak references.
        _, notes = _executions.pop(id(scratchpad), (scratchpad, {}))
        _executions[id(scratchpad)] = (scratchpad, notes)
        if len(_executions) > _MAX_EXECUTIONS:
            _executions.pop(next(iter(_executions)))
        return notes
