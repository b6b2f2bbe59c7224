"""What a served crew or flow reports to its requester, and what a crew stores while it works."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from crewai import Crew, Task
from crewai.events.types.flow_events import MethodExecutionFinishedEvent, MethodExecutionStartedEvent
from crewai.events.types.llm_events import LLMStreamChunkEvent
from crewai.events.types.task_events import TaskCompletedEvent, TaskStartedEvent
from crewai.events.types.tool_usage_events import ToolUsageFinishedEvent, ToolUsageStartedEvent
from mqtt_agent import TaskContext
from mqtt_agent.errors import MQTTAgentError

from crewai_mqtt_agent.places import Places

__all__ = ["Reporter", "artifact_name", "output_value"]


class Reporter:
    """A sink for CrewAI's events: it reports them to the requester, and stores the outputs of finished tasks.

    Args:
        task: The requester's task.
        crew: The crew, whose finished tasks are counted as progress and stored for another attempt; None for a flow.
        places: What the crew has done in earlier attempts; None for a flow.
    """

    def __init__(self, task: TaskContext, crew: Crew | None = None, places: Places | None = None) -> None:
        self._task = task.in_thread()
        self._tasks: list[Task] = [] if crew is None else crew.tasks
        self._places = places
        self._steps = 0 if places is None else places.done
        self._closed = False

    def close(self) -> None:
        """End the reports: the attempt is over, and later events are dropped."""
        self._closed = True

    def __call__(self, source: Any, event: Any) -> None:
        """Take one event, on the thread on which CrewAI emitted it."""
        if isinstance(event, TaskStartedEvent):
            self._started(event)
        elif isinstance(event, TaskCompletedEvent):
            self._completed(event)
        elif isinstance(event, ToolUsageStartedEvent):
            self._progress(f"tool: {event.tool_name}")
        elif isinstance(event, ToolUsageFinishedEvent) and event.failure is not None:
            self._progress(f"tool: {event.tool_name}: {_short(event.failure.message)}")
        elif isinstance(event, MethodExecutionStartedEvent):
            self._progress(f"step: {event.method_name}")
        elif isinstance(event, MethodExecutionFinishedEvent):
            self._steps += 1
        elif isinstance(event, LLMStreamChunkEvent) and event.chunk:
            self._report(self._task.stream, event.chunk)

    def _started(self, event: TaskStartedEvent) -> None:
        index = None if self._places is None else self._places.index(event.task)
        if self._places is not None and index is not None and self._places.begin(index):
            self._report(self._task.save, self._places.state)
        self._progress(f"task: {_short(_name(event))}")

    def _completed(self, event: TaskCompletedEvent) -> None:
        index = None if self._places is None else self._places.index(event.task)
        name = _name(event)
        if self._places is not None and index is not None:
            self._places.finish(index, event.output)
            # The save blocks. The crew continues only after the save, so that no finished task is done again.
            self._report(self._task.save, self._places.state)
            self._steps = self._places.done
            name = artifact_name(self._tasks, index)
        self._report(self._task.artifact, name, output_value(event.output))
        self._progress(f"done: {_short(name)}")

    def _progress(self, message: str) -> None:
        total = None if self._places is None else float(len(self._tasks))
        self._report(self._task.progress, float(self._steps), total, message)

    def _report(self, report: Callable[..., None], *arguments: Any) -> None:
        if not self._closed:
            with contextlib.suppress(MQTTAgentError):  # a run that was canceled meanwhile ends by itself
                report(*arguments)


def output_value(output: Any) -> Any:
    """The output of a crew, a task or a flow as JSON: the model, the dictionary, or the text."""
    model = getattr(output, "pydantic", None)
    if model is not None:
        return model.model_dump(mode="json")
    as_dict = getattr(output, "json_dict", None)
    if as_dict is not None:
        return as_dict
    return getattr(output, "raw", output)


def artifact_name(tasks: list[Task], index: int) -> str:
    """The name of the artifact of a task: the task's name if no other task has it, else ``task-N``."""
    name = tasks[index].name
    alone = sum(each.name == name for each in tasks) == 1
    return name if name and alone else f"task-{index + 1}"


def _name(event: Any) -> str:
    task = event.task
    return str(getattr(task, "name", None) or getattr(task, "description", None) or event.task_name or "task")


def _short(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 80 else line[:79] + "…"
