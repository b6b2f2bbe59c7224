"""Builds what CrewAI makes at the first use of a class, before several tasks use the class at once."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator

from crewai import Flow

__all__ = ["build_flow_classes"]

_FLOWS = ("crewai.agents.agent_executor", "crewai.memory.encoding_flow", "crewai.memory.recall_flow")
"""The modules with CrewAI's own flows: the work of each agent of a crew is a flow too."""
_building = threading.Lock()


def build_flow_classes() -> None:
    """Let CrewAI build the definitions of all flow classes that the process has and that have none yet.

    CrewAI builds a definition at the first use of the class, reads all attributes of the class for it, and then writes
    one. A second thread that reads at this moment fails, and so would its task: a host gives each task a thread.
    """
    with _building:
        for name in _FLOWS:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        for flow in _subclasses(Flow):
            if "_flow_definition" not in flow.__dict__:
                with contextlib.suppress(Exception):  # a task that uses this class raises the error again
                    flow.flow_definition()


def _subclasses(base: type[Flow]) -> Iterator[type[Flow]]:
    for each in base.__subclasses__():
        yield each
        yield from _subclasses(each)
