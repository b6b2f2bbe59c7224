"""The language model of the LangChain notebooks: a real model if a provider's key is set, else a stand-in."""

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
    """Return a chat model, and print which one it is.

    Args:
        calls: The tool calls that the stand-in makes, one after the other.
        answer: The stand-in's final answer; ``{0}``, ``{1}`` are the results, and ``{asked}`` is the question. A real
            model ignores it.
    """
    found = provider()
    if found is not None:
        _, name, model = found
        return init_chat_model(f"{'google_genai' if name == 'google' else name}:{model}")
    return StandIn(calls=list(calls), answer=answer)


class StandIn(BaseChatModel):
    """A scripted replacement for a language model; the tools that it calls are real, and so are their results."""

    calls: list[tuple[str, dict[str, Any]]]
    answer: str

    @property
    def _llm_type(self) -> str:
        return "scripted-stand-in"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> StandIn:  # type: ignore[override]
        """Ignore the tools, because the script already knows them."""
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
