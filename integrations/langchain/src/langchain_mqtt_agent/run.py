"""One run of a remote tool or peer: its configuration, and how LangChain and LangGraph get its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from langchain_core.callbacks.manager import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    set_config_context,
)
from mqtt_agent.adapting.callers import Caller

from langchain_mqtt_agent._langgraph import current_runtime, heartbeat_of, in_node

__all__ = ["Artifact", "Run", "Work"]

T = TypeVar("T")

_EVENT = "mqtt_agent"
"""The name of the custom events."""
_HEARTBEAT_PERIOD = 0.25
"""Seconds between two heartbeats while no event comes from the remote end."""


class Run:
    """One run of a remote tool or peer. It has the context of the calling code, in which LangGraph's functions work.

    - Updates go to LangGraph's stream mode ``custom``. The updates of a tool go to the mode ``tools``, too.
    - Updates also go to LangChain's callbacks, as custom events named ``mqtt_agent`` (see ``astream_events``).
    - Pieces of a message's text go to the stream mode ``messages``, like the tokens of a chat model.
    - Outside a graph and without callbacks, updates and pieces are dropped.

    Args:
        caller: Runs functions on the connection's event loop for the calling code, which blocks or awaits.
        config: The configuration of the run.
        runtime: LangGraph's runtime of the node, or the runtime that LangGraph injects into a tool. None outside of a
            graph.
        tool_call_id: The id of the tool call for which the run does its work; None when there is none.
        name: The name of the agent that writes the message.
        message_id: The id of the message.
    """

    def __init__(
        self,
        caller: Caller,
        config: RunnableConfig,
        runtime: Any = None,
        tool_call_id: str | None = None,
        name: str = "",
        message_id: str | None = None,
    ) -> None:
        self.caller = caller
        self.config = config
        self.tool_call_id = tool_call_id
        self.runtime = runtime
        self.in_node: bool = in_node(config)
        self._writer: Callable[[Any], None] | None = getattr(runtime, "stream_writer", None)
        self._delta: Callable[[Any], None] | None = getattr(runtime, "emit_output_delta", None)
        self._heartbeat = heartbeat_of(self.in_context(current_runtime)) if self.in_node else None
        self._name = name
        self._message_id = message_id
        self._message_run: Any = None

    def in_context(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a context that has the run's configuration, which LangGraph's functions look for."""
        with set_config_context(self.config) as context:
            return context.run(function, *arguments)

    @property
    def patience(self) -> float | None:
        """Seconds to wait for news before the next :meth:`beat`; None for no limit."""
        return None if self._heartbeat is None else _HEARTBEAT_PERIOD

    def beat(self) -> None:
        """Tell LangGraph that the node is not idle."""
        if self._heartbeat is not None:
            self._heartbeat()

    async def tell(self, update: dict[str, Any]) -> None:
        """Send an update to the stream modes and to the callbacks."""
        if self._writer is not None or self._delta is not None:
            self.in_context(self._write, update)
        # LangChain raises an error for a custom event without a parent run.
        callbacks = self.config.get("callbacks")
        if getattr(callbacks, "handlers", None) and getattr(callbacks, "parent_run_id", None) is not None:
            dispatch = adispatch_custom_event if self.caller.awaits else dispatch_custom_event
            await self.caller.settle(dispatch(_EVENT, update, config=self.config))

    def _write(self, update: dict[str, Any]) -> None:
        for write in (self._writer, self._delta):
            if write is not None:
                write(update)

    async def token(self, text: str) -> None:
        """Send a piece of the message's text, as a chat model sends a token."""
        if self._message_run is None:
            manager_of = (
                get_async_callback_manager_for_config if self.caller.awaits else get_callback_manager_for_config
            )
            manager = manager_of(self.config)
            if not manager.handlers:
                return
            started = manager.on_chat_model_start({"name": self._name}, [[]], name=self._name)
            [self._message_run] = await self.caller.settle(started)
        message = AIMessageChunk(content=text, id=self._message_id, name=self._name or None)
        await self.caller.settle(self._message_run.on_llm_new_token(text, chunk=ChatGenerationChunk(message=message)))

    async def end(self, message: AIMessage | None, error: BaseException | None = None) -> None:
        """Report that the message is complete, or the error for which there is no message."""
        ended, self._message_run = self._message_run, None
        if ended is not None and message is not None:
            await self.caller.settle(ended.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]])))
        elif ended is not None:
            await self.caller.settle(ended.on_llm_error(error or asyncio.CancelledError()))


Artifact = dict[str, Any]
"""What a tool message holds for the program and not for the language model."""
Work = Callable[[Run, dict[str, Any]], Coroutine[Any, Any, tuple[Any, Artifact | None]]]
"""Does the work of one tool call: gets the run and the arguments; returns content and artifact."""
