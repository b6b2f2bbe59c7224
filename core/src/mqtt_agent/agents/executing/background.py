"""Work of an executor that nothing else awaits: running handlers, and results that are on their way."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from mqtt_agent.agents.scope import Scope
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.logs import logger_of

__all__ = ["background_of"]

logger: logging.Logger = logger_of(__name__)


def background_of(scope: Scope) -> BackgroundTasks:
    """Make the background tasks of an executor. The log has a line for each task that fails.

    Args:
        scope: The agent's shared values.
    """

    def on_failure(task: asyncio.Task[Any], error: BaseException) -> None:
        if not scope.retry.gave_up(error):  # else StoreRetry has logged this once for all tasks
            logger.error("agent %s could not continue its work on a task", scope.agent_id, exc_info=error)

    return BackgroundTasks(on_failure)
