"""What the page may do with ``--allow-writes``: call tools, give tasks, answer the questions of tasks, cancel tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from mqtt_agent.agents import Agent
from mqtt_agent.agents.store import default_store_path
from mqtt_agent.cli.console.model import Model
from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.tools import ToolClient
from mqtt_agent.transport import BrokerSettings

__all__ = ["BadRequest", "Writer"]

_CALL_TIMEOUT = 60.0


class BadRequest(Exception):
    """The page has sent something that no form of the page sends."""


class Writer:
    """Acts for the page, under one name.

    An executor accepts answers and cancels only from the agent that gave the task. So the console can answer and
    cancel only the tasks that it has given itself, also before it was started again.

    Args:
        place: The broker, the namespace and the login.
        name: The name under which the console calls tools and gives tasks.
        model: What the console has seen.
    """

    def __init__(self, place: BrokerSettings, name: str, model: Model) -> None:
        self._client = ToolClient(name, **place.as_arguments())
        self._client.starts_on_use = True
        self._agent = Agent(name, description="the console in a browser", **place.as_arguments())
        self._stored = default_store_path(place.namespace, name)
        self._name = name
        self._model = model
        self._starting = asyncio.Lock()
        self._actions: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "call": self._call,
            "delegate": self._delegate,
            "answer": self._answer,
            "cancel": self._cancel,
        }

    async def start(self) -> None:
        """Follow the tasks again that an earlier console has given. Their questions are then asked again.

        Raises:
            MQTTAgentError: The console cannot be an agent here.
        """
        if self._stored.exists():
            await self._started()

    async def stop(self) -> None:
        """Disconnect. The tasks that were given go on."""
        await self._client.stop()
        if self._agent.connection.started:
            await self._agent.stop()

    async def act(self, action: str, given: dict[str, Any]) -> dict[str, Any]:
        """Carry out what the page asks for.

        Args:
            action: ``call``, ``delegate``, ``answer`` or ``cancel``.
            given: The fields that belong to the action.

        Returns:
            What the page gets: a result, or ``error`` with the reason.

        Raises:
            BadRequest: The action or a field cannot be used.
        """
        if action not in self._actions:
            raise BadRequest("there is no such action")
        try:
            return await self._actions[action](given)
        except MQTTAgentError as error:
            return {"error": f"{type(error).__name__}: {error}"}

    async def _call(self, given: dict[str, Any]) -> dict[str, Any]:
        tool, arguments = _text(given, "tool"), given.get("arguments")
        if not isinstance(arguments, dict):
            raise BadRequest("send the arguments as a JSON object")
        values = cast("dict[str, Any]", arguments)
        return {"result": await self._client.call(tool, values, timeout=_CALL_TIMEOUT)}

    async def _delegate(self, given: dict[str, Any]) -> dict[str, Any]:
        agent = await self._started()
        handle = await agent.delegate(_text(given, "agent"), _text(given, "prompt"), data=given.get("data"))
        return {"task_id": handle.task_id}

    async def _answer(self, given: dict[str, Any]) -> dict[str, Any]:
        task_id, input_id = _text(given, "task_id"), _text(given, "input_id")
        refusal = self._refusal(task_id)
        if refusal is not None:
            return refusal
        handle = await (await self._started()).resume(task_id)
        if input_id in handle.answers:
            return {"error": "the question was answered before"}
        await handle.send(given.get("value"), input_id)
        return {"sent": True}

    async def _cancel(self, given: dict[str, Any]) -> dict[str, Any]:
        task_id = _text(given, "task_id")
        refusal = self._refusal(task_id)
        if refusal is not None:
            return refusal
        handle = await (await self._started()).resume(task_id)
        await handle.cancel("canceled on the console")
        return {"sent": True}

    def _refusal(self, task_id: str) -> dict[str, Any] | None:
        task = self._model.task(task_id)
        sender = None if task is None else task.row.get("sender")
        if sender in (None, self._name):
            return None
        return {"error": f"only {sender}, who gave this task, can answer or cancel the task"}

    async def _started(self) -> Agent:
        async with self._starting:
            if not self._agent.connection.started:
                await self._agent.start()
        return self._agent


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"send {name} as text")
    return value
