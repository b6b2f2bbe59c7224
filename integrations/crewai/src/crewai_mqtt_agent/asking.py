"""A served crew or flow asks its requester: for human input, flow input, feedback, and calls of lent tools."""

from __future__ import annotations

import contextvars
import json
from collections import Counter
from typing import Any

from crewai import Task
from crewai.context import get_current_task_id
from crewai.core.providers.human_input import SyncHumanInputProvider
from crewai.flow.async_feedback import ConsoleProvider, PendingFeedbackContext
from crewai.tools import BaseTool
from mqtt_agent import TaskContext
from mqtt_agent.adapting.asking import Asker
from pydantic import PrivateAttr

from crewai_mqtt_agent.arguments import Arguments, make_arguments_model, never_cache, wire_arguments
from crewai_mqtt_agent.reporting import output_value

__all__ = ["TOOL_CALL", "CrewAsker", "FlowFeedback", "FlowInput", "HumanInput", "borrowed_tools", "current_requester"]

TOOL_CALL = "x-crewai-tool"
"""The key in a question's schema under which the peer names a tool to call; the answer is the tool's output."""


class CrewAsker(Asker):
    """Asks the requester of a served crew or flow.

    Attributes:
        tasks: The tasks of the crew; empty for a flow.
        delegated: How often each work was delegated at each place, in this attempt.
    """

    def __init__(self, task: TaskContext) -> None:
        super().__init__(task)
        self.tasks: list[Task] = []
        self.delegated: Counter[tuple[str, str]] = Counter()

    def place(self) -> str | None:
        """The place in the crew of the task that asks; work that an agent delegates belongs to that agent's task."""
        current = get_current_task_id()
        return next((str(index) for index, each in enumerate(self.tasks) if str(each.id) == current), None)


current_requester: contextvars.ContextVar[CrewAsker | None] = contextvars.ContextVar(
    "crewai_mqtt_requester", default=None
)
"""The asker of the run of a served crew in which the current code runs; None outside of a run.

``task.id`` is the id of the run, the same in each attempt, so the crew's remote members get the same tasks again.
When the host stops, ``task.interrupted`` is true: the members' tasks go on, since the next attempt wants their results.
"""


class HumanInput(SyncHumanInputProvider):
    """Asks the requester for feedback on a task with ``human_input``, where CrewAI would ask at the console."""

    def __init__(self, requester: Asker) -> None:
        self._requester = requester

    def handle_feedback(self, formatted_answer: Any, context: Any) -> Any:
        """Show the answer to the requester and let the crew change it, until the requester accepts the answer."""
        answer = formatted_answer
        while context.ask_for_human_input:
            if self._done(self._requester.ask(self._question(answer)), context):
                break
            answer = context._invoke_loop()
        return answer

    async def handle_feedback_async(self, formatted_answer: Any, context: Any) -> Any:
        """Show the answer to the requester; the async form of :meth:`handle_feedback`."""
        answer = formatted_answer
        while context.ask_for_human_input:
            if self._done(await self._requester.aask(self._question(answer)), context):
                break
            answer = await context._ainvoke_loop()
        return answer

    def _question(self, answer: Any) -> str:
        return f"{self._get_output_string(answer)}\n\nDo you want changes? An empty reply accepts this answer."

    @staticmethod
    def _done(feedback: Any, context: Any) -> bool:
        if not str(feedback or "").strip():
            context.ask_for_human_input = False
            return True
        context.messages.append(context._format_feedback_message(str(feedback)))
        return False


class FlowInput:
    """Asks the requester the questions that a flow asks with ``Flow.ask``."""

    def __init__(self, requester: Asker) -> None:
        self._requester = requester

    def request_input(self, message: str, flow: Any, metadata: dict[str, Any] | None = None) -> str | None:
        """Ask the requester; this is the method of ``crewai.flow.InputProvider``."""
        answer = self._requester.ask(message)
        return None if answer is None else str(answer)


class FlowFeedback:
    """Asks the requester for the feedback of ``@human_feedback``. Outside of a run, it asks at the console."""

    def request_feedback(self, context: PendingFeedbackContext, flow: Any) -> str:
        """Ask the requester; this is the method of ``crewai.flow.HumanFeedbackProvider``."""
        requester = current_requester.get()
        if requester is None:
            return ConsoleProvider().request_feedback(context, flow)
        shown = output_value(context.method_output)
        shown = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, default=str)
        outcomes = f"\nOutcomes: {', '.join(context.emit)}" if context.emit else ""
        answer = requester.ask(f"{shown}\n\n{context.message}{outcomes}")
        return "" if answer is None else str(answer)


class BorrowedTool(BaseTool):
    """A tool of the requester. A call is a question to the requester, so the call outlives a crash of this host."""

    _requester: Asker = PrivateAttr()

    def run(self, /, *args: Any, **arguments: Any) -> Any:
        """Ask the requester to call the tool."""
        return self._run(*args, **arguments)

    def _run(self, /, *args: Any, **arguments: Any) -> Any:
        model = self.args_schema
        assert issubclass(model, Arguments)
        call = {"name": self.name, "arguments": wire_arguments(model, arguments)}
        return self._requester.ask(f"Call the tool {self.name} with {call['arguments']}", {TOOL_CALL: call})


def borrowed_tools(told: Any, requester: Asker) -> list[BaseTool]:
    """Make the tools that a requester lends.

    Args:
        told: The value of ``tools`` in the metadata of the requester's task.
        requester: Asks the requester to call a tool.
    """
    tools: list[BaseTool] = []
    for each in told if isinstance(told, list) else []:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            continue
        parameters = each.get("parameters")
        schema = make_arguments_model(f"{each['name']}_arguments", parameters if isinstance(parameters, dict) else {})
        tool = BorrowedTool(
            name=each["name"],
            description=str(each.get("description") or each["name"]),
            args_schema=schema,
            cache_function=never_cache,
        )
        tool._requester = requester  # pyright: ignore[reportPrivateUsage]
        tools.append(tool)
    return tools
