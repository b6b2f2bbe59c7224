"""The A2A view of a delegated task: made from its record in the agent's store, and changed by its events."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.agents.store import TaskRecord
from mqtt_agent.wire import Artifact, Part, Task, TaskEvent, TaskMessage, TaskResult, TaskState, read_result_state

from a2a_mqtt_agent.translating import ASKING, from_part, note, plain, state_of, status_of, to_message, to_parts

__all__ = ["RESULT", "Update", "apply", "direct_message", "saved_of", "updates_at_end", "updates_of", "view_of"]

logger: logging.Logger = logger_of(__name__)

RESULT: str = "result"
"""The id of the artifact that has the value which the agent's handler returned."""

Update = a2a.TaskStatusUpdateEvent | a2a.TaskArtifactUpdateEvent


def view_of(record: TaskRecord) -> a2a.Task:
    """The A2A task of a record, as it was stored last."""
    saved: dict[str, Any] = record.saved or {}
    task = _first_view(record)
    if "task" in saved:
        task = ParseDict(saved["task"], a2a.Task(), ignore_unknown_fields=True)
    if record.result is not None and record.state.terminal:
        for update in updates_at_end(task, TaskResult.model_validate(record.result)):
            apply(task, update)
    return task


def saved_of(task: a2a.Task) -> dict[str, Any]:
    """What is stored with the record of a task, for :func:`view_of`."""
    return {"task": MessageToDict(task)}


def _first_view(record: TaskRecord) -> a2a.Task:
    given = Task.model_validate(record.task)
    at = datetime.fromtimestamp(record.created_at, timezone.utc).isoformat()
    task = a2a.Task(id=record.task_id, context_id=given.context_id or record.task_id)
    task.status.CopyFrom(status_of(TaskState.SUBMITTED, at=at))
    said = given.messages or [TaskMessage(content=given.prompt or "")]
    for number, message in enumerate(said):
        task.history.append(to_message(message, f"{record.task_id}-{number}", task.id, task.context_id))
    if given.metadata:
        note(task.metadata, given.metadata)
    return task


# From events to updates


def updates_of(task: a2a.Task, event: TaskEvent) -> list[Update]:
    """What an event changes in the A2A view of a task."""
    if event.type == "status":
        return _status(task, event)
    if event.type == "progress":
        about = {"progress": event.progress, "total": event.total}
        return [_moved(task, TaskState.WORKING, event.content, event.timestamp, about)]
    if event.type == "partial":
        part = Part(text=event.content) if event.content is not None else Part(data=event.data)
        known = any(each.artifact_id == RESULT for each in task.artifacts)
        return [_made(task, Artifact(name=RESULT, parts=[part]), append=known, last_chunk=False)]
    if event.type == "artifact":
        artifact = Artifact(
            name=event.content or "",
            data=event.data,
            parts=event.parts,
            artifact_id=event.artifact_id,
            metadata=event.metadata,
        )
        return [_made(task, artifact, append=bool(event.append), last_chunk=event.last_chunk is not False)]
    return []


def _status(task: a2a.Task, event: TaskEvent) -> list[Update]:
    try:
        state = TaskState(event.status)
    except ValueError:
        return []
    if state.terminal:  # the result says how the task has ended
        return []
    data: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
    said = event.content
    if data.get("fault"):
        said = f"{said or ''}\n({data['fault']})"
    about = {"input_id": data.get("input_id"), "schema": data.get("schema"), "attempt": event.attempt}
    if state in (TaskState.INPUT_REQUIRED, TaskState.AUTH_REQUIRED) and "fault" not in data:
        shown: Any = dict(task.metadata).get("mqtt-agent")
        same = isinstance(shown, Struct) and dict(shown).get("input_id") == data.get("input_id")
        if task.status.state == state_of(state) and same:
            return []  # the same question again
    return [_moved(task, state, said, event.timestamp, about)]


def _moved(
    task: a2a.Task,
    state: TaskState,
    said: TaskMessage | str | None,
    at: str | None,
    about: dict[str, Any] | None = None,
) -> a2a.TaskStatusUpdateEvent:
    update = a2a.TaskStatusUpdateEvent(
        task_id=task.id, context_id=task.context_id, status=status_of(state, said, at=at, task=task)
    )
    known = {key: each for key, each in (about or {}).items() if each is not None}
    if known:
        note(update.metadata, {"mqtt-agent": known})
    return update


def _made(task: a2a.Task, artifact: Artifact, *, append: bool, last_chunk: bool) -> a2a.TaskArtifactUpdateEvent:
    made = a2a.Artifact(
        artifact_id=artifact.artifact_id or artifact.name or RESULT,
        name=artifact.name,
        description=artifact.description or "",
        parts=to_parts(artifact.all_parts or [Part(data=None)]),
        extensions=artifact.extensions or (),
    )
    if artifact.metadata:
        note(made.metadata, artifact.metadata)
    return a2a.TaskArtifactUpdateEvent(
        task_id=task.id, context_id=task.context_id, artifact=made, append=append, last_chunk=last_chunk
    )


def updates_at_end(task: a2a.Task, result: TaskResult) -> list[Update]:
    """What the result changes in the A2A view of a task: the artifacts that the view does not have, then the state."""
    try:
        return _updates_at_end(task, result)
    except Exception:  # an agent may send anything, and each task must end
        logger.exception("the result of task %s cannot be shown to A2A clients", result.task_id)
        return [_moved(task, read_result_state(result), "The answer of the agent cannot be shown.", None)]


def _updates_at_end(task: a2a.Task, result: TaskResult) -> list[Update]:
    state = read_result_state(result)
    artifacts = [Artifact.read(each) for each in result.artifacts or ()]
    if result.message is None and result.result is not None:
        artifacts.append(Artifact(name=RESULT, data=result.result))
    known = {each.artifact_id: each for each in task.artifacts}
    updates: list[Update] = []
    for artifact in artifacts:
        update = _made(task, artifact, append=False, last_chunk=True)
        if not _same(known.get(update.artifact.artifact_id), update.artifact):
            updates.append(update)
    said: TaskMessage | str | None = result.message
    about = None
    if result.error is not None:
        said = result.error.message or result.error.type
        about = {"error": result.error.as_json()}
    return [*updates, _moved(task, state, said, result.timestamp, about)]


def _same(known: a2a.Artifact | None, artifact: a2a.Artifact) -> bool:
    """Whether an artifact of the view has the content of an artifact of the result, perhaps in more parts."""
    if known is None:
        return False
    return _joined(known) == _joined(artifact)


def _joined(artifact: a2a.Artifact) -> Artifact:
    whole = Artifact(name=artifact.name)
    for part in artifact.parts:
        whole = whole.followed_by(Artifact(name=artifact.name, parts=[from_part(part)]))
    return Artifact(data=plain(whole.data), parts=whole.parts)


def apply(task: a2a.Task, update: Update) -> None:
    """Change the view of a task. A question of the agent goes into the history when the task goes on."""
    if isinstance(update, a2a.TaskStatusUpdateEvent):
        if task.status.state in ASKING and task.status.HasField("message"):
            task.history.append(task.status.message)
        task.status.CopyFrom(update.status)
        if update.HasField("metadata"):
            task.metadata.MergeFrom(update.metadata)
        return
    made = update.artifact
    for each in task.artifacts:
        if each.artifact_id == made.artifact_id:
            if update.append:
                _append(each, made.parts)
            else:
                each.CopyFrom(made)
            return
    task.artifacts.append(made)


def _append(artifact: a2a.Artifact, parts: Iterable[a2a.Part]) -> None:
    """Add parts to an artifact. Texts that follow each other become one text, as in the result of the task."""
    for part in parts:
        last = artifact.parts[-1] if artifact.parts else a2a.Part()
        if last.HasField("text") and part.HasField("text") and from_part(last).continues(from_part(part)):
            last.text += part.text
        else:
            artifact.parts.append(part)


def direct_message(task: a2a.Task, result: TaskResult | None) -> a2a.Message | None:
    """The message that is the whole answer of an agent; None when the agent has done a task."""
    if result is None or result.message is None or task.artifacts or len(task.history) > 1:
        return None
    return to_message(result.message, f"{task.id}-answer", "", task.context_id)
