"""A language model with scripted answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from crewai import BaseLLM, Crew, CrewOutput
from pydantic import PrivateAttr

Turn = str | dict[str, Any] | Callable[[list[dict[str, Any]]], Any]


class ScriptedLLM(BaseLLM):
    """Gives one answer after the other, and repeats the last one: a text, tool calls, or the result of a function.

    Attributes:
        asked: The messages of each call.
        offered: The tools of each call.
    """

    _turns: list[Turn] = PrivateAttr(default_factory=list)
    _asked: list[list[dict[str, Any]]] = PrivateAttr(default_factory=list)
    _offered: list[list[dict[str, Any]]] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @classmethod
    def of(cls, *turns: Turn) -> ScriptedLLM:
        llm = cls(model="scripted")
        llm._turns = list(turns)
        return llm

    @property
    def asked(self) -> list[list[dict[str, Any]]]:
        return self._asked

    @property
    def offered(self) -> list[list[dict[str, Any]]]:
        return self._offered

    def supports_function_calling(self) -> bool:
        return True

    def get_input_tokens_count(self, messages: Any, *args: Any, **options: Any) -> int:
        return len(str(messages)) // 4

    def call(self, messages: Any, tools: Any = None, *args: Any, **options: Any) -> Any:
        with self._lock:
            asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
            turn = self._turns[min(len(self._asked), len(self._turns) - 1)]
            self._asked.append(asked)
            self._offered.append(list(tools or []))
        return turn(asked) if callable(turn) else turn

    async def acall(self, messages: Any, tools: Any = None, *args: Any, **options: Any) -> Any:
        return self.call(messages, tools)


def says_calls(*wanted: tuple[str, dict[str, Any]]) -> Any:
    """An answer that calls tools."""
    return lambda messages: [
        {"id": f"call-{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(wanted)
    ]


def last_text(messages: list[dict[str, Any]]) -> str:
    return str(messages[-1]["content"])


def run(crew: Crew, **inputs: Any) -> CrewOutput:
    """Kick the crew off."""
    output = crew.kickoff(inputs) if inputs else crew.kickoff()
    assert isinstance(output, CrewOutput)
    return output
