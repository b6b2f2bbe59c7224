"""The calls of MCP clients that are under way, and what their tools ask.

A client of 2025 is asked while its request waits. A client of 2026 gets the questions as the answer to its request, and
makes the request again with the answers; the call goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.tools import ELICITATION, CallHandle, CallQuestion, Elicited, OnQuestion
from mqtt_agent.wire import ToolCard
from pydantic import BaseModel

from mcp_mqtt_agent.agent_task import AgentTask
from mcp_mqtt_agent.context import Context
from mcp_mqtt_agent.logs import Logs

__all__ = ["OpenCall", "OpenCalls", "asks_at_once", "may_ask"]

logger: logging.Logger = logger_of(__name__)

_ENDED_WITHIN = 5.0
"""Seconds in which a cancellation must be on its way when the face stops."""
_KEPT = 600.0
"""Seconds that a call waits for its client to come back with the answers."""
_MOST = 1000
"""Calls that wait for their clients. When there are more, the oldest is canceled."""


class OpenCall:
    """A call of a client of 2026, or a task.

    Attributes:
        tool: The name of the tool for the client.
        on_asked: Called when the tool asks.
        handle: The call or the task over MQTT, once it is sent.
        card: The card of the tool, once the call is sent. None for an agent.
        logs: Passes on the log messages of the tool; None when the client wants none.
    """

    def __init__(self, tool: str) -> None:
        self.tool: str = tool
        self.handle: CallHandle | AgentTask | None = None
        self.card: ToolCard | None = None
        self.logs: Logs | None = None
        self.on_asked: Callable[[], None] = lambda: None
        self._questions: dict[str, tuple[CallQuestion, asyncio.Future[Any]]] = {}
        self._asked = asyncio.Event()

    async def on_question(self, question: CallQuestion) -> Any:
        """Keep a question, and wait for its answer."""
        key, answered = str(question.number), asyncio.get_running_loop().create_future()
        self._questions[key] = question, answered
        self._asked.set()
        self.on_asked()
        try:
            return await answered
        finally:
            self._questions.pop(key, None)
            if not self._questions:
                self._asked.clear()

    def answer(self, responses: Mapping[str, Any]) -> None:
        """Give the answers of a client to the tool. Unknown keys, and answers in another form, are left out."""
        for key, response in responses.items():
            question, answered = self._questions.get(key, (None, None))
            result = (
                response.model_dump(by_alias=True, exclude_none=True) if isinstance(response, BaseModel) else response
            )
            if not isinstance(result, dict):
                continue
            if question is not None and answered is not None and not answered.done():
                answered.set_result(_answer_of(result))
                del self._questions[key]
        if not self._questions:
            self._asked.clear()

    async def asked(self) -> None:
        """Wait until the tool asks."""
        await self._asked.wait()

    async def ask_now(self, ctx: Context) -> None:
        """Ask a client of 2025 what is open, and give its answers to the tool."""
        ask = asks_at_once(ctx)
        for key, (question, answered) in list(self._questions.items()):
            given = None if ask is None else await ask(question)
            if not answered.done():
                answered.set_result(Elicited("cancel") if given is None else given)
            self._questions.pop(key, None)
        if not self._questions:
            self._asked.clear()

    @property
    def requests(self) -> dict[str, Any]:
        """The open questions, as the ``inputRequests`` of a result."""
        return {key: {"method": each.method, "params": each.params} for key, (each, _) in self._questions.items()}


class OpenCalls:
    """The calls whose clients have got a question, and are to come back."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[OpenCall, asyncio.TimerHandle]] = {}
        self._ending: set[asyncio.Future[None]] = set()

    def keep(self, call: OpenCall) -> str:
        """Keep a call until its client comes back.

        Returns:
            The ``requestState`` that finds the call.
        """
        if len(self._waiting) >= _MOST:
            self._give_up(next(iter(self._waiting)))
        state = secrets.token_urlsafe(24)
        self._waiting[state] = call, asyncio.get_running_loop().call_later(_KEPT, self._give_up, state)
        return state

    def take(self, state: str, tool: str) -> OpenCall | None:
        """The call of a client that has come back; None when there is no such call any more."""
        call, timer = self._waiting.get(state, (None, None))
        if call is None or timer is None or call.tool != tool:
            return None
        del self._waiting[state]
        timer.cancel()
        return call

    async def close(self) -> None:
        """Cancel all calls, and wait until their servers are told."""
        for state in list(self._waiting):
            self._give_up(state)
        if self._ending:
            await asyncio.wait(self._ending, timeout=_ENDED_WITHIN)

    def _give_up(self, state: str) -> None:
        call, timer = self._waiting.pop(state)
        timer.cancel()
        if call.handle is not None:
            self.cancel(call.handle, "the MCP client did not come back with the answers")

    def cancel(self, handle: CallHandle | AgentTask, reason: str) -> None:
        """Cancel a call in the background, so that nothing interrupts the cancellation."""
        ending = asyncio.ensure_future(handle.cancel(reason))
        self._ending.add(ending)
        ending.add_done_callback(self._on_ended)

    def _on_ended(self, ending: asyncio.Future[None]) -> None:
        self._ending.discard(ending)
        error = None if ending.cancelled() else ending.exception()
        if error is not None:
            logger.info("a call could not be canceled: %s", error)


def may_ask(ctx: Context) -> bool:
    """Whether an MCP client shows forms to a person."""
    capabilities = ctx.session.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


def asks_at_once(ctx: Context) -> OnQuestion | None:
    """The function that asks a client of 2025; None for a client of 2026, and for a client that cannot be asked."""
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS or not may_ask(ctx):
        return None

    async def ask(question: CallQuestion) -> Any:
        if question.method != ELICITATION:
            raise MQTTAgentError(f"the MCP client is not asked for {question.method}")
        given = await ctx.session.elicit_form(
            question.prompt, question.params.get("requestedSchema", {}), ctx.request_id
        )
        return Elicited(given.action, given.content)

    return ask


def _answer_of(result: dict[str, Any]) -> Elicited:
    action, content = result.get("action"), result.get("content")
    return Elicited(
        action if action in ("accept", "decline") else "cancel", content if isinstance(content, dict) else None
    )
