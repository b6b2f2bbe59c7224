"""Remote tools, remote crew members and served crews over MQTT 5, for CrewAI.

Importing this package does not import CrewAI, because that takes many seconds. The first use of a name imports CrewAI.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from crewai_mqtt_agent.version import __version__

if TYPE_CHECKING:
    from crewai_mqtt_agent.events import (
        RemoteTaskArtifactEvent,
        RemoteTaskProgressEvent,
        RemoteTaskStatusEvent,
        RemoteTaskStreamEvent,
        RemoteToolPartialEvent,
    )
    from crewai_mqtt_agent.hosting import (
        aserve_agent,
        aserve_crew,
        aserve_flow,
        host_agent,
        host_crew,
        host_flow,
        serve_agent,
        serve_crew,
        serve_flow,
    )
    from crewai_mqtt_agent.member import MQTTAgent
    from crewai_mqtt_agent.tool import MQTTTool
    from crewai_mqtt_agent.toolkit import MQTTToolkit

__all__ = [
    "MQTTAgent",
    "MQTTTool",
    "MQTTToolkit",
    "RemoteTaskArtifactEvent",
    "RemoteTaskProgressEvent",
    "RemoteTaskStatusEvent",
    "RemoteTaskStreamEvent",
    "RemoteToolPartialEvent",
    "__version__",
    "aserve_agent",
    "aserve_crew",
    "aserve_flow",
    "host_agent",
    "host_crew",
    "host_flow",
    "serve_agent",
    "serve_crew",
    "serve_flow",
]

_MODULES = {"MQTTAgent": "member", "MQTTTool": "tool", "MQTTToolkit": "toolkit"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name) or ("events" if name.endswith("Event") else "hosting")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
