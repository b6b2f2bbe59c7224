"""The same endpoints for plain scripts, threads and notebooks: every method blocks instead of being awaited.

>>> from mqtt_agent.sync import ToolClient
>>> with ToolClient("agent-a") as client:  # doctest: +SKIP
...     print(client.call("forecast", {"city": "Oslo"}))

The methods take what their namesakes in :mod:`mqtt_agent` take, return what those return, and raise what those raise.
They work inside a running event loop as well, which they block as any other blocking call does.
"""

from mqtt_agent.agents.executing.context import SyncTaskContext as TaskContext
from mqtt_agent.sync.agents import Agent, TaskHandle
from mqtt_agent.sync.tools import CallHandle, ToolClient, ToolServer
from mqtt_agent.tools.serving.context import SyncToolContext as ToolContext

__all__ = ["Agent", "CallHandle", "TaskContext", "TaskHandle", "ToolClient", "ToolContext", "ToolServer"]
