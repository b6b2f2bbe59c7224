"""The loggers of the adapters."""

from __future__ import annotations

from mqtt_agent.logs import logger_of

__all__ = ["logger_of"]
