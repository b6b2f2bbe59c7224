"""Background work, waits, and the pauses before another attempt, for adapters; see :mod:`mqtt_agent.aio`."""

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.backoff import Backoff
from mqtt_agent.aio.waiting import within

__all__ = ["BackgroundTasks", "Backoff", "within"]
