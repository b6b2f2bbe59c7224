"""The memory of a hosted graph that has no checkpointer of its own. It does not grow with each task."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

from mqtt_agent.adapting.logs import logger_of

__all__ = ["HostMemory", "check_shared"]

logger: logging.Logger = logger_of(__name__)

_NS_OF_ONE_RUN = ":"
"""A checkpoint namespace with this character belongs to one run of a subgraph, and nothing reads it afterwards."""


class HostMemory:
    """Checkpoints in memory, for the conversations that were used last.

    A task without a conversation is forgotten when it is over. A conversation keeps its latest checkpoint only.

    Args:
        agent_id: The agent that hosts the graph, for the log.
        limit: How many conversations without a running task are kept.

    Attributes:
        saver: LangGraph's checkpointer.

    Raises:
        ValueError: ``limit`` is below 0.
    """

    def __init__(self, agent_id: str, limit: int) -> None:
        from langgraph.checkpoint.memory import InMemorySaver

        if limit < 0:
            raise ValueError(f"max_conversations must be 0 or more, not {limit}")
        self.saver: Any = InMemorySaver()
        self._agent_id = agent_id
        self._limit = limit
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._told = False

    def begin(self, thread: str) -> None:
        """A task begins in a thread, so the thread is not idle."""
        self._idle.pop(thread, None)

    def end(self, thread: str, *, conversation: bool, shrinks: bool) -> None:
        """A task in a thread is over, and will not run again.

        Args:
            thread: The thread's id.
            conversation: Whether later tasks may continue in this thread.
            shrinks: Whether the latest checkpoint has the whole state. A graph with a ``DeltaChannel`` also needs the
                earlier checkpoints.
        """
        if not conversation:
            self.saver.delete_thread(thread)
            return
        if shrinks:
            self._keep_latest(thread)
        self._idle[thread] = None
        while len(self._idle) > self._limit:
            oldest, _ = self._idle.popitem(last=False)
            self.saver.delete_thread(oldest)
            if not self._told:
                self._told = True
                logger.warning(
                    "agent %s forgets conversation %.80s: its memory keeps the %d conversations that were used last,"
                    " and this message comes only once; raise max_conversations, or pass a checkpointer that keeps all",
                    self._agent_id,
                    oldest,
                    self._limit,
                )

    def _keep_latest(self, thread: str) -> None:
        latest: dict[str, Any] = {}
        for each in self.saver.list({"configurable": {"thread_id": thread}}):  # the latest checkpoints come first
            namespace = each.config["configurable"]["checkpoint_ns"]
            if _NS_OF_ONE_RUN not in namespace:
                latest.setdefault(namespace, each)
        self.saver.delete_thread(thread)
        for namespace, each in latest.items():
            place = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
            self.saver.put(place, each.checkpoint, each.metadata, each.checkpoint["channel_versions"])


def check_shared(checkpointer: Any) -> None:
    """Check that the processes of a pool may share a checkpointer.

    Raises:
        ValueError: The graph's memory is in the process.
    """
    from langgraph.checkpoint.memory import InMemorySaver

    if checkpointer is None or isinstance(checkpointer, (bool, InMemorySaver)):
        raise ValueError(
            "pool=True needs a checkpointer that all processes share: the next task of a context may run in another "
            "process; pass checkpointer=PostgresSaver(...) or another saver that keeps its data in a database"
        )
