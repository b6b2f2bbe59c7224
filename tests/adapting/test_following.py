"""Tasks that an adapter follows for a framework: the answers of a model or a person to the peer's questions."""

from __future__ import annotations

from typing import Any

import pytest
from mqtt_agent import Agent, TaskContext
from mqtt_agent.adapting.following import follow
from mqtt_agent.errors import WireError
from support import soon

from tests.agents.conftest import MakeAgent


async def tell(event: Any) -> None: ...


async def year_of(task: TaskContext) -> Any:
    return await task.ask("Which year?")


async def test_an_answer_that_cannot_be_sent_is_asked_for_again_with_the_reason(
    make_agent: MakeAgent, planner: Agent
) -> None:
    writer = make_agent("writer")
    writer.on_task(year_of)
    await soon(writer.start())
    answers: list[Any] = [float("nan"), "x" * 20_000_000, 2024]
    asked: list[str] = []

    async def answer(question: str, schema: Any) -> Any:
        asked.append(question)
        return answers[len(asked) - 1]

    handle = await soon(planner.delegate("writer", "go", wait_online=True))
    assert await soon(follow(handle, tell, answer), 20) == 2024
    assert ["NaN" in asked[1], "20,000," in asked[2], len(asked)] == [True, True, 3]


async def test_a_function_that_never_gives_an_answer_that_can_be_sent_ends_the_task(
    make_agent: MakeAgent, planner: Agent
) -> None:
    writer = make_agent("writer")
    writer.on_task(year_of)
    await soon(writer.start())

    async def answer(question: str, schema: Any) -> Any:
        return float("nan")

    handle = await soon(planner.delegate("writer", "go", wait_online=True))
    with pytest.raises(WireError, match="NaN"):
        await soon(follow(handle, tell, answer))
    await soon(handle.cancel())
