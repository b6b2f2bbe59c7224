"""What is wrong with the arguments of a call, in the words that the core uses."""

from __future__ import annotations

from mqtt_agent.wire.faults import Fault, invalid_arguments, pydantic_fault

__all__ = ["Fault", "invalid_arguments", "pydantic_fault"]
