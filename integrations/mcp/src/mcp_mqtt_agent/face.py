"""Shows the tools of a namespace to MCP clients, as one MCP server that speaks both protocols."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Collection
from typing import Any

import mcp_types as types
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from mqtt_agent import Agent
from mqtt_agent.adapting.lacking import AGENT
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.agents import TaskHandle
from mqtt_agent.errors import CallError, MQTTAgentError, TaskError
from mqtt_agent.tools import CallHandle, OnQuestion, ToolClient, ToolList
from mqtt_agent.wire import ToolCard
from pydantic import ValidationError

from mcp_mqtt_agent.agent_results import failed
from mcp_mqtt_agent.agent_task import AgentTask
from mcp_mqtt_agent.agent_tools import AgentTools
from mcp_mqtt_agent.call_results import complete, failed_call, tool_of
from mcp_mqtt_agent.call_task import CallTask
from mcp_mqtt_agent.context import Context
from mcp_mqtt_agent.finishing import finish_call, finish_task, progress_to
from mcp_mqtt_agent.hiding import hidden
from mcp_mqtt_agent.incomplete import INCOMPLETE, Lacks, lacking
from mcp_mqtt_agent.logs import Logs, add_levels, level_of
from mcp_mqtt_agent.news import News
from mcp_mqtt_agent.open_calls import OpenCall, OpenCalls, asks_at_once, may_ask
from mcp_mqtt_agent.shelf import Shelf
from mcp_mqtt_agent.showing import shown_tools
from mcp_mqtt_agent.subscribing import Subscribing
from mcp_mqtt_agent.task_extension import TaskExtension, is_modern, needs_tasks, task_capability, wants_tasks
from mcp_mqtt_agent.version import __version__

__all__ = ["Face"]

logger: logging.Logger = logger_of(__name__)

_RESERVED = "io.modelcontextprotocol/"
_NEEDS_TASK = "this tool can only be called as a task"


class _Server(Server[dict[str, Any]]):
    """A server that says to clients of both protocols that its lists may change, and that calls may become tasks."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        changes = notification_options or NotificationOptions(True, True, True)
        options = super().create_initialization_options(changes, experimental_capabilities, extensions)
        options.capabilities.tasks = task_capability()  # for clients of 2025; those of 2026 ask for the extension
        return options


class Face:
    """The tools of a namespace as an MCP server.

    Example:
        >>> async with ToolClient("claude") as client:  # doctest: +SKIP
        ...     face = Face(client)
        ...     async with face.live(), stdio_server() as streams:
        ...         await face.server.run(*streams, face.server.create_initialization_options())

    Args:
        client: A started client, which finds and calls the tools. A started agent also gives tasks to the other agents:
            each of them is shown as a tool.
        timeout: Seconds that a call or a task may take; None means no limit.
        servers: The names of the only tool servers whose tools, resources and prompts are shown; None means all.

    Attributes:
        server: The server of the MCP SDK.
    """

    def __init__(
        self, client: ToolClient | Agent, *, timeout: float | None = None, servers: Collection[str] | None = None
    ) -> None:
        self._client = client.tool_client if isinstance(client, Agent) else client
        self._agents = AgentTools(client, timeout) if isinstance(client, Agent) else None
        self._timeout = timeout
        self._news = News()
        self._open = OpenCalls()
        self._named: tuple[Any, dict[str, ToolCard]] = ((), {})
        self._lacks = Lacks(servers)
        shelf: Any = Shelf(self._client, self._lacks)  # its results are those of the servers, as they arrived
        self._tasks = TaskExtension(self._agents, lambda task_id: self._subscribing.on_task(task_id))
        self._subscribing = Subscribing(self._news, shelf, self._tasks)
        self.server: Server[dict[str, Any]] = _Server(
            "mqtt-agent",
            version=__version__,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=shelf.list_resources,
            on_list_resource_templates=shelf.list_templates,
            on_read_resource=shelf.read_resource,
            on_list_prompts=shelf.list_prompts,
            on_get_prompt=shelf.get_prompt,
            on_completion=shelf.complete,
            on_subscribe_resource=self._subscribing.subscribe,
            on_unsubscribe_resource=self._subscribing.unsubscribe,
            on_subscriptions_listen=self._subscribing.listen,
            get_tool_input_schema=self._schema_of,
        )
        self.server.middleware.append(self._note_session)
        add_levels(self.server)
        self._tasks.add_to(self.server)

    @contextlib.asynccontextmanager
    async def live(self) -> AsyncGenerator[None]:
        """Tell the MCP clients when tools, resources and prompts come, change or go, until the end of the block."""
        await self._client.start()  # that of an agent starts at its first use
        tools = [self._client.watch_tools(), *([] if self._agents is None else [self._agents.changes()])]
        self._subscribing.changes = changes = self._client.watch_changes()
        telling = [
            asyncio.create_task(self._news.tell(self._refresh, *tools), name="mcp-mqtt-agent tools"),
            asyncio.create_task(self._news.tell_changes(changes, self._lacks.servers), name="mcp-mqtt-agent changes"),
        ]
        try:
            yield
        finally:
            self._subscribing.close()
            await self._open.close()
            await self._tasks.close()
            self._subscribing.changes = None
            changes.close()
            for each in telling:
                each.cancel()
            await asyncio.gather(*telling, return_exceptions=True)
            if self._agents is not None:
                await self._agents.close()

    async def _note_session(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.method == "notifications/initialized":
            self._news.add(ctx.session)
        try:
            if ctx.method == "tools/call" and not is_modern(ctx) and (ctx.params or {}).get("task") is not None:
                return await self._call_as_task(ctx)  # the SDK would not let a task pass as the answer
            return await call_next(ctx)
        except (MCPError, ValidationError):  # the SDK tells the client of an invalid request
            raise
        except Exception as error:
            raise hidden(error, "the request cannot be answered") from error

    # Requests of MCP clients

    async def _refresh(self) -> None:
        self._by_name(await self._listed())

    async def _listed(self, *, online_only: bool = True, wait_lost: bool = False) -> ToolList:
        try:
            return await shown_tools(self._client, self._lacks, online_only=online_only, wait_lost=wait_lost)
        except MQTTAgentError as error:
            raise hidden(error, "the tools cannot be listed") from error

    def _by_name(self, cards: ToolList) -> dict[str, ToolCard]:
        """The tools by their names for the client. The names are made once for each change of the tools."""
        known, named = self._named
        if len(known) != len(cards) or any(was is not card for was, card in zip(known, cards, strict=True)):
            named = {model_name(card.tool): card for card in cards}
            self._named = cards, named
            self._lacks.show({card.server for card in cards})
        return named

    async def _card(self, name: str) -> ToolCard | None:
        """The card of a tool, which may be offline; None when there is no such tool.

        Raises:
            MCPError: Nobody knows now whether there is such a tool.
        """
        cards = await self._listed()
        card = self._by_name(cards).get(name)
        if card is not None or (self._agents is not None and name in await self._agents.named()):
            return card
        offline = await self._listed(online_only=False)
        card = next((each for each in offline if model_name(each.tool) == name), None)
        if card is None and cards.incomplete:
            raise lacking(f"Unknown tool: {name}; not all tools can be found now", cards.incomplete)
        return card

    def _schema_of(self, name: str) -> dict[str, Any] | None:
        """The schema that says which arguments a client of 2026 repeats in HTTP headers."""
        card = self._named[1].get(name)
        return None if card is None else card.input_schema

    async def _list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        tools, cards = list[types.Tool](), await self._listed(wait_lost=True)
        incomplete, agents = list(cards.incomplete), dict[str, str]()
        for name, card in self._by_name(cards).items():
            try:
                tools.append(tool_of(name, card))
            except ValidationError as error:  # one invalid card hides no other
                logger.warning("tool %s is left out, because MCP cannot show its card: %s", card.tool, error)
        if self._agents is not None:
            shown, peers = await self._agents.tools()
            tools += shown
            agents = peers.missing
            self._lacks.show((card.name for card in peers), AGENT)
            incomplete += [each for each in peers.incomplete if each not in incomplete]
        said = self._lacks.of("no tool is available now", tools, incomplete, cards.missing, agents)
        return types.ListToolsResult(tools=tools, _meta={INCOMPLETE: said} if said else None)

    async def _call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        call = self._reopened(params)
        if call is None:
            call = OpenCall(params.name)
            later = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and may_ask(ctx)
            on_question = call.on_question if later else asks_at_once(ctx)
            card = await self._card(params.name)
            try:
                if card is None:
                    handle = await self._delegate(params)
                    if wants_tasks(ctx):
                        return self._tasks.created(ctx, handle)
                    assert self._agents is not None
                    call.handle = self._agents.follow(handle, on_question, progress_to(ctx))
                elif is_modern(ctx) and card.task_support in ("optional", "required") and wants_tasks(ctx):
                    return await self._begin_task(ctx, card, params)
                elif card.task_support == "required":
                    raise needs_tasks() if is_modern(ctx) else MCPError(types.METHOD_NOT_FOUND, _NEEDS_TASK)
                else:
                    call.handle = await self._submit(ctx, card, params, call, on_question)
            except CallError as error:
                return complete(ctx, failed_call(error))
            except TaskError as error:
                return complete(ctx, failed(error))
            except MQTTAgentError as error:
                raise hidden(error, "the tool cannot be called") from error
        assert call.handle is not None
        return await self._follow(ctx, call, call.handle)

    async def _call_as_task(self, ctx: Context) -> dict[str, Any]:
        """Answer a call of a client of 2025 that wants a task."""
        params = types.CallToolRequestParams.model_validate(ctx.params, by_name=False)
        card = await self._card(params.name)
        try:
            if card is None:
                return self._tasks.created(ctx, await self._delegate(params))
            if card.task_support not in ("optional", "required"):
                raise MCPError(types.METHOD_NOT_FOUND, f"the tool {params.name} does not support tasks")
            return await self._begin_task(ctx, card, params)
        except (CallError, TaskError) as error:
            raise MCPError(types.INTERNAL_ERROR, str(error)) from error

    async def _begin_task(self, ctx: Context, card: ToolCard, params: types.CallToolRequestParams) -> dict[str, Any]:
        """Call a tool, and answer with a task."""
        call = OpenCall(params.name)
        asks = call.on_question if may_ask(ctx) else None
        handle = call.handle = await self._submit(ctx, card, params, call, asks, logs=False)
        task = CallTask(handle, card, lambda: self._subscribing.on_task(handle.call_id))
        return self._tasks.created_call(ctx, call, task)

    async def _delegate(self, params: types.CallToolRequestParams) -> TaskHandle:
        if self._agents is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
        return await self._agents.begin(await self._agents.find_agent(params.name), params.arguments or {})

    def _reopened(self, params: types.CallToolRequestParams) -> OpenCall | None:
        """The call of a client that comes back with answers; None for a new call.

        Raises:
            MCPError: There is no such call any more.
        """
        if params.request_state is None:
            return None
        call = self._open.take(params.request_state, params.name)
        if call is None:
            raise MCPError(types.INVALID_PARAMS, "the call with this requestState is over: call the tool again")
        call.answer(params.input_responses or {})
        return call

    async def _submit(
        self,
        ctx: Context,
        card: ToolCard,
        params: types.CallToolRequestParams,
        call: OpenCall,
        on_question: OnQuestion | None,
        *,
        logs: bool = True,
    ) -> CallHandle:
        options: dict[str, Any] = {"timeout": self._timeout, "on_question": on_question}
        options["meta"] = {
            key: each
            for key, each in (ctx.meta or {}).items()
            if not key.startswith(_RESERVED) and key not in ("progress_token", "progressToken")
        } or None
        level = level_of(ctx) if logs else None  # the log messages of a task have no request that they belong to
        if level is not None:
            call.logs = Logs(ctx, level)
            options |= {"log_level": level, "on_log": call.logs.add}
        call.card = card
        return await self._client.submit(card.tool, params.arguments or {}, **options)

    async def _follow(self, ctx: Context, call: OpenCall, handle: CallHandle | AgentTask) -> dict[str, Any]:
        """Follow a call until it has a result, or until its tool asks a client of 2026."""
        if call.logs is not None:
            call.logs.ctx = ctx  # a client that comes back has another request
        finish = finish_task(ctx, handle) if isinstance(handle, AgentTask) else finish_call(ctx, call, handle)
        finishing, asked = asyncio.ensure_future(finish), asyncio.ensure_future(call.asked())
        kept = False
        try:
            await asyncio.wait([finishing, asked], return_when=asyncio.FIRST_COMPLETED)
            if finishing.done():
                return finishing.result()
            kept = True
            state = self._open.keep(call)
            return {"resultType": "input_required", "inputRequests": call.requests, "requestState": state}
        finally:
            for each in (finishing, asked):
                each.cancel()
            if not handle.done and not kept:
                self._open.cancel(handle, "the MCP client gave up")  # not here: anyio cancels whatever waits here
            await asyncio.gather(finishing, asked, return_exceptions=True)
