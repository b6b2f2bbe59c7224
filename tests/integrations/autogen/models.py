"""Language models that say what the test wants: the only thing here that is not real."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from autogen_core import FunctionCall
from autogen_core.models import CreateResult, ModelFamily, ModelInfo, RequestUsage
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
