"""Where the things go that a remote end tells while it works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.callbacks.manager import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_async_callback_manager_for_config, get_callback_manager_for_config

__all__ = ["EVENT", "Telling", "heartbeat_of"]

EVENT = "mqtt_agent"
"""The name of the custom events."""


class Telling:
    """Tells updates to LangGraph's stream modes and to LangChain's callbacks, as far as somebody listens.

    Each update goes to the stream writer (mode ``custom``) and, as a custom event named ``mqtt_agent``, to the
    callbacks (``astream_events``); a tool's also to mode ``tools``. Text of a message goes to mode ``messages``, the
    way a chat model's tokens do. Outside a graph and without callbacks nothing is told, and nothing fails.

    Args:
        config: The configuration of the run.
        runtime: LangGraph's runtime, or the one that it injects into a tool; None outside a graph.
        name: Who writes the message.
        message_id: The id of the message whose tokens are told.
    """

    def __init__(
        self, config: RunnableConfig, runtime: Any = None, name: str = "", message_id: str | None = None
    ) -> None:
        self._config = config
        self._writer: Callable[[Any], None] | None = getattr(runtime, "stream_writer", None)
        self._delta: Callable[[Any], None] | None = getattr(runtime, "emit_output_delta", None)
        self._name = name
        self._message_id = message_id
        self._run: CallbackManagerForLLMRun | None = None
        self._arun: AsyncCallbackManagerForLLMRun | None = None

    def write(self, update: dict[str, Any]) -> None:
        """Tell an update to the stream modes."""
        if self._writer is not None:
            self._writer(update)
        if self._delta is not None:
            self._delta(update)

    def tell(self, update: dict[str, Any]) -> None:
        """Tell an update to the stream modes and to the callbacks."""
        self.write(update)
        if _has_parent(self._config):
            dispatch_custom_event(EVENT, update, config=self._config)

    async def atell(self, update: dict[str, Any]) -> None:
        """Tell an update to the callbacks."""
        if _has_parent(self._config):
            await adispatch_custom_event(EVENT, update, config=self._config)

    # Text of a message

    def token(self, text: str) -> None:
        """Tell a piece of the message."""
        if self._run is None:
            manager = get_callback_manager_for_config(self._config)
            if not manager.handlers:
                return
            [self._run] = manager.on_chat_model_start({"name": self._name}, [[]], name=self._name)
        self._run.on_llm_new_token(text, chunk=self._chunk(text))

    async def atoken(self, text: str) -> None:
        """The same, awaited."""
        if self._arun is None:
            manager = get_async_callback_manager_for_config(self._config)
            if not manager.handlers:
                return
            [self._arun] = await manager.on_chat_model_start({"name": self._name}, [[]], name=self._name)
        await self._arun.on_llm_new_token(text, chunk=self._chunk(text))

    def end(self, message: BaseMessage | None, error: BaseException | None = None) -> None:
        """The message is complete, or will not be."""
        run, self._run = self._run, None
        if run is not None and isinstance(message, AIMessage):
            run.on_llm_end(_result(message))
        elif run is not None:
            run.on_llm_error(error or asyncio.CancelledError())

    async def aend(self, message: BaseMessage | None, error: BaseException | None = None) -> None:
        """The same, awaited."""
        run, self._arun = self._arun, None
        if run is not None and isinstance(message, AIMessage):
            await run.on_llm_end(_result(message))
        elif run is not None:
            await run.on_llm_error(error or asyncio.CancelledError())

    def _chunk(self, text: str) -> ChatGenerationChunk:
        return ChatGenerationChunk(message=AIMessageChunk(content=text, id=self._message_id, name=self._name or None))


def _result(message: AIMessage) -> LLMResult:
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def _has_parent(config: RunnableConfig) -> bool:
    # Custom events need a run that they belong to, and somebody who wants them.
    callbacks = config.get("callbacks")
    return bool(getattr(callbacks, "handlers", None)) and getattr(callbacks, "parent_run_id", None) is not None


def heartbeat_of(runtime: Any) -> Callable[[], None] | None:
    """What keeps LangGraph from taking a node for idle; None where nobody watches."""
    beat = getattr(runtime, "heartbeat", None)
    # Outside an attempt with an idle timeout, LangGraph has a function there that does nothing.
    return None if beat is None or getattr(beat, "__name__", "").startswith("_no_op") else beat
