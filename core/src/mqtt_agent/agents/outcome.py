"""How a task ended: from a handler's exception to the wire, and from the wire to the requester's exception."""

from __future__ import annotations

from typing import Any

import pydantic_core

from mqtt_agent.aio.handlers import describe
from mqtt_agent.errors import (
    MQTTAgentError,
    PayloadTooLarge,
    TaskCanceled,
    TaskError,
    TaskExpired,
    TaskFailed,
    TaskRejected,
    TransportError,
    WireError,
)
from mqtt_agent.transport import Connection
from mqtt_agent.wire import TaskFault, TaskResult, TaskState, encode, read_result_state, to_json

__all__ = ["deliverable", "error_of", "failure", "result_of", "with_words"]


def result_of(
    task_id: str,
    sender: str,
    to: str | None,
    state: TaskState,
    fault: TaskFault | None = None,
    *,
    value: Any = None,
    artifacts: dict[str, Any] | None = None,
    elapsed_ms: float | None = None,
    seq: int | None = None,
) -> dict[str, Any]:
    """A result as it is on the wire."""
    listed = [{"name": name, "data": data} for name, data in (artifacts or {}).items()]
    result = TaskResult(
        task_id=task_id,
        sender=sender,
        to=to,
        status=state.value,
        result=value,
        error=fault,
        artifacts=listed or None,
        elapsed_ms=elapsed_ms,
        seq=seq,
    )
    return pydantic_core.from_json(encode(result))


def deliverable(
    connection: Connection, topics: list[str], state: TaskState, result: dict[str, Any]
) -> tuple[TaskState, dict[str, Any]]:
    """The same, or a failure instead of what no broker would take."""
    try:
        payload = pydantic_core.to_json(result)
        for topic in topics:
            connection.check_publish(topic, payload)
    except TransportError:
        return state, result  # it waits in the store
    except PayloadTooLarge as error:
        fault = TaskFault(type="result_too_large", message=str(error), code="RESULT_TOO_LARGE")
        small = result_of(
            result["task_id"], result["from"], result.get("to"), TaskState.FAILED, fault, seq=result.get("seq")
        )
        return TaskState.FAILED, small
    return state, result


def failure(error: BaseException) -> tuple[TaskState, TaskFault]:
    """What a handler's exception does to its task."""
    kind, message = describe(error)
    if isinstance(error, WireError):
        return TaskState.FAILED, TaskFault(type=kind, message=message, code="RESULT_NOT_JSON")
    if not isinstance(error, TaskError):
        return TaskState.FAILED, TaskFault(type=kind, message=message or kind)
    state = TaskState.FAILED
    if isinstance(error, TaskFailed) and error.type:
        kind = error.type
    elif error.task_id is None:  # the handler's own word, and not what became of a task that it gave away
        if isinstance(error, TaskRejected):
            state, kind = TaskState.REJECTED, "rejected"
        elif isinstance(error, TaskCanceled):
            state, kind = TaskState.CANCELED, "canceled"
    try:
        data = to_json(error.data)
    except WireError:
        data = repr(error.data)
    code = None if error.code is None else str(error.code)
    return state, TaskFault(type=kind, message=message or kind, code=code, data=data)


def with_words(error: MQTTAgentError, message: str) -> MQTTAgentError:
    """The same error with another message."""
    told = error.__class__.__new__(error.__class__)
    told.args = (message,)  # some of them want more in their constructor, which __dict__ has
    told.__dict__.update(error.__dict__)
    told.__cause__ = error
    return told


def error_of(result: TaskResult, peer: str | None) -> TaskError | None:
    """What a requester's ``result()`` raises; None when the task was completed."""
    state = read_result_state(result)
    if state is TaskState.COMPLETED:
        return None
    fault = result.error or TaskFault(message=f"{state.value}, without a reason")
    who = peer or result.sender or "its agent"
    words = {TaskState.REJECTED: "was rejected by", TaskState.CANCELED: "was canceled at"}.get(state, "failed at")
    text = f"task {result.task_id} {words} {who}: {fault.message or fault.type}"
    if state is TaskState.REJECTED:
        return TaskRejected(text, task_id=result.task_id, peer=peer, code=fault.code or fault.type, data=fault.data)
    if state is TaskState.CANCELED:
        return TaskCanceled(text, task_id=result.task_id, peer=peer, code=fault.code, data=fault.data)
    if fault.type == "expired":
        return TaskExpired(text, task_id=result.task_id, peer=peer, code=fault.code, data=fault.data)
    return TaskFailed(text, task_id=result.task_id, peer=peer, code=fault.code, data=fault.data, type=fault.type)
