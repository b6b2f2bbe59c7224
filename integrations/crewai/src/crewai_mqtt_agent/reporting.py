"""What a served crew reports to its requester and stores while it works, and how it continues after a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from crewai import Crew, Task
from crewai.events.types.flow_events import MethodExecutionFinishedEvent, MethodExecutionStartedEvent
from crewai.events.types.llm_events import LLMStreamChunkEvent
from crewai.events.types.task_events import TaskCompletedEvent, TaskStartedEvent
from crewai.events.types.tool_usage_events import ToolUsageFinishedEvent, ToolUsageStartedEvent
from crewai.tasks.task_output import TaskOutput
from mqtt_agent import TaskContext
from mqtt_agent.errors import MQTTAgentError

__all__ = ["Reporter", "artifact_name", "output_value", "restore", "saved_output"]


class Reporter:
    """A sink for CrewAI's events: it reports them to the requester, and stores the outputs of finished tasks.

    Args:
        task: The requester's task.
        crew: The crew, whose finished tasks are counted as progress and stored for another attempt; None for a flow.
    """

    def __init__(self, task: TaskContext, crew: Crew | None = None) -> None:
        self._task = task.in_thread()
        self._crew = crew
        saved = task.saved if isinstance(task.saved, dict) else {}
        self._outputs: dict[str, Any] = dict(saved.get("outputs") or {})
        self._steps = 0
        self._closed = False

    def close(self) -> None:
        """End the reports: the attempt is over, and later events are dropped."""
        self._closed = True

    def __call__(self, source: Any, event: Any) -> None:
        """Take one event, on the thread on which CrewAI emitted it."""
        if isinstance(event, TaskStartedEvent):
            self._progress(f"task: {_short(_name(event))}")
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

    def _completed(self, event: TaskCompletedEvent) -> None:
        tasks = self._crew.tasks if self._crew is not None else []
        index = next((number for number, each in enumerate(tasks) if each is event.task), None)
        name = _name(event)
        if index is not None:
            self._outputs[str(index)] = saved_output(tasks[index].key, event.output)
            # The save blocks. The crew continues only after the save, so that no finished task is done again.
            self._report(self._task.save, {"outputs": self._outputs})
            self._steps = len(self._outputs)
            name = artifact_name(tasks, index)
        self._report(self._task.artifact, name, output_value(event.output))
        self._progress(f"done: {_short(name)}")

    def _progress(self, message: str) -> None:
        total = None if self._crew is None else float(len(self._crew.tasks))
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


def saved_output(key: str, output: TaskOutput) -> dict[str, Any]:
    """The output of a finished task in the form in which it is stored."""
    model = output.pydantic
    return {
        "key": key,
        "raw": output.raw,
        "agent": output.agent,
        "json": output.json_dict,
        "pydantic": None if model is None else model.model_dump(mode="json"),
    }


def restore(crew: Crew, saved: Any) -> int:
    """Give the stored outputs to the crew's tasks, up to the first task that was not finished or has changed.

    Returns:
        The number of tasks that got an output.
    """
    outputs = saved.get("outputs") if isinstance(saved, dict) else None
    count = 0
    for index, task in enumerate(crew.tasks):
        stored = (outputs or {}).get(str(index))
        if not isinstance(stored, dict) or stored.get("key") != task.key:
            break
        model = task.output_pydantic
        task.output = TaskOutput(
            name=task.name or task.description,
            description=task.description,
            expected_output=task.expected_output,
            raw=stored["raw"],
            agent=stored["agent"],
            json_dict=stored["json"],
            pydantic=model.model_validate(stored["pydantic"]) if model and stored["pydantic"] is not None else None,
            output_format=task._get_output_format(),  # pyright: ignore[reportPrivateUsage]
        )
        count += 1
    return count


def _name(event: Any) -> str:
    task = event.task
    return str(getattr(task, "name", None) or getattr(task, "description", None) or event.task_name or "task")


def _short(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 80 else line[:79] + "…"
