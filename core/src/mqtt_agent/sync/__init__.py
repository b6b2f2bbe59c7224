"""The agents, tool servers and tool clients without asyncio, for scripts, threads and notebooks: every method blocks.

>>> from mqtt_agent.sync import ToolClient
>>> with ToolClient("agent-a") as client:  # doctest: +SKIP
...     print(client.call("forecast", {"city": "Oslo"}))

Each method takes the same arguments, returns the same values and raises the same errors as the async method of the
same name in :mod:`mqtt_agent`. The methods also work while an event loop runs in the calling thread. They block that
loop, as any other blocking call does.
"""

from mqtt_agent.agents.executing.context import SyncTaskContext as TaskContext
from mqtt_agent.sync.agents import Agent, TaskHandle
from mqtt_agent.sync.tool_client import CallHandle, Content, ToolClient
from mqtt_agent.sync.tool_server import ToolServer
from mqtt_agent.tools.serving.context import SyncToolContext as ToolContext

__all__ = ["Agent", "CallHandle", "Content", "TaskContext", "TaskHandle", "ToolClient", "ToolContext", "ToolServer"]
