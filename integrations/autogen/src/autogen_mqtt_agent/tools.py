"""One remote tool as an AutoGen tool, for agents that take ``tools=`` instead of a workbench."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from autogen_core import CancellationToken
from autogen_core.tools import BaseTool, ToolSchema, Workbench
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

__all__ = ["MQTTTool"]


class AnyArguments(BaseModel):
    """Any arguments: the tool server checks them against the tool's own schema."""

    model_config = ConfigDict(extra="allow")


class MQTTTool(BaseTool[AnyArguments, Any]):
    """One remote tool. :meth:`MQTTWorkbench.get_tools` makes it.

    Attributes:
        workbench: Makes the calls.
    """

    def __init__(self, workbench: Workbench, schema: ToolSchema) -> None:
        super().__init__(AnyArguments, str, schema["name"], schema.get("description", ""))
        self.workbench = workbench
        self._schema = schema

    @property
    @override
    def schema(self) -> ToolSchema:
        """The name, the description and the parameters for the language model, as on the tool's card."""
        return self._schema

    @override
    async def run_json(
        self, args: Mapping[str, Any], cancellation_token: CancellationToken, call_id: str | None = None
    ) -> Any:
        """Call the tool, and return its result as text.

        Args:
            args: The arguments by name.
            cancellation_token: Cancels the call at the server.
            call_id: Not used: a call over MQTT has an id of its own.

        Raises:
            RuntimeError: The call failed, or was canceled. AutoGen's agents do not survive a ``CancelledError``.
        """
        try:
            result = await self.workbench.call_tool(self.name, args, cancellation_token, call_id)
        except asyncio.CancelledError:
            raise RuntimeError(f"{self.name}: the call was canceled") from None
        if result.is_error:
            raise RuntimeError(result.to_text())
        return result.to_text()

    @override
    async def run(self, args: AnyArguments, cancellation_token: CancellationToken) -> str:
        """Call the tool with the arguments as a model instance; see :meth:`run_json`."""
        return await self.run_json(args.model_dump(), cancellation_token)
