"""Language models with scripted answers: the only part of these tests that is not real."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autogen_core import FunctionCall
from autogen_core.models import AssistantMessage, CreateResult, LLMMessage, ModelFamily, ModelInfo, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient

INFO = ModelInfo(
    vision=True, function_calling=True, json_output=True, structured_output=True, family=ModelFamily.UNKNOWN
)


def says(*answers: str | CreateResult) -> ReplayChatCompletionClient:
    """A model with these answers, one after the other."""
    return ReplayChatCompletionClient(list(answers), model_info=INFO)


def calls(*wanted: tuple[str, dict[str, Any]]) -> CreateResult:
    """An answer that calls tools, all at once."""
    calls: Sequence[FunctionCall] = [
        FunctionCall(id=f"call-{number}", name=name, arguments=json.dumps(arguments))
        for number, (name, arguments) in enumerate(wanted)
    ]
    usage = RequestUsage(prompt_tokens=1, completion_tokens=1)
    return CreateResult(finish_reason="function_calls", content=list(calls), usage=usage, cached=False)


class Thinks(ReplayChatCompletionClient):
    """A scripted model without state, as real models are: its answer depends only on the given conversation.

    Args:
        answers: The first answer, the second answer, and so on.
        gate: A folder. Before answer number ``at``, the model makes a file ``entered`` there, and waits for ``open``.
        at: The number of the answer that waits; 1 is the first.
    """

    component_provider_override = "tests.Thinks"

    def __init__(self, answers: Sequence[str | CreateResult], gate: str | None = None, at: int = 1) -> None:
        super().__init__(list(answers), model_info=INFO)
        self._gate = None if gate is None else Path(gate)
        self._at = at

    async def create(self, messages: Sequence[LLMMessage], **options: Any) -> CreateResult:
        self._current_index = sum(1 for message in messages if isinstance(message, AssistantMessage))
        if self._gate is not None and self._current_index == self._at - 1:
            with (self._gate / "entered").open("a") as entered:
                entered.write(f"{os.getpid()}\n")
            while not (self._gate / "open").exists():
                await asyncio.sleep(0.02)  # another process opens the gate by making a file
        return await super().create(messages, **options)
