"""The language model of the CrewAI notebook: a real one where a provider's key is set, else a scripted stand-in."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from crewai import LLM, BaseLLM
from provider import provider


def language_model(finds: str, answer: str, pause: float = 0.0) -> BaseLLM:
    """A language model, and a line that says which.

    Args:
        finds: A pattern: what the stand-in looks for in what it is told.
        answer: What it says then; ``{0}`` is what it found first. A real model finds words of its own.
        pause: Seconds that the stand-in thinks.
    """
    found = provider()
    if found is not None:
        key, name, model = found
        return LLM(model=f"{'gemini' if name == 'google' else name}/{model}", api_key=os.environ[key])
    return StandIn(model="stand-in", finds=finds, answer=answer, pause=pause)


class StandIn(BaseLLM):
    """Plays a language model without being one."""

    model: str
    finds: str
    answer: str
    pause: float = 0.0

    def get_input_tokens_count(self, messages: Any, *args: Any, **options: Any) -> int:
        """About how long it is what it is told."""
        return len(str(messages)) // 4

    def call(self, messages: Any, *args: Any, **options: Any) -> str:
        """Think for a while, and answer."""
        time.sleep(self.pause)
        said = messages if isinstance(messages, str) else "\n".join(str(each.get("content")) for each in messages)
        return self.answer.format(*re.findall(self.finds, said))
