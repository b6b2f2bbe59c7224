"""What the first mistakes of a newcomer are told: what is wrong, where, and what to write."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, cast

import pytest
from mqtt_agent import Agent, MemoryStore, ToolServer
from mqtt_agent.errors import WireError
from mqtt_agent.wire.values import mended


class Own:
    """A class without a JSON form."""


async def answer() -> int:
    return 42


def offers(function: Callable[..., Any]) -> None:
    ToolServer("server").tool(function)


def own_class(x: Own) -> None: ...


def all_words(*words: str) -> None: ...


def handles(*functions: Callable[..., Any]) -> None:
    agent = Agent("agent", store=MemoryStore())
    for each in functions:
        agent.on_task(each)


def no_task() -> None: ...


def two(task: Any, more: Any) -> None: ...


def one(task: Any) -> None: ...


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: offers(own_class), "tool 'own_class': the type of parameter 'x: .*Own' has no JSON Schema: use text"),
        (lambda: offers(all_words), r"tool 'all_words': \*words.* has no schema: name each parameter"),
        (lambda: offers(lambda x: x), "a lambda has no name for its tool: pass name="),
        (lambda: handles(no_task), r"takes one argument, the TaskContext, and this is no_task\(\)"),
        (lambda: handles(two), r"takes one argument, the TaskContext, and this is two\(task"),
        (lambda: handles(one, one), r"one handles tasks without .* already: .*@agent.on_task\('research'\)"),
        (lambda: Agent("agent", store=cast(Any, {})), "store must be a path, .* and not a value of type dict"),
    ],
)
def test_a_mistake_in_a_first_program_is_told_with_what_to_write(mistake: Callable[[], Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says) as caught:
        mistake()
    assert "pydantic.dev" not in str(caught.value), "an address of another project explains nothing here"


def test_a_forgotten_await_in_a_result_is_named() -> None:
    forgotten = answer()
    with pytest.raises(WireError, match="result has the type coroutine, .*: write 'await' before the call"):
        mended(forgotten, "result", "result")
    assert asyncio.run(forgotten) == 42


def test_a_value_without_a_json_form_is_told_with_what_can_be_used() -> None:
    with pytest.raises(WireError, match=re.escape("no JSON form: use text, numbers, lists, dicts, a dataclass")):
        mended(Own(), "result", "result")
