"""The functions that LangChain calls for a remote tool, and into which LangGraph injects its runtime.

This module is imported when the first tool is made, because LangGraph takes a while to import.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from mqtt_agent.adapting.apart import block_apart
from mqtt_agent.adapting.callers import AwaitingCaller, BlockingCaller, Remote, block

from langchain_mqtt_agent.run import Artifact, Run, Work

try:
    from langgraph.prebuilt import ToolRuntime
except ImportError:  # LangGraph is optional; without LangGraph nobody injects a runtime
    ToolRuntime = Any  # type: ignore[assignment,misc]

__all__ = ["Functions", "renamed"]


class Functions:
    """A blocking and an async function for the same work.

    Args:
        remote: Where the work is done.
        work: Does the work for one call of the tool.
        awaits: Whether the work may await anything. Code that blocks then runs the work on an event loop of its own.
    """

    def __init__(self, remote: Remote, work: Work, awaits: bool = False) -> None:
        self._remote = remote
        self._work = work
        self._awaits = awaits

    def __deepcopy__(self, memo: dict[int, Any]) -> Functions:
        """A copy of a tool shares the connection."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A tool has a connection, and cannot be pickled."""
        raise TypeError("a remote tool cannot be pickled: pickle its toolkit or its MQTTRemoteAgent instead")

    def invoke(
        self,
        arguments: dict[str, Any],
        tool_call_id: str | None = None,
        mqtt_runtime: ToolRuntime = None,  # pyright: ignore[reportInvalidTypeForm, reportArgumentType]
    ) -> tuple[Any, Artifact | None]:
        """Do the work, and block for the content and the artifact of the tool message."""
        if self._awaits:
            return block_apart(lambda: self.ainvoke(arguments, tool_call_id, mqtt_runtime), "mqtt-agent-interceptors")
        run = Run(BlockingCaller(self._remote), _config_of(mqtt_runtime), mqtt_runtime, tool_call_id)
        return block(self._work(run, arguments))

    async def ainvoke(
        self,
        arguments: dict[str, Any],
        tool_call_id: str | None = None,
        mqtt_runtime: ToolRuntime = None,  # pyright: ignore[reportInvalidTypeForm, reportArgumentType]
    ) -> tuple[Any, Artifact | None]:
        """Do the work, and await the content and the artifact of the tool message."""
        run = Run(AwaitingCaller(self._remote), _config_of(mqtt_runtime), mqtt_runtime, tool_call_id)
        return await self._work(run, arguments)


def renamed(function: Callable[..., Any], argument: str, name: str) -> Callable[..., Any]:
    """The same function, into whose argument LangChain and LangGraph inject a value under another name.

    Args:
        function: The function. The caller still passes the argument under its own name.
        argument: The argument's own name.
        name: The other name.
    """
    if name == argument:
        return function

    def call(**given: Any) -> Any:
        return function(**given)

    annotation = inspect.signature(function, eval_str=True).parameters[argument].annotation
    call.__annotations__ = {name: annotation}
    parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    call.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    return call


def _config_of(runtime: Any) -> RunnableConfig:
    """The configuration of the tool's run, as LangChain or LangGraph passes it on."""
    config = ensure_config()
    if not config.get("callbacks") and getattr(runtime, "config", None):
        return ensure_config(runtime.config)  # Python 3.10 loses the context of awaited tools
    return config
