"""What a hosted graph did for a task: the usage of its language models, and the calls of its tools."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langchain_core.callbacks import UsageMetadataCallbackHandler
from mqtt_agent.adapting.content import as_text
from mqtt_agent.errors import WireError
from mqtt_agent.wire import to_json

__all__ = ["RunReport"]

_MAX_CALLS = 100
"""How many tool calls a report has at most."""
_MAX_ARGUMENTS = 2_000
"""The length above which the arguments of a tool call are left out, in characters of their JSON."""


class RunReport(UsageMetadataCallbackHandler):
    """Notes each language model and each tool of a run."""

    run_inline: bool = True  # otherwise LangChain would need a thread of the event loop's default executor

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[UUID, dict[str, Any]] = {}

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        inputs: Any = None,
        name: str | None = None,
        **about: Any,
    ) -> None:
        """Note a tool call."""
        if len(self._calls) < _MAX_CALLS:
            call = {"name": name or (serialized or {}).get("name"), "status": "running"}
            try:
                arguments = to_json(inputs)
                if arguments is not None and len(as_text(arguments)) <= _MAX_ARGUMENTS:
                    call["args"] = arguments
            except WireError:
                pass  # the call is told without its arguments
            self._calls[run_id] = call

    def on_tool_end(self, output: Any, *, run_id: UUID, **about: Any) -> None:
        """Note how a tool call ended."""
        self._end(run_id, getattr(output, "status", "success"))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **about: Any) -> None:
        """Note that a tool call failed."""
        self._end(run_id, "error")

    def _end(self, run_id: UUID, status: str) -> None:
        if run_id in self._calls:
            self._calls[run_id]["status"] = status

    @property
    def data(self) -> dict[str, Any]:
        """The report: ``usage`` by model, and ``tool_calls`` in order; without what there was not."""
        report = {"usage": to_json(self.usage_metadata), "tool_calls": list(self._calls.values())}
        return {name: value for name, value in report.items() if value}
