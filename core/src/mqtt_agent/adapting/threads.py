"""Runs blocking code of a framework in threads of its own, which user code cannot use up."""

from __future__ import annotations

from mqtt_agent.aio.handlers import run_for_handler, run_in_thread

__all__ = ["run_for_handler", "run_in_thread"]
