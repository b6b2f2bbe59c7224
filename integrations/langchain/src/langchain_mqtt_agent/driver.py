"""One protocol, driven by code that blocks and by code that awaits.

What is done with a remote end is written once, as a generator of steps: *do this on the connection's loop*, *tell
this*, *give out this chunk*. It runs in its caller's context, where LangGraph's ``interrupt`` and stream writer work;
the two drivers here do the steps for it, sync and async.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from mqtt_agent.sync.blocking import Endpoint

from langchain_mqtt_agent.telling import Telling

__all__ = ["Chunk", "OnLoop", "Resolve", "Script", "Tell", "Token", "adrive", "asteps", "drive", "steps"]

T = TypeVar("T")


@dataclass
class OnLoop:
    """Await ``function(endpoint, *arguments)`` on the connection's loop, and go on with what it returns."""

    function: Callable[..., Awaitable[Any]]
    arguments: tuple[Any, ...] = ()


@dataclass
class Tell:
    """Tell an update to whoever listens to the run."""

    update: dict[str, Any]


@dataclass
class Token:
    """A piece of text of a message that is still being written."""

    text: str


@dataclass
class Resolve:
    """Go on with a value of the user's, which may have to be awaited."""

    value: Any


@dataclass
class Chunk:
    """Give a piece of the output to whoever iterates over it."""

    value: Any


Script = Generator[Any, Any, T]


class _Over(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


def _next(script: Script[Any], context: Any, value: Any, error: BaseException | None) -> Any:
    # Nobody reads on: to the script that is a canceled run, for a generator must do nothing more when it is closed.
    told = asyncio.CancelledError() if isinstance(error, GeneratorExit) else error
    try:
        return context.run(script.send, value) if told is None else context.run(script.throw, told)
    except StopIteration as stop:
        raise _Over(stop.value) from None


def steps(
    script: Script[T], endpoint: Endpoint[Any], config: RunnableConfig, telling: Telling
) -> Generator[Any, None, T]:
    """Drive a script by blocking; yields its chunks and returns its value."""
    value: Any = None
    error: BaseException | None = None
    closing: GeneratorExit | None = None
    with set_config_context(config) as context:
        while True:
            try:
                step = _next(script, context, value, error)
            except _Over as over:
                return over.value
            except asyncio.CancelledError as canceled:
                raise closing or canceled from None
            value = error = None
            try:
                if isinstance(step, OnLoop):
                    value = endpoint.run_on_loop(step.function, *step.arguments)
                elif isinstance(step, Tell):
                    context.run(telling.tell, step.update)
                elif isinstance(step, Token):
                    telling.token(step.text)
                elif isinstance(step, Resolve):
                    value = step.value
                    if inspect.isawaitable(value):
                        if inspect.iscoroutine(value):
                            value.close()
                        raise TypeError("an async function cannot answer here: use ainvoke, or a plain function")
                else:
                    yield step.value
            except GeneratorExit as closed:
                error = closing = closed
            except BaseException as raised:  # the script knows what to undo
                error = raised


async def asteps(
    script: Script[T], endpoint: Endpoint[Any], config: RunnableConfig, telling: Telling, outcome: list[T]
) -> AsyncIterator[Any]:
    """Drive a script by awaiting; yields its chunks and appends its value to ``outcome``."""
    value: Any = None
    error: BaseException | None = None
    closing: GeneratorExit | None = None
    with set_config_context(config) as context:
        while True:
            try:
                step = _next(script, context, value, error)
            except _Over as over:
                outcome.append(over.value)
                return
            except asyncio.CancelledError as canceled:
                raise closing or canceled from None
            value, undoing, error = None, error is not None, None
            try:
                if isinstance(step, OnLoop):
                    awaited = endpoint.await_on_loop(step.function, *step.arguments)
                    value = await (asyncio.shield(asyncio.ensure_future(awaited)) if undoing else awaited)
                elif isinstance(step, Tell):
                    context.run(telling.write, step.update)
                    await telling.atell(step.update)
                elif isinstance(step, Token):
                    await telling.atoken(step.text)
                elif isinstance(step, Resolve):
                    value = await step.value if inspect.isawaitable(step.value) else step.value
                else:
                    yield step.value
            except GeneratorExit as closed:
                error = closing = closed
            except BaseException as raised:
                error = raised


def drive(script: Script[T], endpoint: Endpoint[Any], config: RunnableConfig, telling: Telling) -> T:
    """Drive a script to its end by blocking."""
    running: Iterator[Any] = steps(script, endpoint, config, telling)
    while True:
        try:
            next(running)
        except StopIteration as stop:
            return stop.value


async def adrive(script: Script[T], endpoint: Endpoint[Any], config: RunnableConfig, telling: Telling) -> T:
    """Drive a script to its end by awaiting."""
    outcome: list[T] = []
    async for _ in asteps(script, endpoint, config, telling, outcome):
        pass
    return outcome[0]
