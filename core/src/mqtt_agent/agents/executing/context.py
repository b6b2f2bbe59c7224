"""The argument of a task handler: the task, with methods to report, save, ask and send while the handler runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from mqtt_agent.agents.executing.attempt import Attempt
from mqtt_agent.agents.executing.conversation import conversation_of
from mqtt_agent.agents.executing.questions import Questions
from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.wire import Artifact, Part, Task, TaskMessage, TaskState, checked_json, mended_text, to_json

__all__ = ["SyncTaskContext", "TaskContext"]


class TaskContext:
    """The task that a handler works on: the argument of an ``async`` handler. See also :class:`SyncTaskContext`.

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
        sender: The id of the requester. When :attr:`bound` is false, the requester gives itself this id, which is no
            proof of identity. None when the task does not name its requester.
        bound: Whether the requester asked on a sender-bound topic. Then only the agent :attr:`sender` can have asked,
            if the broker lets each login write only the topics with its own name.
        verified: The id of the requester if a signature proves it, which is then :attr:`sender`; None if nothing proves
            it.
        type: The type of the task, by which the handler was chosen.
        title: A short title for people.
        prompt: What to do, as text. For a task that has messages and no prompt, the text of the user's last message.
        messages: The conversation so far; each message has a ``role``, a ``content``, and its content as A2A's parts in
            ``all_parts``.
        context_id: The conversation: all tasks of a conversation have the same ``context_id``. Any requester can use
            any ``context_id``.
        conversation: The name under which a handler should keep what it remembers of the conversation. It is made from
            ``context_id`` and from the requester: when :attr:`bound` is true or :attr:`verified` has a name, no other
            requester can get into this conversation. Without a ``context_id``, the name is that of this task alone.
        reference_task_ids: The ids of earlier tasks that the task refers to.
        data: Structured input, any JSON value.
        metadata: Further information from the requester.
        expires_at: The time, ISO 8601, after which nobody needs the result; None for never. The handler is canceled
            at this time.
        max_result: The size of the largest result message, in bytes: the requester and the broker take no larger
            message. The message is the JSON of the result with all artifacts. A larger result fails the task.
        attempt: 1 for the first attempt. Each crash or stop of the agent leads to one more attempt.
        canceled: Whether nobody waits for the result any more. An ``async`` handler also gets a ``CancelledError``. A
            plain function should check ``canceled`` regularly, and return when ``canceled`` is true.
        interrupted: Whether the handler was canceled because its agent stops. The agent's next start runs the task
            again, so the handler should not undo its work.
    """

    def __init__(
        self, task: Task, attempt: Attempt, questions: Questions, max_result: int, bound: bool, verified: str | None
    ) -> None:
        self.id: str = task.task_id
        self.sender: str | None = task.sender
        self.bound: bool = bound
        self.verified: str | None = verified
        self.type: str | None = task.type
        self.title: str | None = task.title
        self.messages: list[TaskMessage] = task.messages or (
            [TaskMessage(role="user", content=task.prompt)] if task.prompt is not None else []
        )
        self.prompt: str | None = task.prompt if task.prompt is not None else _last_user_text(self.messages)
        self.context_id: str | None = task.context_id
        self.conversation: str = conversation_of(self, task.context_id)
        self.reference_task_ids: list[str] = task.reference_task_ids or []
        self.data: Any = task.data
        self.metadata: dict[str, Any] = task.metadata or {}
        self.expires_at: str | None = task.expires_at
        self.max_result: int = max_result
        self.attempt: int = attempt.number
        self.canceled: bool = False
        self.interrupted: bool = False
        self._attempt = attempt
        self._questions = questions
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
    def parts(self) -> list[Part]:
        """The latest message of the user as A2A's parts: text, data, and files by their bytes or their URL."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.all_parts
        return []

    @property
    def _owner(self) -> str:
        return f"task {self.id}"

    @property
    def saved(self) -> Any:
        """The value that :meth:`save` stored last, in this attempt or in an earlier one; None when there is none."""
        return self._attempt.saved

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report how far the work is, as an event to the requester.

        Args:
            progress: How much is done. The number should grow with each call.
            total: How much there is to do, if known.
            message: What the handler does now, as text for people.
        """
        await self._attempt.send_event("progress", progress=progress, total=total, content=message)

    async def stream(self, value: Any) -> None:
        """Send a part of the result to the requester before the result is ready.

        This waits while too many earlier events are not confirmed by the broker. Events are not stored: after a crash,
        the next attempt sends its own events.

        Args:
            value: A string, which is sent as text; or any other JSON value, which is sent as data.

        Raises:
            WireError: The value has no JSON form, is nested too deeply, or has NaN or infinity in it.
            PayloadTooLarge: The value is larger than the broker takes.
        """
        if isinstance(value, str):
            await self._attempt.send_event("partial", content=value)
        else:
            await self._attempt.send_event("partial", data=to_json(value, "data", self._owner))

    async def artifact(
        self,
        name: str,
        data: Any = None,
        *,
        parts: Sequence[Part | Mapping[str, Any]] | None = None,
        append: bool = False,
        last_chunk: bool | None = None,
        artifact_id: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Send an artifact, such as the text of a file. The artifact is sent as an event, and again with the result.

        Example:
            >>> await task.artifact("page", parts=[Part.of_bytes(pdf, media_type="application/pdf")])  # doctest: +SKIP
            >>> await task.artifact("report", "The first words", last_chunk=False)  # doctest: +SKIP
            >>> await task.artifact("report", " and the last ones.", append=True, last_chunk=True)  # doctest: +SKIP

        Args:
            name: The artifact's name. A second artifact with the same name replaces the first.
            data: Any JSON value.
            parts: The content as A2A's parts, instead of ``data``.
            append: Whether this is the next chunk of the artifact with this name, and does not replace it.
            last_chunk: For an artifact that is sent in chunks: whether this chunk is the last.
            artifact_id: The id at the A2A agent that has made the artifact, when it differs from the name.
            metadata: Any other information about the artifact.

        Raises:
            WireError: The value has no JSON form.
            ValueError: There are both ``data`` and ``parts``.
        """
        if parts is not None and data is not None:
            raise ValueError("an artifact has either data or parts")
        about: dict[str, Any] = {"artifact_id": artifact_id}
        about["metadata"] = None if metadata is None else checked_json(metadata, "metadata", self._owner)
        if parts is None:
            chunk = Artifact(name=mended_text(name), data=checked_json(data, "data", self._owner), **about)
        else:
            content = [Part.model_validate(each) for each in checked_json(parts, "parts", self._owner)]
            chunk = Artifact.of_parts(mended_text(name), content, **about)
        await self._attempt.add_artifact(chunk, append=append, last_chunk=last_chunk)

    async def save(self, value: Any) -> None:
        """Store a checkpoint. After a crash, the handler finds the checkpoint in :attr:`saved`.

        When this returns, the checkpoint is as durable as the store can make it. While the store does not work, for
        example because the disk is full, this waits.

        Args:
            value: Any JSON value. The value replaces the earlier checkpoint.

        Raises:
            WireError: The value has no JSON form.
            StoreError: The value can never be stored. Or the store does not work while the agent stops: then the
                agent's next start runs the task again.
            TaskCanceled: This attempt is over: the task was canceled, or another process has started the task.
        """
        await self._attempt.save(checked_json(value, "saved", self._owner))

    async def ask(self, prompt: str, schema: Any = None, *, name: str | None = None) -> Any:
        """Ask the requester a question, and wait for the answer. Meanwhile the task's state is ``input-required``.

        Questions and answers are stored. After a crash, the handler asks the same questions again in the same order,
        and gets the stored answers at once. A handler that waits for an answer does not count in ``max_concurrency``:
        other tasks run meanwhile. When the wait is canceled and the handler goes on, as with ``asyncio.wait_for``, the
        question is taken back.

        Args:
            prompt: The question, as text.
            schema: The JSON Schema of the answer, or a pydantic model class. When an answer does not match, the
                question is asked again.
            name: The question's name, for a handler that may ask in another order after a crash, or leaves out
                questions of work that is done. The stored answer to the same prompt under the same name is used again.
                Within one attempt, a name is used once. None: the question is recognised by its number.

        Returns:
            The answer: any JSON value, or an instance of the model class.

        Raises:
            TaskCanceled: This attempt is over: the task was canceled, or another process has started the task.
            TaskRejected: So many tasks of this requester wait for answers that the agent has no room for one more.
            StoreError: The store does not work while the agent stops: the agent's next start runs the task again.
            RuntimeError: An earlier question of this task still waits for its answer.
            ValueError: The schema is not valid JSON Schema, or refers to something outside itself.
        """
        return await self._questions.ask(mended_text(prompt), schema, name)

    async def require_auth(self, prompt: str, schema: Any = None, *, name: str | None = None) -> Any:
        """Ask the requester for credentials. Meanwhile the task's state is ``auth-required``.

        The answer is stored, as each answer is: ask for the news that a login at another place is done, or for a token
        that is soon worthless, and not for a password.

        Args:
            prompt: What the requester has to do, as text, such as the address at which to log in.
            schema: The JSON Schema of the answer, as for :meth:`ask`.
            name: The question's name, as for :meth:`ask`.

        Returns:
            The answer, as for :meth:`ask`.

        Raises:
            TaskCanceled, StoreError, RuntimeError, ValueError: As :meth:`ask`.
        """
        return await self._questions.ask(mended_text(prompt), schema, name, TaskState.AUTH_REQUIRED)

    def in_thread(self) -> SyncTaskContext:
        """The same task for a handler that is a plain function and runs in a thread."""
        return SyncTaskContext(self, self._loop)


class SyncTaskContext:
    """The task that a handler works on, for handlers that are plain functions: the methods block.

    The attributes are the same as those of :class:`TaskContext`.
    """

    def __init__(self, context: TaskContext, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self.id: str = context.id
        self.sender: str | None = context.sender
        self.bound: bool = context.bound
        self.verified: str | None = context.verified
        self.type: str | None = context.type
        self.title: str | None = context.title
        self.prompt: str | None = context.prompt
        self.messages: list[TaskMessage] = context.messages
        self.context_id: str | None = context.context_id
        self.conversation: str = context.conversation
        self.reference_task_ids: list[str] = context.reference_task_ids
        self.data: Any = context.data
        self.metadata: dict[str, Any] = context.metadata
        self.expires_at: str | None = context.expires_at
        self.max_result: int = context.max_result
        self.attempt: int = context.attempt

    @property
    def canceled(self) -> bool:
        """Whether nobody waits for the result any more: the handler should stop its work and return."""
        return self._context.canceled

    @property
    def interrupted(self) -> bool:
        """Whether the handler was canceled because its agent stops: the next start runs the task again."""
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
    def parts(self) -> list[Part]:
        """See :attr:`TaskContext.parts`."""
        return self._context.parts

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

    def artifact(
        self,
        name: str,
        data: Any = None,
        *,
        parts: Sequence[Part | Mapping[str, Any]] | None = None,
        append: bool = False,
        last_chunk: bool | None = None,
        artifact_id: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """See :meth:`TaskContext.artifact`."""
        order: dict[str, Any] = {"append": append, "last_chunk": last_chunk, "artifact_id": artifact_id}
        self._wait(self._context.artifact(name, data, parts=parts, metadata=metadata, **order))

    def save(self, value: Any) -> None:
        """See :meth:`TaskContext.save`."""
        self._wait(self._context.save(value))

    def ask(self, prompt: str, schema: Any = None, *, name: str | None = None) -> Any:
        """See :meth:`TaskContext.ask`."""
        return self._wait(self._context.ask(prompt, schema, name=name))

    def require_auth(self, prompt: str, schema: Any = None, *, name: str | None = None) -> Any:
        """See :meth:`TaskContext.require_auth`."""
        return self._wait(self._context.require_auth(prompt, schema, name=name))

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _last_user_text(messages: list[TaskMessage]) -> str | None:
    texts = [message.content for message in messages if message.role == "user" and isinstance(message.content, str)]
    return texts[-1] if texts else None
