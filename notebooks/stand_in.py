"""The language model of the LangChain notebooks: a real one where a provider's key is set, else a stand-in."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from provider import provider

Calls = Sequence[tuple[str, dict[str, Any]]]


def chat_model(calls: Calls, answer: str) -> BaseChatModel:
    """A chat model, and a line that says which.

    Args:
        calls: The tool calls that the stand-in makes, one after the other.
        answer: What it says then; ``{0}``, ``{1}`` are the results, and ``{asked}`` is what it was asked. A real model
            finds words of its own.
    """
    found = provider()
    if found is not None:
        _, name, model = found
        return init_chat_model(f"{'google_genai' if name == 'google' else name}:{model}")
    return StandIn(calls=list(calls), answer=answer)


class StandIn(BaseChatModel):
    """Plays a language model without being one; the tools that it calls are real, and so are their results."""

    calls: list[tuple[str, dict[str, Any]]]
    answer: str

    @property
    def _llm_type(self) -> str:
        return "scripted-stand-in"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> StandIn:  # type: ignore[override]
        """Take the tools as they are: the script knows them."""
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        asked = max(number for number, message in enumerate(messages) if isinstance(message, HumanMessage))
        results = [message.text for message in messages[asked:] if isinstance(message, ToolMessage)]
        if len(results) < len(self.calls):
            name, arguments = self.calls[len(results)]
            call = {"name": name, "args": arguments, "id": f"call-{uuid.uuid4().hex[:12]}"}
            message = AIMessage("", tool_calls=[call])
        else:
            message = AIMessage(self.answer.format(*results, asked=messages[asked].text))
        return ChatResult(generations=[ChatGeneration(message=message)])
