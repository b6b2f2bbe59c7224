"""The call behind a LangChain tool.

Imported when the first tool is made, for LangGraph takes a while to import: it wants to see a type of its own here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.tools import ToolException
from mqtt_agent import CallHandle, ToolCard, ToolClient
from mqtt_agent.errors import CallCanceled, CallError
from mqtt_agent.sync import ToolClient as SyncToolClient

from langchain_mqtt_agent._langgraph import current_runtime
from langchain_mqtt_agent.content import content_of
from langchain_mqtt_agent.driver import OnLoop, Script, Tell, adrive, drive
from langchain_mqtt_agent.telling import Telling, heartbeat_of
from langchain_mqtt_agent.tool import config_of

if TYPE_CHECKING:
    from langgraph.prebuilt import ToolRuntime as _ToolRuntime

    ToolRuntime: TypeAlias = _ToolRuntime[Any, Any]
else:
    try:
        from langgraph.prebuilt import ToolRuntime
    except ImportError:  # LangGraph is optional; without it nobody injects a runtime
        ToolRuntime = Any

__all__ = ["Calls"]

_BEAT = 0.25
_OVER: Any = object()


class Calls:
    """The functions of a LangChain tool.

    Args:
        client: Where to call it.
        card: What it is.
        timeout: Seconds for each call; None for no limit.
    """

    def __init__(self, client: SyncToolClient, card: ToolCard, timeout: float | None) -> None:
        self._client = client
        self._tool = card.tool
        self._timeout = timeout

    def invoke(
        self,
        arguments: dict[str, Any],
        tool_call_id: str | None = None,
        mqtt_runtime: ToolRuntime = None,  # pyright: ignore[reportArgumentType]
    ) -> tuple[Any, dict[str, Any]]:
        """Call it, and block for the content and the artifact of the tool message."""
        config = config_of(mqtt_runtime)
        telling = Telling(config, mqtt_runtime)
        try:
            return drive(self._script(arguments, tool_call_id), self._client, config, telling)
        except CallError as error:
            raise _as_tool_exception(error) from error

    async def ainvoke(
        self,
        arguments: dict[str, Any],
        tool_call_id: str | None = None,
        mqtt_runtime: ToolRuntime = None,  # pyright: ignore[reportArgumentType]
    ) -> tuple[Any, dict[str, Any]]:
        """The same as :meth:`invoke`, awaited on any event loop."""
        config = config_of(mqtt_runtime)
        telling = Telling(config, mqtt_runtime)
        try:
            return await adrive(self._script(arguments, tool_call_id), self._client, config, telling)
        except CallError as error:
            raise _as_tool_exception(error) from error

    def _script(self, arguments: dict[str, Any], tool_call_id: str | None) -> Script[tuple[Any, dict[str, Any]]]:
        heartbeat = heartbeat_of(current_runtime())
        call = _Call(self._tool, arguments, self._timeout, None if heartbeat is None else _BEAT)
        try:
            while True:
                partials = yield OnLoop(call.advance)
                if heartbeat is not None:
                    heartbeat()
                for partial in partials:
                    if partial is _OVER:
                        return call.outcome()
                    ids = {"tool": self._tool, "tool_call_id": tool_call_id, "call_id": call.call_id}
                    yield Tell({**ids, "partial": partial})
        except BaseException:
            # Also past its timeout: no model attaches to a call again.
            yield OnLoop(call.cancel)
            raise


class _Call:
    """A call on the connection's loop."""

    def __init__(self, tool: str, arguments: dict[str, Any], timeout: float | None, pause: float | None) -> None:
        self._tool = tool
        self._arguments = arguments
        self._timeout = timeout
        self._pause = pause
        self._handle: CallHandle | None = None
        self._given_up = False

    @property
    def call_id(self) -> str:
        assert self._handle is not None
        return self._handle.call_id

    async def advance(self, client: ToolClient) -> list[Any]:
        """What has come since; nothing when nothing came for ``pause`` seconds. Raises what the call fails with."""
        handle = self._handle
        if handle is None:
            # A call that is given up meanwhile is not sent, or canceled: `wait_for` may swallow the cancellation.
            handle = self._handle = await client.submit(self._tool, self._arguments, timeout=self._timeout)
            if self._given_up:
                await self.cancel(client)
        news = await handle.news(self._pause)
        if news or not handle.over:
            return news
        await handle.result()
        return [_OVER]

    def outcome(self) -> tuple[Any, dict[str, Any]]:
        """The content and the artifact of the tool message."""
        handle = self._handle
        assert handle is not None
        response = handle.response
        result = response.result if response is not None else None
        artifact = {
            "structured_content": result,
            "call_id": handle.call_id,
            "server": handle.server,
            "attempt": handle.attempt,
            "elapsed_ms": handle.elapsed_ms,
        }
        return content_of(result, response.content if response is not None else None), artifact

    async def cancel(self, client: ToolClient) -> None:
        """Stop it, if it runs."""
        self._given_up = True
        if self._handle is not None:
            await self._handle.cancel("the caller gave up")


def _as_tool_exception(error: CallError) -> BaseException:
    # The language model can do something about a failed call: mend its arguments, or try another way. It cannot do
    # anything about a connection that was closed.
    return error if isinstance(error, CallCanceled) else ToolException(str(error))
