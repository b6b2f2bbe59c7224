"""Questions of a framework that continues from its own checkpoint: after a crash, each gets its own answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mqtt_agent import Agent, TaskContext
from mqtt_agent.adapting.asking import Asker, StoredQuestions, answer_from_text
from support import soon, until

from tests.agents.conftest import MakeAgent


async def test_a_question_with_an_answer_is_not_asked_again(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        questions = StoredQuestions(task)
        await questions.repeat()
        return [await questions.ask(name, f"{name}?") for name in ("city", "day", "city")]

    handle_of_task = await soon(planner.delegate("writer", "x", wait_online=True))
    answers = []
    async for event in handle_of_task.events():
        if event.status == "input-required":
            answers.append(event.content)
            await soon(handle_of_task.send(f"answer {len(answers)}", event.data["input_id"]))
    assert answers == ["city?", "day?"]
    assert await soon(handle_of_task.result()) == ["answer 1", "answer 2", "answer 1"]


async def test_after_a_crash_the_answers_reach_their_questions_though_the_framework_asks_only_the_last(
    make_agent: MakeAgent, planner: Agent
) -> None:
    agent, waits = make_agent("writer"), asyncio.Event()

    async def handle(task: TaskContext) -> Any:
        questions = StoredQuestions(task)
        await questions.repeat()
        if task.attempt == 1:
            await questions.ask("city", "Which city?")
            waits.set()
            await asyncio.Event().wait()  # until the agent stops
        return [await questions.ask("day", "Which day?"), await questions.ask("city", "not asked")]

    agent.on_task(handle)
    await soon(agent.start())
    task = await soon(planner.delegate("writer", "x", wait_online=True))
    await until(lambda: task.question)
    await soon(task.send("Oslo"))
    await soon(waits.wait())
    await soon(agent.stop())
    again = make_agent("writer", store=agent.store)
    again.on_task(handle)
    await soon(again.start())
    await until(lambda: task.question is not None and task.question.content == "Which day?")
    await soon(task.send("Monday"))
    assert await soon(task.result()) == ["Monday", "Oslo"]


class PlacedAsker(Asker):
    """Asks at the place that its attribute names."""

    now = ""

    def place(self) -> str:
        return self.now

    async def ask_at(self, place: str, prompt: str) -> Any:
        self.now = place
        return await self.aask(prompt)


async def test_an_answer_is_used_again_at_its_place_alone_in_whatever_order_the_places_ask(
    make_agent: MakeAgent, planner: Agent
) -> None:
    agent, waits = make_agent("writer"), asyncio.Event()

    async def handle(task: TaskContext) -> Any:
        asker = PlacedAsker(task)
        if task.attempt == 1:
            await asker.ask_at("first", "Good?")
            await asker.ask_at("second", "Good?")
            await asker.ask_at("second", "Good?")
            waits.set()
            await asyncio.Event().wait()  # until the agent stops
        # The first place is done, and does not ask again.
        places = ["third", "second", "second", "second"]
        return [await asker.ask_at(place, "Good?") for place in places]

    agent.on_task(handle)
    await soon(agent.start())
    task = await soon(planner.delegate("writer", "x", wait_online=True))
    seen: set[str] = set()

    async def answer(text: str) -> None:
        await until(lambda: task.question is not None and task.question.data["input_id"] not in seen)
        assert task.question is not None
        seen.add(task.question.data["input_id"])
        await soon(task.send(text))

    for text in ("one", "two", "three"):
        await answer(text)
    await soon(waits.wait())
    await soon(agent.stop())
    again = make_agent("writer", store=agent.store)
    again.on_task(handle)
    await soon(again.start())
    for text in ("four", "five"):
        await answer(text)
    assert await soon(task.result()) == ["four", "two", "three", "five"]


@pytest.mark.parametrize(
    ("text", "schema", "answer"),
    [
        ("2024", {"type": "integer"}, 2024),
        ("true", {"type": "boolean"}, True),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ("2024", {"type": "string"}, "2024"),
        ("2024", None, "2024"),
        ("2024", {}, "2024"),
        ("soon", {"type": "integer"}, "soon"),
        ("true", {"type": "integer"}, "true"),
        ("NaN", {"type": "number"}, "NaN"),
        ("2024", {"type": "no type"}, "2024"),
    ],
)
def test_a_text_is_read_as_json_only_where_the_question_wants_no_text(text: str, schema: Any, answer: Any) -> None:
    assert answer_from_text(text, schema) == answer
