"""What a task handler may ask for, and tell, while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from mqtt_agent.agents.executing.attempt import Attempt
from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.wire import Task, TaskMessage, to_json

__all__ = ["SyncTaskContext", "TaskContext"]


class TaskContext:
    """The task that a handler is working on.

    Example:
        >>> @agent.on_task  # doctest: +SKIP
        ... async def handle(task: TaskContext) -> str:
        ...     page = (task.saved or {"page": 0})["page"]
        ...     while page < 10:
        ...         page = await read(page)
        ...         await task.save({"page": page})
        ...     return "done"

    Attributes:
        id: The task's id.
        sender: The agent that wants it done, as it says itself: never a proof of identity. None when it did not say.
        type: What kind of task it is.
        title: A line for people.
        prompt: What to do, as text: of a task that has messages only, the last one of its user.
        messages: The conversation so far: ``role`` and ``content`` each.
        context_id: Tasks of one conversation share it.
        data: Structured input, any JSON value.
        metadata: Anything else that the requester told.
        expires_at: When nobody needs the result any more, ISO 8601; None for never. The handler is canceled then.
        attempt: 1, and one more after every crash.
        canceled: Whether nobody waits for the result any more. An async handler also gets ``CancelledError``; a sync
            one should look here now and then.
        interrupted: Whether it was canceled because its agent stops: the next start runs the task again, so what it
            has begun elsewhere should go on.
    """

    def __init__(self, task: Task, attempt: Attempt) -> None:
        self.id: str = task.task_id
        self.sender: str | None = task.sender
        self.type: str | None = task.type
        self.title: str | None = task.title
        self.messages: list[TaskMessage] = task.messages or (
            [TaskMessage(role="user", content=task.prompt)] if task.prompt is not None else []
        )
        self.prompt: str | None = task.prompt if task.prompt is not None else _last_user_text(self.messages)
        self.context_id: str | None = task.context_id
        self.data: Any = task.data
        self.metadata: dict[str, Any] = task.metadata or {}
        self.expires_at: str | None = task.expires_at
        self.attempt: int = attempt.number
        self.canceled = False
        self.interrupted = False
        self._attempt = attempt
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()

    def __repr__(self) -> str:
        return f"<TaskContext {self.id} attempt {self.attempt}>"

    @property
    def cancelled(self) -> bool:
        """The old name of ``canceled``."""
        warn_renamed("TaskContext.cancelled", "TaskContext.canceled")
        return self.canceled

    @property
    def elapsed(self) -> float:
        """Seconds since the handler was called."""
        return time.monotonic() - self._started

    @property
    def saved(self) -> Any:
        """What :meth:`save` stored last, in this attempt or in one before; None when nothing was."""
        return self._attempt.saved

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Tell how far the work is.

        Args:
            progress: How much is done; it should grow.
            total: How much there is, if known.
            message: What is being done now.
        """
        await self._attempt.tell("progress", progress=progress, total=total, content=message)

    async def stream(self, value: Any) -> None:
        """Send something to the requester before the result: a string as text, any other JSON value as data.

        It waits while the broker is slow to take what was sent before. Events are not stored: after a crash the next
        attempt sends its own.

        Raises:
            WireError: The value has no JSON form.
        """
        if isinstance(value, str):
            await self._attempt.tell("partial", content=value)
        else:
            await self._attempt.tell("partial", data=to_json(value))

    async def artifact(self, name: str, data: Any) -> None:
        """Send something that was made, such as a file's text; it also comes with the result.

        Args:
            name: Its name, unique in the task; the same name again replaces it.
            data: Any JSON value.

        Raises:
            WireError: The value has no JSON form.
        """
        await self._attempt.add_artifact(name, to_json(data))

    async def save(self, value: Any) -> None:
        """Store a checkpoint: it is in :attr:`saved` when the handler is called again after a crash.

        Returns when it is as durable as the store can make it.

        Raises:
            WireError: The value has no JSON form.
            StoreError: The store cannot be written.
            TaskCanceled: This attempt is over: canceled, or another process goes on with the task.
        """
        await self._attempt.save(to_json(value))

    async def ask(self, prompt: str, schema: Any = None) -> Any:
        """Ask the requester something, and wait for the answer; the task is ``input-required`` meanwhile.

        Questions and answers are stored: after a crash, the same question in the same place gets its answer at once.
        A task that waits for an answer takes no place among the running ones.

        Args:
            prompt: The question.
            schema: JSON Schema of the answer, or a pydantic model class; answers that do not fit are asked for again.

        Returns:
            The answer: any JSON value, or an instance of the model.

        Raises:
            TaskCanceled: This attempt is over.
        """
        return await self._attempt.ask(prompt, schema)

    def in_thread(self) -> SyncTaskContext:
        """The same for a handler that runs in a thread: methods that block instead of being awaited."""
        return SyncTaskContext(self, self._loop)


class SyncTaskContext:
    """A :class:`TaskContext` for handlers that are plain functions: its methods block instead of being awaited."""

    def __init__(self, context: TaskContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self.id: str = context.id
        self.sender: str | None = context.sender
        self.type: str | None = context.type
        self.title: str | None = context.title
        self.prompt: str | None = context.prompt
        self.messages: list[TaskMessage] = context.messages
        self.context_id: str | None = context.context_id
        self.data: Any = context.data
        self.metadata: dict[str, Any] = context.metadata
        self.expires_at: str | None = context.expires_at
        self.attempt: int = context.attempt

    @property
    def canceled(self) -> bool:
        """Whether nobody waits for the result any more: stop the work and return."""
        return self._context.canceled

    @property
    def interrupted(self) -> bool:
        """Whether its agent stops: the next start runs the task again."""
        return self._context.interrupted

    @property
    def cancelled(self) -> bool:
        """The old name of ``canceled``."""
        warn_renamed("TaskContext.cancelled", "TaskContext.canceled")
        return self.canceled

    @property
    def elapsed(self) -> float:
        """Seconds since the handler was called."""
        return self._context.elapsed

    @property
    def saved(self) -> Any:
        """See :attr:`TaskContext.saved`."""
        return self._context.saved

    def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """See :meth:`TaskContext.progress`."""
        self._wait(self._context.progress(progress, total, message))

    def stream(self, value: Any) -> None:
        """See :meth:`TaskContext.stream`."""
        self._wait(self._context.stream(value))

    def artifact(self, name: str, data: Any) -> None:
        """See :meth:`TaskContext.artifact`."""
        self._wait(self._context.artifact(name, data))

    def save(self, value: Any) -> None:
        """See :meth:`TaskContext.save`."""
        self._wait(self._context.save(value))

    def ask(self, prompt: str, schema: Any = None) -> Any:
        """See :meth:`TaskContext.ask`."""
        return self._wait(self._context.ask(prompt, schema))

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _last_user_text(messages: list[TaskMessage]) -> str | None:
    texts = [message.content for message in messages if message.role == "user" and isinstance(message.content, str)]
    return texts[-1] if texts else None
