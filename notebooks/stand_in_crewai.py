"""The language model of the CrewAI notebook: a real model if a provider's key is set, else a scripted stand-in."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from crewai import LLM, BaseLLM
from provider import provider


def language_model(finds: str, answer: str, pause: float = 0.0) -> BaseLLM:
    """Return a language model, and print which one it is.

    Args:
        finds: A regular expression that the stand-in searches for in its messages.
        answer: The stand-in's answer; ``{0}`` is the first match. A real model ignores it.
        pause: Seconds that the stand-in waits before it answers.
    """
    found = provider()
    if found is not None:
        key, name, model = found
        return LLM(model=f"{'gemini' if name == 'google' else name}/{model}", api_key=os.environ[key])
    return StandIn(model="stand-in", finds=finds, answer=answer, pause=pause)


class StandIn(BaseLLM):
    """A scripted replacement for a language model."""

    model: str
    finds: str
    answer: str
    pause: float = 0.0

    def get_input_tokens_count(self, messages: Any, *args: Any, **options: Any) -> int:
        """Estimate the number of tokens of the messages."""
        return len(str(messages)) // 4

    def call(self, messages: Any, *args: Any, **options: Any) -> str:
        """Wait, and answer."""
        time.sleep(self.pause)
        said = messages if isinstance(messages, str) else "\n".join(str(each.get("content")) for each in messages)
        return self.answer.format(*re.findall(self.finds, said))
