"""A language model with scripted answers."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage


class ScriptedModel(FakeMessagesListChatModel):
    """Gives one message after the other, and accepts any tools."""

    def bind_tools(self, tools: Any, **options: Any) -> ScriptedModel:
        return self


def calls(*wanted: tuple[str, dict[str, Any]]) -> ScriptedModel:
    """A model that makes these tool calls, one in each turn, and then says that it has finished."""
    turns = [
        AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"call-{number}"}])
        for number, (name, arguments) in enumerate(wanted)
    ]
    return ScriptedModel(responses=[*turns, AIMessage("done")])
