"""A call or a task without a result, as LangChain passes it to the language model and to the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import ToolException
from mqtt_agent.adapting.failures import failure_of
from mqtt_agent.errors import ToolFailed

from langchain_mqtt_agent.content import content_of
from langchain_mqtt_agent.run import Artifact

__all__ = ["HandleToolError", "RemoteToolException"]

HandleToolError = bool | str | Callable[[ToolException], str]
"""What the language model is told when a call fails; see :class:`MQTTToolkit`."""


class RemoteToolException(ToolException):
    """A remote tool or a remote agent has no result. The ``__cause__`` is the error of :mod:`mqtt_agent.errors`.

    Attributes:
        artifact: The artifact of the tool message: ``code``, ``data``, ``retryable``, and what is known about the call
            or the task. ``structured_content`` is None. See :class:`mqtt_agent.adapting.failures.Failure`.
        content: The content blocks of the tool's error, when the tool gave some, such as an image; else None.
    """

    def __init__(self, message: str, artifact: Artifact) -> None:
        super().__init__(message)
        self.artifact: Artifact = artifact
        self.content: str | list[dict[str, Any]] | None = None

    @classmethod
    def of(cls, error: Exception, about: Artifact, *, repeatable: bool = False) -> RemoteToolException:
        """Make the exception for an error.

        Args:
            error: The error of the call or the task.
            about: What is known about the call or the task.
            repeatable: Whether the call may run twice.
        """
        failure = failure_of(error, repeatable=repeatable)
        made = cls(failure.message, {"structured_content": None, **about, **failure.as_dict()})
        if isinstance(error, ToolFailed) and error.content:
            made.content = content_of(None, error.content)
        return made

    def told(self, handle_tool_error: HandleToolError) -> str:
        """The content of the tool message, as LangChain's ``handle_tool_error`` decides. The value is not false."""
        if callable(handle_tool_error):
            return handle_tool_error(self)
        return handle_tool_error if isinstance(handle_tool_error, str) else str(self)

    def as_message(self, handle_tool_error: HandleToolError, tool: str, tool_call_id: str) -> ToolMessage:
        """The tool message. LangChain itself would make this message without the artifact."""
        content: Any = self.content if handle_tool_error is True and self.content else self.told(handle_tool_error)
        return ToolMessage(content, artifact=self.artifact, tool_call_id=tool_call_id, name=tool, status="error")
