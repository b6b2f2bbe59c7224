"""Stores the result of a handler. The module ``replies`` sends the stored result."""

from __future__ import annotations

import logging
from functools import partial

from mqtt_agent.agents.crashpoints import reached
from mqtt_agent.agents.executing.attempt import Attempt
from mqtt_agent.agents.executing.replies import Replies
from mqtt_agent.agents.outcome import Ending, deliverable, result_of
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import ACTIVE, TaskRecord
from mqtt_agent.agents.store.retrying import StoreRetry
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.errors import TaskCanceled

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
        self._retry = StoreRetry()

    def begin(self) -> None:
        """From now on, try to store each result until the store accepts it."""
        self._retry.begin()

    def end(self) -> None:
        """From now on, give up when the store fails: the agent's next start runs the task again."""
        self._retry.end()

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
        what = f"the result of task {record.task_id}"
        try:
            await self._retry.until_stored(attempt.reserve, what)
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
        state, result = deliverable(self._scope.connection, topics, ending.state, result)
        if state is not ending.state:
            message = result["error"]["message"]
            logger.warning("the requester gets an error in place of the result of task %s: %s", record.task_id, message)
        reached("finished.before-commit")
        change = partial(
            self._scope.store.change, record.key, ACTIVE, expected_attempt=attempt.number, state=state, result=result
        )
        changed = await self._retry.until_stored(change, what)
        reached("finished.after-commit")
        if changed is not None:
            attempt.state = state
            await attempt.send_status()
            self._background.start(self._replies.send(changed))
        attempt.over = True
