"""A CrewAI task becomes a task for a peer.

``metadata["crewai"]`` of the task holds more for a host that uses CrewAI: ``role``, ``expected_output``,
``output_schema``, ``human_input``, and ``tools``. The host calls one of these tools by asking a question.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crewai.agent.utils import build_task_prompt_with_schema, format_task_with_context
from crewai.tools import BaseTool
from crewai.utilities.agent_utils import convert_tools_to_openai_schema
from mqtt_agent.adapting.content import Text
from mqtt_agent.adapting.conversations import own_name
from mqtt_agent.adapting.parts import message_of

from crewai_mqtt_agent.asking import CrewAsker, current_requester
from crewai_mqtt_agent.files import input_files

if TYPE_CHECKING:
    from crewai import Task

__all__ = ["Assignment", "assign"]


@dataclass(frozen=True)
class Assignment:
    """One task for a peer.

    Attributes:
        task_id: The id of the task. The same work has the same id, so work that is given twice is done once.
        prompt: Everything that the peer needs to know, as text.
        title: The title of the task, one line for people.
        metadata: See the docstring of this module.
        tools: The tools that the peer may call, by their names in ``metadata``.
        messages: The prompt with the input files of the task, as messages; None when there are no files.
    """

    task_id: str
    prompt: str
    title: str
    metadata: dict[str, Any]
    tools: dict[str, Any]
    messages: list[dict[str, Any]] | None = None

    def hidden(self, tool: str, arguments: Iterable[str]) -> list[str]:
        """The names among the arguments of a tool that the peer was not told of, in ``metadata``."""
        [about] = [each for each in self.metadata["crewai"]["tools"] if each["name"] == tool]
        told: dict[str, Any] = about["parameters"]
        if told.get("additionalProperties"):
            return []
        return [name for name in arguments if name not in told.get("properties", {})]


def assign(
    task: Task, role: str, context: str | None, tools: list[BaseTool] | None, crew: Any, run_id: str | None
) -> Assignment:
    """Make the task for a peer from a CrewAI task. Under one ``run_id``, the same work gets the same task id."""
    prompt = format_task_with_context(build_task_prompt_with_schema(task, task.prompt()), context)
    about: dict[str, Any] = {"role": role, "expected_output": task.expected_output}
    model = task.output_pydantic or task.output_json
    if model is not None:
        about["output_schema"] = model.model_json_schema()
    if task.human_input:
        about["human_input"] = True
    told, _, by_name = convert_tools_to_openai_schema(tools or [])
    if told:
        about["tools"] = [each["function"] for each in told]
    title = (task.name or task.description).strip().splitlines()[0][:120] if task.description.strip() else ""
    metadata = {"crewai": about}
    files = input_files(task, crew)
    messages = [message_of([Text(prompt), *files], role="user").as_json()] if files else None
    task_id = _task_id(task, crew, run_id, prompt, {**metadata, "messages": messages} if files else metadata)
    return Assignment(task_id, prompt, title, metadata, by_name, messages)


def _task_id(task: Task, crew: Any, run_id: str | None, prompt: str, metadata: dict[str, Any]) -> str:
    tasks: list[Any] = list(getattr(crew, "tasks", ()))
    requester = current_requester.get()
    # When a run is taken up again, its crew is a new object: a task has another id there, and the same index.
    place = next((str(index) for index, each in enumerate(tasks) if each is task), None)
    if place is None:
        place = _place_of_delegated_work(requester, prompt) or str(task.id)
    run = own_name(requester.task) if requester is not None else run_id
    run = run or getattr(crew, "_kickoff_event_id", None) or f"{task.id}/{task.start_time}"
    attempts = [task.retry_count, *sorted(task._guardrail_retry_counts.items())]  # pyright: ignore[reportPrivateUsage]
    words = json.dumps([run, place, attempts, prompt, metadata], sort_keys=True, default=str)
    return f"crewai-{hashlib.sha256(words.encode()).hexdigest()[:40]}"


def _place_of_delegated_work(requester: CrewAsker | None, prompt: str) -> str | None:
    """The place of work that a member delegates in a served crew: the member's own task, and how often this work."""
    place = None if requester is None else requester.place()
    if requester is None or place is None:
        return None
    requester.delegated[place, prompt] += 1
    return f"{place}/{requester.delegated[place, prompt]}"
