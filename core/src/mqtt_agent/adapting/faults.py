"""What is wrong with the arguments of a call, in the words that the core uses."""

from __future__ import annotations

from collections.abc import Iterable

from mqtt_agent.errors import InvalidArguments
from mqtt_agent.wire.faults import Fault, pydantic_fault

__all__ = ["Fault", "invalid_arguments", "pydantic_fault"]

_MAX_FAULTS = 20


def invalid_arguments(tool: str, faults: Iterable[Fault], text: str | None = None) -> InvalidArguments:
    """The error for arguments that a framework has refused.

    Args:
        tool: The tool's name.
        faults: What is wrong; at most 20 faults are told.
        text: What to tell in place of the faults.
    """
    told = [Fault(each.path, each.message[:500]) for each in faults][:_MAX_FAULTS]
    data = [{"path": each.pointer, "message": each.message} for each in told]
    return InvalidArguments("; ".join(each.told() for each in told) if text is None else text, tool=tool, data=data)
