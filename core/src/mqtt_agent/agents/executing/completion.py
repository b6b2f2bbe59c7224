"""Stores the result of a handler. The module ``replies`` sends the stored result."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from mqtt_agent.agents.crashpoints import reached
from mqtt_agent.agents.executing.attempt import Attempt
from mqtt_agent.agents.executing.replies import Replies
from mqtt_agent.agents.outcome import Ending, deliverable, expired, result_of
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import ACTIVE, TaskKey, TaskRecord
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.errors import TaskCanceled
from mqtt_agent.wire import Task, TaskState

__all__ = ["Completion"]

logger: logging.Logger = logging.getLogger(__name__)


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

    async def finish(self, record: TaskRecord, attempt: Attempt, elapsed: float, ending: Ending) -> None:
        """End a task. Nothing happens when the attempt is over.

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
            await attempt.reserve()
        except TaskCanceled:
            return
        result = result_of(
            record.task_id,
            self._scope.agent_id,
            record.peer,
            ending,
            artifacts=attempt.artifacts,
            elapsed_ms=round(elapsed * 1000, 3),
            seq=attempt.seq + 1 if attempt.listening else None,
        )
        topics = self._replies.topics(record.task_id, record.peer, record.reply_to)
        limit = record.task.get("max_result")
        state, result = deliverable(self._scope.connection, topics, ending.state, result, limit)
        if state is not ending.state:
            message = result["error"]["message"]
            logger.warning("the requester gets an error in place of the result of task %s: %s", record.task_id, message)
        reached("finished.before-commit")
        store = partial(self._store, record.key, attempt.number, state, result)
        changed = await self._scope.retry.until_stored(store, f"the result of task {record.task_id:.80}")
        reached("finished.after-commit")
        if changed is not None:
            attempt.state = state
            await attempt.send_status()
            self._background.start(self._replies.send(changed))
        attempt.over = True

    async def _store(self, key: TaskKey, attempt: int, state: TaskState, result: dict[str, Any]) -> TaskRecord | None:
        """Store a result. None when the task was canceled, or when another attempt has begun."""
        store = self._scope.store
        changed = await store.change(key, ACTIVE, expected_attempt=attempt, state=state, result=result)
        if changed is None:
            # An earlier try may have stored this result, although the store's answer was lost.
            stored = await store.get(key)
            if stored is not None and stored.attempt == attempt and stored.result == result:
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

        async def store() -> TaskRecord | None:
            changed = await self._scope.store.change(
                record.key, (TaskState.SUBMITTED,), state=ending.state, result=result
            )
            if changed is None:
                stored = await self._scope.store.get(record.key)
                if stored is not None and stored.result == result:
                    return stored
            return changed

        changed = await self._scope.retry.until_stored(store, f"the result of task {record.task_id:.80}")
        if changed is not None:
            self._background.start(self._replies.send(changed))
        return changed is not None
