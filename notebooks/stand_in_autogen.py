"""The language model of the AutoGen notebook: a real model if a provider's key is set, else a scripted stand-in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelFamily,
    ModelInfo,
)
from autogen_ext.models.replay import ReplayChatCompletionClient
from provider import provider

INFO = ModelInfo(
    vision=False, function_calling=True, json_output=True, structured_output=True, family=ModelFamily.UNKNOWN
)


def model_client(*answers: str) -> ChatCompletionClient:
    """Return a model client, and print which model it uses.

    Args:
        answers: The stand-in's answers, one after the other. A real model ignores them.
    """
    found = provider()
    if found is None:
        return StandIn(list(answers), model_info=INFO)
    try:
        from autogen_ext.models.openai import OpenAIChatCompletionClient  # works with all of these providers
    except ImportError as error:
        raise ImportError("a real model needs the openai extra: pip install 'autogen-ext[openai]'") from error

    key, _, model = found
    return OpenAIChatCompletionClient(model=model, api_key=os.environ[key], model_info=INFO)


class StandIn(ReplayChatCompletionClient):
    """A scripted replacement for a language model: its answer depends only on the given conversation."""

    async def create_stream(
        self, messages: Sequence[LLMMessage], **options: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Stream the answer, one word at a time."""
        self._current_index = sum(1 for message in messages if isinstance(message, AssistantMessage))
        async for part in super().create_stream(messages, **options):
            await asyncio.sleep(0.15)
            yield part
