"""Asks the user's function for the answers to a peer's questions."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from mqtt_agent.adapting.threads import run_in_thread

__all__ = ["Ask", "OnQuestion", "asking_here"]

OnQuestion = Callable[[str, dict[str, Any] | None], Any]
"""Answers a peer's question: gets the question and the JSON Schema of the answer, or None instead of a schema."""

Ask = Callable[[str, Any], Awaitable[Any]]
"""Awaits the answer to a question with a JSON Schema, on the event loop of the connection."""


def asking_here(on_question: OnQuestion) -> Ask:
    """A function that other event loops may await. It calls ``on_question`` in a thread, in the present context.

    An awaitable that ``on_question`` returns is awaited on the present event loop, where the team runs.
    """
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()

    async def answer(question: str, schema: Any) -> Any:
        scope = contextvars.copy_context()
        # A function that reads the console blocks.
        answered = await run_in_thread(lambda: scope.run(on_question, question, schema), "mqtt-agent-question")
        return await answered if inspect.isawaitable(answered) else answered

    async def ask(question: str, schema: Any) -> Any:
        asked = context.copy().run(asyncio.run_coroutine_threadsafe, answer(question, schema), loop)
        return await asyncio.wrap_future(asked)

    return ask
