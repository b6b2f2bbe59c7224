"""Gives tasks for a framework that runs its code again: after a crash, after an error, and after an answer.

Such a framework stops the user's code at a question. When a person has answered, the framework runs the code again
from its beginning, and returns the answer at the question. So the code gives its tasks again. A task that is given
again at the same place in the program is the same task, and its questions come in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mqtt_agent.adapting.delegating import check_online
from mqtt_agent.adapting.following import REFUSED
from mqtt_agent.adapting.steps import TaskSteps
from mqtt_agent.agents import Agent, TaskHandle
from mqtt_agent.errors import TaskNotFound
from mqtt_agent.wire import TaskEvent, TaskState
from mqtt_agent.wire.values import fingerprint

__all__ = ["Delegation", "ReplayedTask", "Request", "fingerprint"]

_NOT_COMPLETED = (TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED)


@dataclass
class Request:
    """What a peer is asked to do.

    Attributes:
        prompt: The request as text.
        messages: The conversation so far, in the wire format of a task.
        data: Structured input.
    """

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    data: Any = None


@dataclass
class Delegation:
    """A task to give to a peer.

    Attributes:
        peer: The agent id of the peer.
        request: What the peer is asked to do.
        task_id: The id of the first task at this place. Later tasks have ids that are made from this id.
        replayed: Whether the code may run again. A later run then finds the same task.
        options: Further arguments of :meth:`mqtt_agent.Agent.delegate`.
        require_online: Whether to fail at once when the peer is offline.
        timeout: Seconds to wait for the result; None for no limit.
        idle_timeout: Seconds to wait for the next event; None for no limit.
        cancel_late: Whether a task that takes longer is canceled. Otherwise the task goes on.
        followed_at: For a task that was given before at another place, and is only followed here: the name of this
            place, at which further questions may stop the code. The ``request`` is not used then.
    """

    peer: str
    request: Request
    task_id: str
    replayed: bool
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    require_online: bool = False
    timeout: float | None = None
    idle_timeout: float | None = None
    cancel_late: bool = False
    followed_at: str | None = None


class ReplayedTask(TaskSteps):
    """A task at a place in a program, with the questions that stopped the code there, in order.

    Args:
        wanted: The task to give.
        patience: Seconds that :meth:`next` waits for an event; None for no limit.

    Attributes:
        rounds: The questions of the task.
    """

    def __init__(self, wanted: Delegation, patience: float | None) -> None:
        super().__init__(
            self._give_or_find,
            timeout=wanted.timeout,
            idle_timeout=wanted.idle_timeout,
            patience=patience,
            give_up=_give_up,
            cancel_late=wanted.cancel_late,
        )
        self.rounds: list[dict[str, Any]] = []
        self._wanted = wanted
        self._rounds = "rounds" if wanted.followed_at is None else f"rounds at {wanted.followed_at}"

    @property
    def place(self) -> str:
        """The name of the place at which the questions of this task stop the code."""
        return self._wanted.followed_at or self.handle.task_id

    async def _give_or_find(self, agent: Agent) -> TaskHandle:
        wanted, asked = self._wanted, self._wanted.request
        if wanted.followed_at is not None:
            handle = await agent.resume(wanted.task_id)
            if handle.peer != wanted.peer:
                what = f"task {wanted.task_id!r:.80} was not given to {wanted.peer}"
                raise TaskNotFound(what, task_id=wanted.task_id, peer=wanted.peer)
            self.rounds += _saved(handle).get(self._rounds, ())
            return handle
        task_id = await self._find(agent) if wanted.replayed else wanted.task_id
        if wanted.require_online:
            await check_online(agent, wanted.peer, "the task was not sent: try again later, or do without it")
        options: dict[str, Any] = {"messages": asked.messages, "data": asked.data, **wanted.options}
        handle = await agent.delegate(wanted.peer, asked.prompt, task_id=task_id, **options)
        self.rounds += _saved(handle).get("rounds", ())
        return handle

    async def _find(self, agent: Agent) -> str:
        """The id of the task at this place.

        After a task without a result, the framework may run the code again. The code then needs a new task.
        """
        task_id, number = self._wanted.task_id, 0
        while True:
            try:
                known = await agent.resume(task_id)
            except TaskNotFound:
                return task_id
            saved = _saved(known)
            if not saved.get("left") and not (known.done and known.state in _NOT_COMPLETED):
                return task_id
            number += 1
            task_id = f"{self._wanted.task_id}.{number}"

    def question_of(self, event: TaskEvent) -> dict[str, Any]:
        """An event with a question, as a JSON object for the framework and for the user.

        Its keys are ``type``, ``peer``, ``task_id``, ``input_id``, ``round``, ``prompt`` and ``schema``. The key
        ``fault`` tells why the peer did not accept an earlier answer.
        """
        question = {
            "type": "input-required",
            "peer": self.handle.peer,
            "task_id": self.handle.task_id,
            "input_id": event.data.get("input_id"),
            "round": len(self.rounds) + 1,
            "prompt": event.content,
            "schema": event.data.get("schema"),
        }
        return {**question, "fault": event.data["fault"]} if "fault" in event.data else question

    async def save_round(self, agent: Agent, question: dict[str, Any]) -> None:
        """Store a question that stops the code. The code that runs again must know the question of each answer."""
        self.rounds.append(question)
        await self.handle.save({**_saved(self.handle), self._rounds: self.rounds})

    async def give_answer(self, agent: Agent, answer: Any, question: dict[str, Any]) -> dict[str, Any] | None:
        """Answer a question, unless the task is over.

        Returns:
            None when the answer was sent. When JSON or MQTT cannot carry the answer: the question to ask again, with
            the reason in ``fault``.
        """
        try:
            await self.send(agent, answer, question["input_id"])
        except REFUSED as error:
            return {**question, "round": len(self.rounds) + 1, "fault": str(error)}
        return None

    @property
    def about(self) -> dict[str, Any]:
        """What is known about the task when it is over: peer, task id, attempt, milliseconds, and artifacts."""
        result = self.handle.response
        about: dict[str, Any] = {
            "peer": self.handle.peer,
            "task_id": self.handle.task_id,
            "attempt": self.handle.attempt or 1,
        }
        if result is not None and result.elapsed_ms is not None:
            about["elapsed_ms"] = result.elapsed_ms
        if result is not None and result.artifacts:
            about["artifacts"] = result.artifacts
        return about


async def _give_up(handle: TaskHandle, reason: str) -> None:
    await handle.save({**_saved(handle), "left": True})
    await handle.cancel(reason)


def _saved(handle: TaskHandle) -> dict[str, Any]:
    return handle.saved or {}
