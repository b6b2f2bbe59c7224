"""What a call or a task tells about the caller's run: only the keys of its configuration that were chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from mqtt_agent.wire import to_json
from pydantic import BaseModel

__all__ = ["context_of"]

_TAGS = "tags"
_OWN_TAGS = ("seq:", "graph:", "map:", "langsmith:")
"""How the tags begin that LangChain and LangGraph add themselves."""


def context_of(config: RunnableConfig, runtime: Any, keys: Sequence[str]) -> dict[str, Any]:
    """Take the chosen keys from a configuration.

    Args:
        config: The configuration of the run. A key is searched in ``configurable`` first, and in ``metadata`` last.
        runtime: LangGraph's runtime, or None. Its ``context`` is searched between the two.
        keys: The chosen keys. The key ``tags`` takes the tags of the run.

    Returns:
        The values by key, without the keys that have no value.

    Raises:
        WireError: JSON cannot carry a value.
    """
    found: dict[str, Any] = {}
    places = (
        config.get("configurable") or {},
        _fields_of(getattr(runtime, "context", None)),
        config.get("metadata") or {},
    )
    for key in keys:
        values = [place[key] for place in places if place.get(key) is not None]
        if key == _TAGS and not values:
            values = [[tag for tag in config.get("tags") or () if not tag.startswith(_OWN_TAGS)]]
        if values and values[0] != []:
            found[key] = to_json(values[0], f"context.{key}")
    return found


def _fields_of(context: Any) -> Mapping[str, Any]:
    if isinstance(context, Mapping):
        return context
    if isinstance(context, BaseModel):
        return dict(context)
    if dataclasses.is_dataclass(context) and not isinstance(context, type):
        return {each.name: getattr(context, each.name) for each in dataclasses.fields(context)}
    return {}
