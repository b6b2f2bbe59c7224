"""What a served crew has done, by the places of its tasks, so that another attempt does not do that again.

The crew runs from its first task in each attempt. A task that is finished gives its stored output at once. So the other
tasks get the same context as in the attempt that was killed, also behind async tasks and behind tasks that are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crewai import Crew, Task
from crewai.tasks.conditional_task import ConditionalTask
from crewai.tasks.task_output import TaskOutput
from pydantic import ValidationError

__all__ = ["Places"]


class Places:
    """The tasks of a crew, and what is stored about each place in the crew's list.

    Args:
        crew: The crew, as its factory made it.
        saved: The value that ``save`` stored in an earlier attempt; None when there is none.

    Attributes:
        finished: The indexes of the tasks that were finished in an earlier attempt, in ascending order.
    """

    def __init__(self, crew: Crew, saved: Any) -> None:
        self._tasks: list[Task] = crew.tasks
        self._outputs: dict[str, Any] = {}
        self._decisions: dict[str, bool] = {}
        self.finished: list[int] = []
        self._restore(saved if isinstance(saved, dict) else {})

    @property
    def done(self) -> int:
        """How many tasks are finished, in this attempt or in an earlier one."""
        return len(self._outputs)

    @property
    def state(self) -> dict[str, Any]:
        """What is to be stored, as a JSON object."""
        return {"outputs": self._outputs, "decisions": self._decisions}

    def index(self, task: Any) -> int | None:
        """The place of a task; None when the task is no task of the crew, such as work that an agent delegates."""
        return next((index for index, each in enumerate(self._tasks) if each is task), None)

    def begin(self, index: int) -> bool:
        """Note that a task has begun: which conditional tasks up to this task are done, and which are skipped.

        Returns:
            Whether there is something new to store.
        """
        known = len(self._decisions)
        for place in range(index + 1):
            if isinstance(self._tasks[place], ConditionalTask):
                self._decisions.setdefault(str(place), place == index or str(place) in self._outputs)
        return len(self._decisions) > known

    def finish(self, index: int, output: TaskOutput) -> None:
        """Note that a task is finished."""
        model = output.pydantic
        self._outputs[str(index)] = {
            "key": self._tasks[index].key,
            "raw": output.raw,
            "agent": output.agent,
            "json": output.json_dict,
            "pydantic": None if model is None else model.model_dump(mode="json"),
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        outputs, decisions = saved.get("outputs") or {}, saved.get("decisions") or {}
        for index, task in enumerate(self._tasks):
            place = str(index)
            stored = outputs.get(place)
            if stored is not None:
                output = _output(task, stored)
                if output is None:
                    return  # the factory made another task here: the later outputs belong to another crew
                self._outputs[place] = stored
                self.finished.append(index)
                _finish(task, output)
            decided = stored is not None or decisions.get(place)
            if isinstance(task, ConditionalTask) and decided is not None:
                self._decisions[place] = decided
                task.condition = _always(decided)


def _output(task: Task, stored: dict[str, Any]) -> TaskOutput | None:
    """The stored output of a task; None when it is the output of another task."""
    model = task.output_pydantic
    if stored["key"] != task.key:
        return None
    try:
        return TaskOutput(
            name=task.name or task.description,
            description=task.description,
            expected_output=task.expected_output,
            raw=stored["raw"],
            agent=stored["agent"],
            json_dict=stored["json"],
            pydantic=model.model_validate(stored["pydantic"]) if model and stored["pydantic"] is not None else None,
            output_format=task._get_output_format(),  # pyright: ignore[reportPrivateUsage]
        )
    except ValidationError:
        return None


def _finish(task: Task, output: TaskOutput) -> None:
    async def finished(*args: Any, **options: Any) -> TaskOutput:
        return output

    task.output = output
    # The attribute of the object hides the method of the class: `Crew.akickoff` gets the output, and does no work.
    object.__setattr__(task, "aexecute_sync", finished)


def _always(whether: bool) -> Callable[[Any], bool]:
    return lambda output: whether
