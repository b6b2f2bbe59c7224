"""Does one MQTT task at a remote A2A agent: sends it, follows it, passes questions on, and finds it after a crash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
from a2a.client import Client
from a2a.client.errors import A2AClientError
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import A2AError, TaskNotCancelableError, TaskNotFoundError, UnsupportedOperationError
from mqtt_agent import TaskContext
from mqtt_agent.adapting.background import within
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.errors import TaskCanceled, TaskFailed, TaskRejected
from mqtt_agent.wire import Part, TaskMessage
from pydantic import ValidationError

from a2a_mqtt_agent.bounds import AnswerTooLarge
from a2a_mqtt_agent.translating import (
    ASKING,
    TERMINAL,
    content_of,
    derived_id,
    from_message,
    from_part,
    from_struct,
    note,
    to_message,
)
from a2a_mqtt_agent.trouble import Trouble
from a2a_mqtt_agent.views import RESULT

__all__ = ["Forwarded", "is_transient"]

logger: logging.Logger = logger_of(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
"""Seconds between two tries to reach the remote agent."""
_POLLED_EVERY = 1.0
"""Seconds between two looks at a task of an agent that cannot stream."""
_CANCEL_TRIES = 5


def is_transient(error: BaseException) -> bool:
    """Whether the remote agent was not reached, and may be reached later."""
    if not isinstance(error, A2AClientError):
        return isinstance(error, (httpx.TransportError, OSError))
    cause = error.__cause__
    if isinstance(cause, httpx.HTTPStatusError):
        return cause.response.status_code >= 500 or cause.response.status_code in (408, 429)
    return not isinstance(cause, AnswerTooLarge)


class Forwarded:
    """One task at the remote agent.

    The work is driven by the state of the remote task. So a process that takes over looks at the remote task, and goes
    on from there.

    Args:
        client: The client of the remote agent.
        task: The task at the MQTT side.
        url: The address of the remote agent, for errors.
        streaming: Whether the remote agent can stream.
        trouble: Is told of each request that is repeated.
    """

    def __init__(self, client: Client, task: TaskContext, url: str, *, streaming: bool, trouble: Trouble) -> None:
        self._client = client
        self._task = task
        self._url = url
        self._streaming = streaming
        self._trouble = trouble
        saved: dict[str, Any] = task.saved or {}
        self._id: str | None = saved.get("remote")
        self._answered: list[str] = saved.get("answered", [])
        # The remote agent sees one caller for all requesters, so their contexts must differ as their conversations do.
        self._context = derived_id("join", task.conversation)
        self._sent: dict[str, a2a.Artifact] = {}
        self._names: dict[str, str] = {}
        self._steps = 0
        self._message: a2a.Message | None = None

    async def run(self) -> Any:
        """Do the task, and return its result.

        Raises:
            TaskFailed, TaskRejected, TaskCanceled: As the remote task has ended.
        """
        try:
            state = await self._begin() if self._id is None else await self._look()
            while True:
                if state is None:  # the remote agent has answered with a message alone
                    assert self._message is not None
                    return from_message(self._message)
                if state.status.state in TERMINAL:
                    return self._result(state)
                if state.status.state in ASKING:
                    state = await self._answer(state)
                else:
                    state = await self._follow(state)
        except asyncio.CancelledError:
            if self._task.canceled and not self._task.interrupted:
                await asyncio.shield(self._cancel())
            raise
        except A2AError as error:
            if isinstance(error, TaskNotFoundError):
                what = f"the agent at {self._url} does not know the task any more"
                raise TaskFailed(what, code="REMOTE_TASK_LOST") from error
            raise TaskFailed(f"the agent at {self._url} refuses the task: {error}", code="REMOTE_ERROR") from error

    # Requests, each repeated until the remote agent is reached

    async def _begin(self) -> a2a.Task | None:
        """Send the task, or find it when an earlier attempt has sent it."""
        message = self._first_message()
        if self._task.saved is not None:
            found = await self._find(message.message_id)
            if found is not None:
                return await self._note(found)
        await self._task.save({"sent": message.message_id})
        return await self._send(message)

    async def _find(self, message_id: str) -> a2a.Task | None:
        """The task that an earlier attempt has sent; None when the remote agent does not tell."""
        request = a2a.ListTasksRequest(context_id=self._context, history_length=100)
        try:
            listed = await self._repeated(lambda: self._client.list_tasks(request))
        except (A2AError, NotImplementedError) as error:
            logger.info("%s does not list its tasks: %s", self._url, error)
            return None
        for task in listed.tasks:
            if any(each.message_id == message_id for each in task.history):
                return task
        return None

    async def _send(self, message: a2a.Message) -> a2a.Task | None:
        """Send a message, and follow what it begins. Returns the task at the end of the stream."""
        request = a2a.SendMessageRequest(message=message)
        request.configuration.return_immediately = not self._streaming
        if not message.task_id and self._task.metadata:
            note(request.metadata, self._task.metadata)
        wait = _FIRST_WAIT
        while True:
            try:
                return await self._take(self._client.send_message(request))
            except Exception as error:
                if not is_transient(error):
                    raise
                self._trouble.note(error)
            if self._id is not None:  # the remote agent has the task
                return await self._look()
            await asyncio.sleep(wait)
            wait = min(_LONGEST_WAIT, 2 * wait)
            found = await self._find(message.message_id)
            if found is not None:
                return await self._note(found)

    async def _look(self) -> a2a.Task:
        request = a2a.GetTaskRequest(id=self._id or "")
        return await self._show(await self._repeated(lambda: self._client.get_task(request)))

    async def _follow(self, state: a2a.Task) -> a2a.Task | None:
        if self._streaming:
            try:
                await self._take(self._client.subscribe(a2a.SubscribeToTaskRequest(id=state.id)))
            except UnsupportedOperationError:  # the task has ended meanwhile
                return await self._look()
            except Exception as error:
                if not is_transient(error):
                    raise
                logger.info("%s was lost: %s", self._url, error)
        await asyncio.sleep(0 if self._streaming else _POLLED_EVERY)
        return await self._look()

    async def _repeated(self, request: Any) -> Any:
        wait = _FIRST_WAIT
        while True:
            try:
                answer = await request()
            except Exception as error:
                if not is_transient(error):
                    raise
                self._trouble.note(error)
            else:
                self._trouble.over()
                return answer
            await asyncio.sleep(wait)
            wait = min(_LONGEST_WAIT, 2 * wait)

    async def _cancel(self) -> None:
        if self._id is None and self._task.saved is not None:  # the message is sent, and its answer has not come yet
            try:
                found = await within(self._find(self._first_message().message_id), _LONGEST_WAIT)
                self._id = found.id if found is not None else None
            except (asyncio.TimeoutError, A2AError, httpx.HTTPError) as error:
                logger.warning("task %s was not found at %s to cancel it: %r", self._task.id, self._url, error)
        for _ in range(_CANCEL_TRIES if self._id is not None else 0):
            try:
                await self._client.cancel_task(a2a.CancelTaskRequest(id=self._id or ""))
                return
            except (TaskNotFoundError, TaskNotCancelableError):
                return
            except Exception as error:
                logger.warning("task %s is not canceled at %s: %s", self._task.id, self._url, error)
                await asyncio.sleep(_FIRST_WAIT)

    # What the remote agent says

    async def _take(self, events: AsyncIterator[a2a.StreamResponse]) -> a2a.Task | None:
        """Pass on the events of a stream, and return the task as it is after them."""
        alone = False
        async for event in _until_it_waits(events):
            self._trouble.over()
            if event.HasField("message"):
                self._message, alone = event.message, self._id is None
            elif event.HasField("task"):
                await self._show(await self._note(event.task))
            elif event.HasField("artifact_update"):
                await self._note_id(event.artifact_update.task_id)
                update = event.artifact_update
                await self._tell(update.artifact, append=update.append, last_chunk=update.last_chunk)
            elif event.HasField("status_update"):
                await self._note_id(event.status_update.task_id)
                if event.status_update.status.state not in TERMINAL | ASKING:
                    await self._progress(event.status_update.status)
        if alone:
            return None
        return await self._look()

    async def _note(self, task: a2a.Task) -> a2a.Task:
        await self._note_id(task.id)
        return task

    async def _note_id(self, task_id: str) -> None:
        if self._id != task_id:
            self._id = task_id
            await self._task.save({"remote": task_id, "answered": self._answered})

    async def _show(self, task: a2a.Task) -> a2a.Task:
        """Pass on what a snapshot of the task has, and what was not passed on before."""
        for artifact in task.artifacts:
            if self._sent.get(artifact.artifact_id) != artifact:
                await self._tell(artifact, append=False, last_chunk=True)
        return task

    async def _progress(self, status: a2a.TaskStatus) -> None:
        if not status.HasField("message"):
            return
        said = content_of(status.message.parts)
        if isinstance(said, str) and said:
            self._steps += 1
            await self._task.progress(self._steps, message=said)

    async def _tell(self, artifact: a2a.Artifact, *, append: bool, last_chunk: bool) -> None:
        known = self._sent.get(artifact.artifact_id)
        if append and known is not None:
            known.parts.extend(artifact.parts)
        else:
            self._sent[artifact.artifact_id] = kept = a2a.Artifact()
            kept.CopyFrom(artifact)
        parts = [from_part(part) for part in artifact.parts]
        if artifact.artifact_id == RESULT:  # of a gateway: the value that the handler has returned, or a part of it
            if not last_chunk:
                for part in parts:
                    await self._task.stream(part.text if part.text is not None else part.data)
            return
        await self._task.artifact(
            self._name_of(artifact),
            parts=parts,
            append=append,
            last_chunk=None if not append and last_chunk else last_chunk,
            artifact_id=artifact.artifact_id,
            metadata=from_struct(artifact.metadata) if artifact.HasField("metadata") else None,
        )

    def _name_of(self, artifact: a2a.Artifact) -> str:
        """The name of an artifact at the MQTT side, where names are ids."""
        if artifact.artifact_id not in self._names:
            name = artifact.name or artifact.artifact_id
            taken = name in self._names.values()
            self._names[artifact.artifact_id] = f"{name} ({artifact.artifact_id})" if taken else name
        return self._names[artifact.artifact_id]

    async def _answer(self, state: a2a.Task) -> a2a.Task | None:
        """Pass a question on to the requester, and its answer to the remote agent."""
        asked = state.status.message
        about: Any = from_struct(state.metadata).get("mqtt-agent", {}) if state.HasField("metadata") else {}
        about = about if isinstance(about, dict) else {}
        question = asked.message_id or str(len(state.history))
        text = content_of(asked.parts)
        text = text if isinstance(text, str) else ("" if text is None else str(text))
        name = f"{about.get('input_id', '')}:{question}"
        if name in self._answered:  # the remote agent has the answer, and has not gone on yet
            await asyncio.sleep(_FIRST_WAIT)
            return await self._look()
        needs_login = state.status.state == a2a.TASK_STATE_AUTH_REQUIRED
        ask = self._task.require_auth if needs_login else self._task.ask
        value = await ask(text, about.get("schema"), name=name)
        message = to_message(_said(value), derived_id("answer", state.id, name), state.id, state.context_id)
        try:
            after = await self._send(message)
        except UnsupportedOperationError:  # an earlier attempt has sent the answer already
            after = await self._look()
        self._answered = [*self._answered, name]
        await self._task.save({"remote": state.id, "answered": self._answered})
        return after

    def _first_message(self) -> a2a.Message:
        task = self._task
        said = next((each for each in reversed(task.messages) if each.role == "user"), TaskMessage())
        parts = list(said.all_parts)
        if task.data is not None and not any(part.data == task.data for part in parts):
            parts.append(Part(data=task.data))
        if task.prompt is not None and not any(part.text is not None for part in parts):
            parts.insert(0, Part(text=task.prompt))
        message = TaskMessage(
            role="user",
            parts=parts,
            message_id=derived_id("message", task.sender or "", task.id),
            reference_task_ids=said.reference_task_ids or task.reference_task_ids or None,
            extensions=said.extensions,
            metadata=said.metadata,
        )
        return to_message(message, "", context_id=self._context)

    def _result(self, task: a2a.Task) -> Any:
        """The result of a task that has ended."""
        said = from_message(task.status.message) if task.status.HasField("message") else None
        if task.status.state == a2a.TASK_STATE_COMPLETED:
            given = next((each for each in task.artifacts if each.artifact_id == RESULT), None)
            if given is not None:
                return content_of(given.parts)
            if said is not None:
                return said
            return content_of(task.artifacts[-1].parts) if task.artifacts else None
        about: Any = from_struct(task.metadata).get("mqtt-agent", {}) if task.HasField("metadata") else {}
        fault: Any = about.get("error", {}) if isinstance(about, dict) else {}
        text = said.content if said is not None and isinstance(said.content, str) else ""
        code, data = fault.get("code"), fault.get("data")
        if task.status.state == a2a.TASK_STATE_REJECTED:
            raise TaskRejected(text or "rejected", code=code, data=data)
        if task.status.state == a2a.TASK_STATE_CANCELED:
            raise TaskCanceled(text or "canceled", code=code, data=data)
        raise TaskFailed(text or "failed", code=code, data=data, type=fault.get("type"))


async def _until_it_waits(events: AsyncIterator[a2a.StreamResponse]) -> AsyncIterator[a2a.StreamResponse]:
    """The events of a stream until the task is over or asks. Some agents leave the stream open then."""
    try:
        async for event in events:
            yield event
            state = event.task.status.state or event.status_update.status.state
            if state in TERMINAL | ASKING:
                return
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _said(value: Any) -> TaskMessage:
    """An answer as a message. A requester may answer with a whole message, to send files."""
    if isinstance(value, dict) and isinstance(value.get("parts"), list):
        try:
            said = TaskMessage.model_validate(value)
            return said.model_copy(update={"role": "user", "message_id": None})
        except ValidationError:
            pass
    return TaskMessage(role="user", content=value)
