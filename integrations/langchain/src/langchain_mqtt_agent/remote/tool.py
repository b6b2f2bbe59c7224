"""A peer agent as a tool.

Imported when the first one is made, for LangGraph takes a while to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import ToolException
from mqtt_agent.errors import TaskError

from langchain_mqtt_agent._langgraph import current_runtime
from langchain_mqtt_agent.driver import Script, adrive, drive
from langchain_mqtt_agent.remote.conversation import Outcome, converse
from langchain_mqtt_agent.remote.payload import Work, as_text
from langchain_mqtt_agent.telling import Telling
from langchain_mqtt_agent.tool import HandleToolError, RemoteTool, config_of

try:
    from langgraph.prebuilt import ToolRuntime
except ImportError:  # LangGraph is optional; without it nobody injects a runtime
    ToolRuntime = Any  # type: ignore[assignment,misc]

if TYPE_CHECKING:
    from langchain_mqtt_agent.remote.agent import MQTTRemoteAgent

__all__ = ["MQTTPeerTool", "make_peer_tool"]

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "description": "What the agent is to do, with everything that it needs to know"}
    },
    "required": ["prompt"],
}


class MQTTPeerTool(RemoteTool):
    """A tool that gives a task to a peer agent. :meth:`MQTTRemoteAgent.as_tool` makes it.

    In a tool message, the artifact is ``{"structured_content": ..., "peer": ..., "task_id": ..., "attempt": ...,
    "elapsed_ms": ..., "artifacts": ...}``.
    """


def make_peer_tool(
    remote: MQTTRemoteAgent, name: str, description: str, handle_tool_error: HandleToolError, metadata: dict[str, Any]
) -> MQTTPeerTool:
    """A tool for a peer."""
    asking = _Asking(remote)
    return MQTTPeerTool(
        name=name,
        description=description,
        args_schema=_SCHEMA,
        func=asking.invoke,
        coroutine=asking.ainvoke,
        handle_tool_error=handle_tool_error,
        metadata={"mqtt": metadata},
    )


class _Asking:
    def __init__(self, remote: MQTTRemoteAgent) -> None:
        self._remote = remote

    def invoke(
        self,
        arguments: dict[str, Any],
        tool_call_id: str | None = None,
        mqtt_runtime: ToolRuntime = None,  # pyright: ignore[reportInvalidTypeForm, reportArgumentType]
    ) -> tuple[Any, dict[str, Any]]:
        config = config_of(mqtt_runtime)
        script = self._script(arguments, config, tool_call_id)
        try:
            return _answer(drive(script, self._remote.agent, config, Telling(config, mqtt_runtime)))
        except TaskError as error:
            raise ToolException(str(error)) from error

    async def ainvoke(
        self,
        arguments: dict[str, Any],
        tool_call_id: str | None = None,
        mqtt_runtime: ToolRuntime = None,  # pyright: ignore[reportInvalidTypeForm, reportArgumentType]
    ) -> tuple[Any, dict[str, Any]]:
        config = config_of(mqtt_runtime)
        script = self._script(arguments, config, tool_call_id)
        try:
            return _answer(await adrive(script, self._remote.agent, config, Telling(config, mqtt_runtime)))
        except TaskError as error:
            raise ToolException(str(error)) from error

    def _script(self, arguments: dict[str, Any], config: RunnableConfig, tool_call_id: str | None) -> Script[Outcome]:
        prompt = arguments.get("prompt")
        if not isinstance(prompt, str):
            raise ToolException(f"prompt must be a text, not {type(prompt).__name__}")
        place = self._remote.place(config, tool_call_id)
        wanted = self._remote.delegation(
            Work(prompt=prompt), place, current_runtime(), tool_call_id, require_online=True
        )
        return converse(wanted, config)


def _answer(outcome: Outcome) -> tuple[Any, dict[str, Any]]:
    return as_text(outcome.value), {"structured_content": outcome.value, **outcome.about}
