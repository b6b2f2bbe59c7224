"""How a task ended: from a handler's exception to the result message, and from there to the requester's exception."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import pydantic_core

from mqtt_agent.aio.handlers import describe
from mqtt_agent.errors import (
    MQTTAgentError,
    PayloadTooLarge,
    StoreError,
    TaskCanceled,
    TaskError,
    TaskExpired,
    TaskFailed,
    TaskRejected,
    TransportError,
    WireError,
)
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import Connection, PublishProperties
from mqtt_agent.wire import (
    Artifact,
    Task,
    TaskFault,
    TaskMessage,
    TaskResult,
    TaskState,
    checked_json,
    encode,
    mended_text,
    read_result_state,
    utc_now,
)

__all__ = [
    "Ending",
    "deliverable",
    "ending_of_exception",
    "ending_of_result",
    "error_of",
    "expired",
    "given_up",
    "is_answer",
    "not_stored",
    "result_of",
    "with_message",
]

logger: logging.Logger = logger_of(__name__)


class Ending(NamedTuple):
    """How a task ended.

    Attributes:
        state: The terminal state.
        value: The result of a completed task, any plain JSON value; see :func:`checked_json`.
        fault: Why a task that was not completed has no result.
        message: The message with which the handler has answered, as plain JSON; None when it has returned a value.
    """

    state: TaskState
    value: Any = None
    fault: TaskFault | None = None
    message: dict[str, Any] | None = None


def result_of(
    task_id: str,
    sender: str,
    to: str | None,
    ending: Ending,
    *,
    artifacts: dict[str, Artifact] | None = None,
    elapsed_ms: float | None = None,
    seq: int | None = None,
    attempt: int | None = None,
) -> dict[str, Any]:
    """Make a result message, as plain JSON.

    Args:
        task_id: The task's id.
        sender: The agent that sends the result.
        to: The requester; None when the task did not name its requester.
        ending: How the task ended.
        artifacts: The artifacts by their names.
        elapsed_ms: How long the handler took, in milliseconds.
        seq: The number of the task's end, one more than that of its last event; None when no events are sent.
        attempt: The number of the attempt that has ended; None when the handler has not begun.
    """
    if ending.fault is None and ending.message is None and not artifacts:
        fields = {
            "task_id": task_id,
            "from": sender,
            "to": to,
            "status": ending.state.value,
            "result": ending.value,
            "elapsed_ms": elapsed_ms,
            "timestamp": utc_now(),
            "seq": seq,
            "attempt": attempt,
        }
        return {name: value for name, value in fields.items() if value is not None}
    listed = [{"data": each.data, **each.as_json()} for each in (artifacts or {}).values()]
    result = TaskResult(
        task_id=task_id,
        sender=sender,
        to=to,
        status=ending.state.value,
        result=ending.value,
        error=ending.fault,
        artifacts=listed or None,
        message=None if ending.message is None else TaskMessage.model_validate(ending.message),
        elapsed_ms=elapsed_ms,
        seq=seq,
        attempt=attempt,
    )
    return pydantic_core.from_json(encode(result))


def deliverable(
    connection: Connection, topics: list[str], state: TaskState, result: dict[str, Any], limit: int | None
) -> tuple[TaskState, dict[str, Any]]:
    """Replace a result that is too large by a small result, which reports that the task failed.

    So a task ends in the same state at its executor and at its requester.

    Args:
        connection: The connection, which knows the broker's limit for the size of a message.
        topics: The topics to which the result goes.
        state: The state in which the task ended.
        result: The result message, as plain JSON.
        limit: The size of the largest result that the requester can get, in bytes; None when unknown.

    Returns:
        The state and the result to send. They are unchanged when the result fits. They are also unchanged when the
        connection is not started or has ended, because then the broker's limit is not known.
    """
    try:
        payload = pydantic_core.to_json(result)
        if limit is not None and len(payload) > limit:
            raise PayloadTooLarge(
                f"the result has {len(payload):,} bytes, which are too many for the requester (max_result {limit:,}): "
                "return less, or raise max_payload of the requester, max_packet_size of its connection, and the limit "
                "of its broker"
            )
        properties = PublishProperties(correlation_data=result["task_id"].encode())  # as when the result is sent
        for topic in topics:
            connection.check_publish(topic, payload, properties)
    except TransportError:
        return state, result
    except PayloadTooLarge as error:
        fault = TaskFault(type="result_too_large", message=str(error), code="RESULT_TOO_LARGE")
        failed = Ending(TaskState.FAILED, fault=fault)
        return failed.state, result_of(
            result["task_id"], result["from"], result.get("to"), failed, seq=result.get("seq")
        )
    return state, result


def not_stored(result: dict[str, Any], state: TaskState, error: StoreError) -> tuple[TaskState, dict[str, Any]]:
    """Replace a result that can never be stored by a small result, which reports that the task failed.

    Args:
        result: The result message, as plain JSON.
        state: The state in which the task would have ended.
        error: Why the store refuses the result.

    Returns:
        The state and the result to store and to send.
    """
    message = f"the task ended as {state.value}, but the store of its executor cannot keep the result: {error}"
    fault = TaskFault(type="StoreError", message=mended_text(message), code="RESULT_NOT_STORED")
    failed = Ending(TaskState.FAILED, fault=fault)
    return failed.state, result_of(result["task_id"], result["from"], result.get("to"), failed, seq=result.get("seq"))


def ending_of_result(value: Any, owner: str) -> Ending:
    """How a task ends when its handler has returned this value. JSON may not be able to carry the value.

    Args:
        value: What the handler returned.
        owner: Who made the value, for logs.
    """
    try:
        if isinstance(value, TaskMessage):
            message = checked_json(value.as_json(), "result", owner)
            return Ending(TaskState.COMPLETED, message.get("content"), message=message)
        return Ending(TaskState.COMPLETED, checked_json(value, "result", owner))
    except WireError as error:
        logger.warning("%s: the result cannot be sent: %s", owner, error)
        message = f"the handler ran, but its result cannot be sent: {error}"
        return Ending(TaskState.FAILED, fault=TaskFault(type="WireError", message=message, code="RESULT_NOT_JSON"))


def expired(task: Task) -> Ending:
    """How a task ends that was not finished at its ``expires_at``."""
    return Ending(TaskState.FAILED, fault=TaskFault(type="expired", message=f"not finished by {task.expires_at}"))


def ending_of_exception(error: BaseException) -> Ending:
    """How a task ends when its handler has raised this exception."""
    kind, message = describe(error)
    message = mended_text(message)
    if not isinstance(error, TaskError):
        return Ending(TaskState.FAILED, fault=TaskFault(type=kind, message=message or kind))
    state = TaskState.FAILED
    if isinstance(error, TaskFailed) and error.type:
        kind = error.type
    elif error.task_id is None:  # an error with a task id is about another task, which the handler delegated
        if isinstance(error, TaskRejected):
            state, kind = TaskState.REJECTED, "rejected"
        elif isinstance(error, TaskCanceled):
            state, kind = TaskState.CANCELED, "canceled"
    try:
        data = checked_json(error.data, "data", kind)
    except WireError:
        data = repr(error.data)
    code = None if error.code is None else mended_text(str(error.code))
    return Ending(state, fault=TaskFault(type=kind, message=message or kind, code=code, data=data))


def given_up(begun: int, agent_id: str) -> Ending:
    """How a task ends whose handler has begun as often as it may.

    Args:
        begun: How often the handler has begun.
        agent_id: The agent of the handler.
    """
    times = "once" if begun == 1 else f"{begun} times"
    message = (
        f"the handler at agent {agent_id} has begun {times} and never ended, so the task is given up (max_attempts): "
        "its process was killed, crashed or was stopped each time, perhaps by the task itself; see the process's log"
    )
    return Ending(TaskState.FAILED, fault=TaskFault(type="too_many_attempts", message=message))


def is_answer(error: BaseException) -> bool:
    """Whether a handler has raised this exception as its answer to the requester, and not because of a fault."""
    # An error with a task id is about another task, which the handler delegated.
    return isinstance(error, (TaskFailed, TaskRejected, TaskCanceled)) and error.task_id is None


def with_message(error: MQTTAgentError, message: str) -> MQTTAgentError:
    """Copy an error, with another message. The error itself becomes the cause of the copy."""
    copy = error.__class__.__new__(error.__class__)  # some constructors need more than a message; __dict__ has the rest
    copy.args = (message,)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error
    return copy


def error_of(result: TaskResult, peer: str | None) -> TaskError | None:
    """The error that :meth:`TaskHandle.result` raises for a result message; None when the task was completed.

    Args:
        result: The result message.
        peer: The agent that the task was given to; None when unknown.
    """
    state = read_result_state(result)
    if state is TaskState.COMPLETED:
        return None
    fault = result.error or TaskFault(message=f"{state.value}, without a reason")
    who = peer or result.sender or "an unknown agent"
    words = {TaskState.REJECTED: "was rejected by", TaskState.CANCELED: "was canceled at"}.get(state, "failed at")
    text = f"task {result.task_id} {words} {who}: {fault.message or fault.type}"
    if state is TaskState.REJECTED:
        return TaskRejected(text, task_id=result.task_id, peer=peer, code=fault.code or fault.type, data=fault.data)
    if state is TaskState.CANCELED:
        return TaskCanceled(text, task_id=result.task_id, peer=peer, code=fault.code, data=fault.data)
    if fault.type == "expired":
        return TaskExpired(text, task_id=result.task_id, peer=peer, code=fault.code, data=fault.data)
    return TaskFailed(text, task_id=result.task_id, peer=peer, code=fault.code, data=fault.data, type=fault.type)
