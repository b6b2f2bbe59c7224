"""For which caller a server of 2025 asks, which does not say it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from mcp.shared.exceptions import MCPError
from mcp_mqtt_agent import callers as callers_module
from mcp_mqtt_agent.callers import Callers
from mqtt_agent.tools import ToolContext
from support import soon


class Caller:
    """The part of a call's context that answers questions."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def request_input(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(params)
        return {"action": "accept"}


def as_context(caller: Caller) -> ToolContext:
    return cast("ToolContext", caller)


async def test_a_question_about_a_canceled_call_never_goes_to_the_caller_of_another_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callers_module, "_CLEAR_WITHIN", 0.05)
    callers, canceled, other = Callers(), Caller(), Caller()

    async def run() -> None:
        with callers.running(as_context(canceled)):
            await asyncio.Event().wait()

    running = asyncio.ensure_future(run())
    await asyncio.sleep(0)
    with callers.running(as_context(other)):
        running.cancel()
        await asyncio.wait([running])
        with pytest.raises(MCPError, match="does not say which call asks"):
            await soon(callers.ask({"message": "delete all?"}))
        assert callers.only is None
    assert (canceled.asked, other.asked) == ([], [])


async def test_a_question_during_a_request_that_is_no_call_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers_module, "_CLEAR_WITHIN", 0.05)
    callers, caller = Callers(), Caller()
    with callers.running(None):
        with callers.running(as_context(caller)), pytest.raises(MCPError):
            await soon(callers.ask({"message": "may I?"}))
        with pytest.raises(MCPError, match="no call runs|does not say"):
            await soon(callers.ask({"message": "may I?"}))
    with callers.running(as_context(caller)):
        assert await soon(callers.ask({"message": "may I?"})) == {"action": "accept"}
    assert caller.asked == [{"message": "may I?"}]
