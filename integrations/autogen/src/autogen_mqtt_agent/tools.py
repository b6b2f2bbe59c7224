"""Remote tools as a plain list, for agents that take ``tools=`` instead of a workbench."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeVar

from autogen_core import CancellationToken
from autogen_core.tools import BaseTool, ToolSchema
from pydantic import BaseModel, ConfigDict
from typing_extensions import ParamSpec, override

from autogen_mqtt_agent.workbench import MQTTWorkbench

__all__ = ["MQTTTool", "mqtt_tools"]

P = ParamSpec("P")
R = TypeVar("R")


class AnyArguments(BaseModel):
    """Whatever arguments there are: the tool server checks them against the tool's own schema."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")


class MQTTTool(BaseTool[AnyArguments, Any]):
    """One remote tool. :func:`mqtt_tools` makes it.

    Attributes:
        workbench: What it calls through.
    """

    def __init__(self, workbench: MQTTWorkbench, schema: ToolSchema) -> None:
        super().__init__(AnyArguments, str, schema["name"], schema.get("description", ""))
        self.workbench = workbench
        self._told = schema

    @property
    @override
    def schema(self) -> ToolSchema:
        """What the language model is told, as on the tool's card."""
        return self._told

    @override
    async def run_json(
        self, args: Mapping[str, Any], cancellation_token: CancellationToken, call_id: str | None = None
    ) -> Any:
        """Call it.

        Raises:
            RuntimeError: It failed, or was canceled: never ``CancelledError``, which AutoGen's agents do not survive.
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
        """The same, with a model instance."""
        return await self.run_json(args.model_dump(), cancellation_token)


def _with_the_arguments_of(
    make: Callable[P, MQTTWorkbench],
) -> Callable[[Callable[[MQTTWorkbench], Awaitable[R]]], Callable[P, Awaitable[R]]]:
    def decorate(function: Callable[[MQTTWorkbench], Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @functools.wraps(function)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            return await function(make(*args, **kwargs))

        wrapper.__signature__ = inspect.signature(make)  # pyright: ignore[reportAttributeAccessIssue]
        return wrapper

    return decorate


@_with_the_arguments_of(MQTTWorkbench)
async def mqtt_tools(workbench: MQTTWorkbench) -> list[MQTTTool]:
    """Remote tools as a list that stays as it is, for agents that take no workbench.

    Example:
        >>> agent = AssistantAgent("assistant", model_client, tools=await mqtt_tools())  # doctest: +SKIP

    It takes the arguments of :class:`MQTTWorkbench`. The tools share one connection; close it by
    ``await tools[0].workbench.stop()``, or leave that to the end of the program.

    Raises:
        TransportError: The broker is not there, or refuses.
    """
    return [MQTTTool(workbench, schema) for schema in await workbench.list_tools()]
