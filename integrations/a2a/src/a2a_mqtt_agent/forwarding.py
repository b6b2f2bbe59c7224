"""Does one MQTT task at a remote A2A agent: sends it, follows it, passes questions on, and finds it after a crash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
from a2a.client import Client, ClientCallContext
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import A2AError, TaskNotCancelableError, TaskNotFoundError
from mqtt_agent import TaskContext
from mqtt_agent.adapting.background import Backoff, within
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.errors import TaskCanceled, TaskFailed, TaskRejected
from mqtt_agent.wire import Part, TaskMessage

from a2a_mqtt_agent.asked import about, answer_message, name_of_question
from a2a_mqtt_agent.reaching import FIRST_WAIT, LONGEST_WAIT, reached, took_too_long, was_not_reached
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

__all__ = ["Forwarded"]

logger: logging.Logger = logger_of(__name__)

_POLLED_EVERY = 1.0
"""Seconds between two looks at a task of an agent that cannot stream."""
_LOOK_AFTER, _LOOK_EVERY = 2.0, 15.0
"""Seconds until the first look at a task that asks, and at most between two looks: it may go on by itself."""
_CANCEL_TRIES = 5


class Forwarded:
    """One task at the remote agent.

    The work is driven by the state of the remote task. So a process that takes over looks at the remote task, and goes
    on from there.

    Args:
        client: The client of the remote agent.
        task: The task at the MQTT side.
        url: The address of the remote agent, for errors.
        streaming: Whether the remote agent can stream.
        answer_timeout: How many seconds the remote agent may take for the first answer to a message.
        trouble: Is told of each request that is repeated.
    """

    def __init__(
        self,
        client: Client,
        task: TaskContext,
        url: str,
        *,
        streaming: bool,
        answer_timeout: float,
        trouble: Trouble,
    ) -> None:
        self._client = client
        self._task = task
        self._url = url
        self._streaming = streaming
        self._subscribes = streaming
        self._answer_timeout = answer_timeout
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
            listed = await reached(lambda: self._client.list_tasks(request), self._trouble)
        except (A2AError, NotImplementedError) as error:
            logger.info("%s does not list its tasks: %s", self._url, error)
            return None
        for task in listed.tasks:
            if any(each.message_id == message_id for each in task.history):
                return task
        return None

    async def _send(self, message: a2a.Message) -> a2a.Task | None:
        """Send the message that begins the task, and follow it. Returns the task at the end of the stream."""
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while True:
            try:
                return await self._take(self._sent_message(message))
            except Exception as error:
                if self._id is not None and isinstance(error, (A2AError, httpx.TransportError, OSError)):
                    logger.info("the stream of task %s ended: %s", self._id, error)  # the remote agent has the task
                    return await self._look()
                if not was_not_reached(error):
                    raise
                self._trouble.note(error)
                late = took_too_long(error)
            await backoff.wait()
            found = await self._find(message.message_id)
            if found is not None:
                return await self._note(found)
            if late:  # it has the message and may be at work, so it must not get the message again
                what = f"the agent at {self._url} has not answered within {self._answer_timeout:g} s"
                raise TaskFailed(what, code="REMOTE_TIMEOUT")

    def _sent_message(self, message: a2a.Message) -> AsyncIterator[a2a.StreamResponse]:
        request = a2a.SendMessageRequest(message=message)
        request.configuration.return_immediately = not self._streaming
        if not message.task_id and self._task.metadata:
            note(request.metadata, self._task.metadata)
        return self._client.send_message(request, context=ClientCallContext(timeout=self._answer_timeout))

    async def _look(self) -> a2a.Task:
        request = a2a.GetTaskRequest(id=self._id or "")
        return await self._show(await reached(lambda: self._client.get_task(request), self._trouble))

    async def _follow(self, state: a2a.Task) -> a2a.Task | None:
        """Wait for news of a task that works, and return the task as it is then."""
        soonest = asyncio.get_running_loop().time() + _POLLED_EVERY
        if self._subscribes:
            try:
                after = await self._take(self._client.subscribe(a2a.SubscribeToTaskRequest(id=state.id)))
                if after is None or after.status.state in TERMINAL | ASKING:
                    return after
            except Exception as error:
                if not was_not_reached(error):
                    if not isinstance(error, A2AError):
                        raise
                    # The task is over, or the agent lets nobody subscribe to it. To look tells which.
                    self._subscribes = False
                    soonest = 0.0
                logger.info("task %s cannot be subscribed to at %s: %s", state.id, self._url, error)
        await asyncio.sleep(max(0.0, soonest - asyncio.get_running_loop().time()))
        return await self._look()

    async def _cancel(self) -> None:
        if self._id is None and self._task.saved is not None:  # the message is sent, and its answer has not come yet
            try:
                found = await within(self._find(self._first_message().message_id), LONGEST_WAIT)
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
                await asyncio.sleep(FIRST_WAIT)

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
        if self._id is None:
            what = f"the agent at {self._url} has ended its answer without a task and without a message"
            raise TaskFailed(what, code="REMOTE_ERROR")
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
        asked, name = state.status.message, name_of_question(state)
        text = content_of(asked.parts)
        text = text if isinstance(text, str) else ("" if text is None else str(text))
        if name in self._answered:  # the remote agent has the answer, and has not gone on yet
            await asyncio.sleep(FIRST_WAIT)
            return await self._look()
        needs_login = state.status.state == a2a.TASK_STATE_AUTH_REQUIRED
        ask = self._task.require_auth if needs_login else self._task.ask
        asking = asyncio.ensure_future(ask(text, about(state).get("schema"), name=name))
        watching = asyncio.ensure_future(self._gone_on(name))
        try:
            await asyncio.wait((asking, watching), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return watching.result()
        finally:
            for each in (asking, watching):
                each.cancel()
            await asyncio.gather(asking, watching, return_exceptions=True)
        said = answer_message(asking.result())
        message = to_message(said, derived_id("answer", state.id, name), state.id, state.context_id)
        after = await self._send_answer(message, name)
        self._answered = [*self._answered, name]
        await self._task.save({"remote": state.id, "answered": self._answered})
        return after

    async def _gone_on(self, name: str) -> a2a.Task:
        """Wait until the task does not ask its question any more, and return it.

        A login at another place lets a task go on without an answer, and an agent may give a question up.
        """
        backoff = Backoff(_LOOK_AFTER, _LOOK_EVERY)
        while True:
            await backoff.wait()
            state = await self._look()
            if name_of_question(state) != name:
                return state

    async def _send_answer(self, message: a2a.Message, name: str) -> a2a.Task | None:
        """Send the answer to a question until the remote agent has it, and follow what comes after it."""
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while True:
            try:
                return await self._take(self._sent_message(message))
            except Exception as error:
                unheard = was_not_reached(error)
                if not unheard and not isinstance(error, A2AError):
                    raise
                if unheard:
                    self._trouble.note(error)
                    await backoff.wait()
                state = await self._look()
                if name_of_question(state) != name:  # the remote agent has the answer, perhaps of an earlier attempt
                    return state
                if not unheard:
                    raise

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
        fault: Any = about(task).get("error", {})
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
