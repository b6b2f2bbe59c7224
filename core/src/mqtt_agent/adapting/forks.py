"""Tells the adapters that the process was forked; see :mod:`mqtt_agent.aio.forks`."""

from __future__ import annotations

from mqtt_agent.aio.forks import in_child

__all__ = ["in_child"]
