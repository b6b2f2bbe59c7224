"""The end of a received task: its result is stored, then sent."""

from __future__ import annotations

from functools import partial
from typing import Any

from mqtt_agent.agents.crashpoints import reached
from mqtt_agent.agents.executing.attempt import Attempt
from mqtt_agent.agents.executing.replies import Answers
from mqtt_agent.agents.outcome import deliverable, result_of
from mqtt_agent.agents.store import ACTIVE, TaskRecord, TaskStore
from mqtt_agent.agents.store.patience import Patience
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.errors import TaskCanceled
from mqtt_agent.transport import Connection
from mqtt_agent.wire import TaskFault, TaskState

__all__ = ["Completion"]


class Completion:
    """Stores the results of handlers, each once, and has them sent.

    Args:
        connection: Tells what is too large for the broker.
        name: The agent's id.
        store: Where the results are kept.
        answers: Takes them to the requesters.
        background: Where they are sent.
    """

    def __init__(
        self, connection: Connection, name: str, store: TaskStore, answers: Answers, background: BackgroundTasks
    ) -> None:
        self._connection = connection
        self._name = name
        self._store = store
        self._answers = answers
        self._background = background
        self._patience = Patience()

    def begin(self) -> None:
        """Store until it succeeds from now on."""
        self._patience.begin()

    def end(self) -> None:
        """Let the next failure of the store be the last: the next start runs the task again."""
        self._patience.end()

    async def finish(
        self,
        record: TaskRecord,
        attempt: Attempt,
        elapsed: float,
        state: TaskState,
        *,
        value: Any = None,
        fault: TaskFault | None = None,
    ) -> None:
        """End a task, unless the attempt is over already.

        Args:
            record: As it was when the attempt began.
            attempt: The handler's hold on it.
            elapsed: Seconds that the handler took.
            state: What to end it in.
            value: The result.
            fault: Why there is none.

        Raises:
            StoreError: It could not be stored, and the agent stops.
        """
        if attempt.over:
            return
        what = f"the result of task {record.task_id}"
        try:
            await self._patience.stored(attempt.reserve, what)
        except TaskCanceled:
            return  # another attempt goes on with it, or it was canceled
        result = result_of(
            record.task_id,
            self._name,
            record.peer,
            state,
            fault,
            value=value,
            artifacts=attempt.artifacts,
            elapsed_ms=round(elapsed * 1000, 3),
            seq=attempt.seq + 1 if attempt.listening else None,
        )
        topics = self._answers.topics(record.task_id, record.peer, record.reply_to)
        state, result = deliverable(self._connection, topics, state, result)
        reached("finished.before-commit")
        store = partial(
            self._store.change, record.key, ACTIVE, expected_attempt=attempt.number, state=state, result=result
        )
        changed = await self._patience.stored(store, what)
        reached("finished.after-commit")
        if changed is not None:
            attempt.state = state
            await attempt.tell_status()
            self._background.start(self._answers.send(changed))
        attempt.over = True
