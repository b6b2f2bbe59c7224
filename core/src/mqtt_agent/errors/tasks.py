"""The errors of tasks."""

from __future__ import annotations

from typing import Any

from mqtt_agent.errors.base import MQTTAgentError

__all__ = [
    "PeerUnavailable",
    "TaskCanceled",
    "TaskError",
    "TaskExpired",
    "TaskFailed",
    "TaskNotFound",
    "TaskRejected",
    "TaskTimeout",
]


class TaskError(MQTTAgentError):
    """A task has no result.

    It is the base class of the errors that ``agent.request()`` and ``handle.result()`` raise. The class itself is
    raised when an operation does not fit the state of the task, for example when input is sent to a task that is over.

    Attributes:
        task_id: The id of the task; None when there is no task yet.
        peer: The agent that the task was given to, if known.
        code: A short code that requesters can test for.
        data: Any JSON value that helps the requester.
    """

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        peer: str | None = None,
        code: str | None = None,
        data: Any = None,
    ) -> None:
        super().__init__(message)
        self.task_id: str | None = task_id
        self.peer: str | None = peer
        self.code: str | None = code
        self.data: Any = data


class TaskFailed(TaskError):
    """The agent tried to do the task and failed.

    ``agent.request()`` and ``handle.result()`` raise it after the task handler has raised an exception. The log of the
    executing agent names the line that failed. Raise it in a task handler to choose ``code`` and ``data``.

    Attributes:
        type: The class name of the handler's exception.
    """

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        peer: str | None = None,
        code: str | None = None,
        data: Any = None,
        type: str | None = None,
    ) -> None:
        super().__init__(message, task_id=task_id, peer=peer, code=code, data=data)
        self.type: str | None = type


class TaskRejected(TaskError):
    """The agent does not take the task.

    ``agent.request()`` and ``handle.result()`` raise it. ``agent.delegate()`` raises it when another task has this
    task id already. Give the task to another agent. Raise it in a task handler to reject a task.

    Example:
        >>> raise TaskRejected("not my job")  # doctest: +SKIP
    """


class TaskCanceled(TaskError):
    """The task was canceled before it was completed.

    ``agent.request()`` and ``handle.result()`` raise it. Delegate the work again, with another task id, if the result
    is still wanted. In a task handler, the methods of the task context raise it when the attempt is over.
    """


class TaskExpired(TaskError):
    """The task was not completed by its ``expires_at``.

    ``agent.request()`` and ``handle.result()`` raise it. Delegate the work again with a later ``expires_at``.
    """


class TaskTimeout(TaskError, TimeoutError):
    """The result did not arrive within the ``timeout``. The task goes on.

    ``agent.request()`` and ``handle.result()`` raise it. ``await agent.resume(error.task_id)`` returns a handle on the
    task, now or after a restart.
    """


class TaskNotFound(TaskError, LookupError):
    """The agent's store has no task with this id.

    ``agent.resume()`` raises it. ``await agent.delegations()`` lists the tasks in the store. Or name the agent that has
    the task: ``agent.resume(task_id, peer=...)``.
    """


class PeerUnavailable(TaskError):
    """The agent has never been seen in the namespace, or is offline now. The task was not sent.

    ``agent.delegate()`` raises it for an agent that was never seen. ``agent.request()`` raises it also for an agent
    that is offline. ``await agent.peers()`` lists the agents that are online. ``wait_online=True`` sends the task in
    either case.
    """
