"""Why a call or a task has no result, in the words of every adapter: for a language model, and for a program."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import Any

from mqtt_agent.errors import (
    CallCanceled,
    CallerNotAuthorized,
    CallError,
    CallTimeout,
    InvalidArguments,
    InvalidIdentifier,
    MQTTAgentError,
    PayloadTooLarge,
    PeerUnavailable,
    TaskCanceled,
    TaskError,
    TaskExpired,
    TaskFailed,
    TaskRejected,
    TaskTimeout,
    ToolFailed,
    ToolUnavailable,
    TopicNotAuthorized,
    TransportError,
    WireError,
)

__all__ = ["Failure", "concerns_model", "failure_of", "hide"]


@dataclass(frozen=True)
class Failure:
    """Why a call or a task has no result.

    Attributes:
        message: The reason as text.
        code: A short word for programs: the code that the tool or the peer chose; else ``invalid_arguments``,
            ``denied``, ``timeout``, ``offline``, ``canceled``, ``rejected`` or ``expired``; else the name of an error.
        data: Any JSON value that explains the error; None when there is no such value.
        retryable: Whether the same call can be made again without harm, and may then succeed. None means unknown: the
            tool or the peer has failed, and has not said whether to try again.
        maybe_executed: For a call that has reached no server, or was lost with its server: whether the tool may have
            run. None for any other failure.
    """

    message: str
    code: str
    data: Any = None
    retryable: bool | None = None
    maybe_executed: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields for a program as a JSON object, without the message."""
        about: dict[str, Any] = {"code": self.code, "data": self.data, "retryable": self.retryable}
        return about if self.maybe_executed is None else {**about, "maybe_executed": self.maybe_executed}


def concerns_model(error: BaseException) -> bool:
    """Whether a language model can do something about an error: correct what it wrote, or try another way.

    This is an error that a tool or a peer reports, or that the caller's side has found in what the model wrote. A model
    can do nothing about a broken connection, or about a call that its user has canceled.
    """
    told = (CallError, TaskError, WireError, PayloadTooLarge, InvalidIdentifier)
    return isinstance(error, told) and not isinstance(error, CallCanceled)


def failure_of(error: Exception, *, repeatable: bool = False) -> Failure:
    """Describe an error of a call or a task.

    Args:
        error: The error. An error that is not of this package comes from code that could not read what a model wrote.
        repeatable: Whether the call may run twice, because its tool is read-only or idempotent.
    """
    message = str(error)
    if isinstance(error, TaskError):
        return _failure_of_task(error)
    if isinstance(error, (InvalidArguments, InvalidIdentifier, WireError, PayloadTooLarge)) or not isinstance(
        error, MQTTAgentError
    ):
        return Failure(message, "invalid_arguments", getattr(error, "data", None), retryable=False)
    if isinstance(error, (CallerNotAuthorized, TopicNotAuthorized)):
        return Failure(message, "denied", retryable=False)
    if isinstance(error, CallTimeout):
        return Failure(message, "timeout", retryable=repeatable)
    if isinstance(error, ToolUnavailable):
        safe = repeatable or not error.maybe_executed
        return Failure(message, "offline", retryable=safe, maybe_executed=error.maybe_executed)
    if isinstance(error, CallCanceled):
        return Failure(message, "canceled", retryable=repeatable)
    if isinstance(error, TransportError):
        return Failure(message, "offline", retryable=repeatable)
    if isinstance(error, ToolFailed):
        return Failure(message, error.code or "tool_error", error.data, error.retryable)
    return Failure(message, type(error).__name__, retryable=False)


_TASK_CODES: dict[type[TaskError], tuple[str, bool | None]] = {
    PeerUnavailable: ("offline", None),
    TaskTimeout: ("timeout", False),
    TaskCanceled: ("canceled", None),
    TaskExpired: ("expired", None),
    TaskRejected: ("rejected", False),
}


def _failure_of_task(error: TaskError) -> Failure:
    code, retryable = _TASK_CODES.get(type(error), (None, None))
    if isinstance(error, PeerUnavailable) and error.task_id is None:
        retryable = True  # the task was not sent
    name = (error.type if isinstance(error, TaskFailed) else None) or type(error).__name__
    return Failure(str(error), error.code or code or name, error.data, retryable)


def hide(logger: logging.Logger, what: str, error: Exception) -> str:
    """Log an error whose reason a client of another protocol must not see: it may name hosts, paths or databases.

    Args:
        logger: Logs the error.
        what: What failed.
        error: The error.

    Returns:
        A reference for the client, under which the log has the reason.
    """
    reference = uuid.uuid4().hex[:12]
    logger.error("%s, reference %s", what, reference, exc_info=error)
    return reference
