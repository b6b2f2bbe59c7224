"""Stores the result of a handler. The module ``replies`` sends the stored result."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial
from typing import Any

from mqtt_agent.agents.crashpoints import reached
from mqtt_agent.agents.executing.attempt import Attempt
from mqtt_agent.agents.executing.replies import Replies
from mqtt_agent.agents.outcome import Ending, deliverable, expired, not_stored, result_of
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import ACTIVE, TaskKey, TaskRecord
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.errors import StoreError, TaskCanceled
from mqtt_agent.logs import logger_of
from mqtt_agent.wire import Task, TaskState

__all__ = ["Completion"]

logger: logging.Logger = logger_of(__name__)


class Completion:
    """Stores the result of each task once, and then sends the result.

    Args:
        scope: The agent's shared values.
        replies: Sends the results to the requesters.
        background: Runs the work that sends results.
    """

    def __init__(self, scope: Scope, replies: Replies, background: BackgroundTasks) -> None:
        self._scope = scope
        self._replies = replies
        self._background = background
        self._unstorable: set[TaskKey] = set()

    def is_unstorable(self, key: TaskKey) -> bool:
        """Whether a handler has worked on a task, and the store refuses each end of the task."""
        return key in self._unstorable

    async def finish(self, record: TaskRecord, attempt: Attempt, elapsed: float, ending: Ending) -> None:
        """End a task. Nothing happens when the attempt is over.

        A result that can never be stored is replaced by a small result, which reports that the task failed. When the
        store refuses this result too, the task stays as it is, and does not run again before the agent's next start.

        Args:
            record: The task's record, as it was when the attempt began.
            attempt: The attempt that ends the task.
            elapsed: How long the handler took, in seconds.
            ending: How the task ended.

        Raises:
            StoreError: The result could not be stored, and the agent stops.
        """
        if attempt.over:
            return
        try:
            changed = await self._store_ending(record, attempt, elapsed, ending)
        except TaskCanceled:
            return
        except StoreError as error:
            if not error.permanent:
                raise
            self._note_unstorable(record.key, error)
        else:
            if changed is not None:
                attempt.state = changed.state
                self._background.start(self._replies.send(changed))
        attempt.over = True

    async def _store_ending(
        self, record: TaskRecord, attempt: Attempt, elapsed: float, ending: Ending
    ) -> TaskRecord | None:
        result = result_of(
            record.task_id,
            self._scope.agent_id,
            record.peer,
            ending,
            artifacts=attempt.artifacts,
            elapsed_ms=round(elapsed * 1000, 3),
            seq=attempt.end_seq,
            attempt=attempt.number if attempt.begun else None,
        )
        topics = self._replies.topics(record.task_id, record.peer, record.reply_to)
        limit = record.task.get("max_result")
        state, result = deliverable(self._scope.connection, topics, ending.state, result, limit)
        if state is not ending.state:
            message = result["error"]["message"]
            logger.warning("the requester gets an error in place of the result of task %s: %s", record.task_id, message)
        reached("finished.before-commit")
        what = f"the result of task {record.task_id:.80}"
        store = partial(self._store, record.key, ACTIVE, attempt.number)
        try:
            changed = await self._scope.retry.until_stored(partial(store, state, result), what)
        except StoreError as error:
            if not error.permanent:
                raise
            logger.error(
                "the result of task %.80s cannot be stored, so its requester gets an error in its place; return less, "
                "or keep the value in another place and return its address: %s",
                record.task_id,
                error,
            )
            state, result = not_stored(result, ending.state, error)
            changed = await self._scope.retry.until_stored(partial(store, state, result), what)
        reached("finished.after-commit")
        return changed

    def _note_unstorable(self, key: TaskKey, error: StoreError) -> None:
        self._unstorable.add(key)
        logger.error(
            "the handler of task %.80s has ended, but no end of the task can be stored. The task is not run again "
            "before the next start of agent %s, and its requester gets no result until then. Repair the store: %s",
            key.task_id,
            self._scope.agent_id,
            error,
        )

    async def _store(
        self, key: TaskKey, states: Collection[TaskState], attempt: int | None, state: TaskState, result: dict[str, Any]
    ) -> TaskRecord | None:
        """Store the end of a task that is in one of these states, and at this attempt if one is given.

        Returns:
            The new record. None when the task was canceled, or when another attempt has begun.
        """
        store = self._scope.store
        changed = await store.change(key, states, expected_attempt=attempt, state=state, result=result)
        if changed is None:
            # An earlier try may have stored this result, although the store's answer was lost.
            stored = await store.get(key)
            if stored is not None and attempt in (None, stored.attempt) and stored.result == result:
                return stored
        return changed

    async def expire(self, record: TaskRecord) -> bool:
        """End a task that has expired and whose handler has not begun.

        Args:
            record: The task's record, as it was when the task began to wait.

        Returns:
            Whether this call has ended the task. If not, a handler has begun, or the task is over.

        Raises:
            StoreError: The result could not be stored, and the agent stops.
        """
        ending = expired(Task.model_validate(record.task))
        result = result_of(record.task_id, self._scope.agent_id, record.peer, ending)
        store = partial(self._store, record.key, (TaskState.SUBMITTED,), None, ending.state, result)
        changed = await self._scope.retry.until_stored(store, f"the result of task {record.task_id:.80}")
        if changed is not None:
            self._background.start(self._replies.send(changed))
        return changed is not None
