"""Shows the tools of a namespace to MCP clients, as one MCP server that speaks both protocols."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

import mcp_types as types
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from mqtt_agent import Agent
from mqtt_agent.adapting.content import as_text
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.agents import TaskHandle
from mqtt_agent.errors import CallError, InvalidArguments, MQTTAgentError, TaskError, ToolFailed, ToolUnavailable
from mqtt_agent.tools import CallHandle, OnQuestion, ToolClient
from mqtt_agent.wire import Response, TaskEvent, ToolCard
from pydantic import TypeAdapter, ValidationError

from mcp_mqtt_agent.agent_results import failed
from mcp_mqtt_agent.agent_task import AgentTask, OnProgress
from mcp_mqtt_agent.agent_tools import AgentTools
from mcp_mqtt_agent.context import Context
from mcp_mqtt_agent.hiding import hidden
from mcp_mqtt_agent.logs import Logs, add_levels, level_of
from mcp_mqtt_agent.news import News
from mcp_mqtt_agent.open_calls import OpenCall, OpenCalls, asks_at_once, may_ask
from mcp_mqtt_agent.shelf import Shelf
from mcp_mqtt_agent.task_extension import TaskExtension, wants_tasks
from mcp_mqtt_agent.version import __version__

__all__ = ["Face"]

logger: logging.Logger = logging.getLogger(__name__)

_RESERVED = "io.modelcontextprotocol/"
_BLOCK: TypeAdapter[types.ContentBlock] = TypeAdapter(types.ContentBlock)


class _Server(Server[dict[str, Any]]):
    """A server that says to clients of both protocols that its tools may change."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        return super().create_initialization_options(
            notification_options or NotificationOptions(tools_changed=True), experimental_capabilities, extensions
        )


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

    Attributes:
        server: The server of the MCP SDK.
    """

    def __init__(self, client: ToolClient | Agent, *, timeout: float | None = None) -> None:
        self._client = client.tool_client if isinstance(client, Agent) else client
        self._agents = AgentTools(client, timeout) if isinstance(client, Agent) else None
        self._timeout = timeout
        self._news = News()
        self._listening = ListenHandler(self._news.bus)
        self._open = OpenCalls()
        self._named: tuple[Any, dict[str, ToolCard]] = ((), {})
        shelf: Any = Shelf(self._client)  # its results are those of the servers, as they arrived
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
            on_subscriptions_listen=self._listening,
            get_tool_input_schema=self._schema_of,
        )
        self.server.middleware.append(self._note_session)
        add_levels(self.server)
        self._tasks = None if self._agents is None else TaskExtension(self._agents)
        if self._tasks is not None:
            self._tasks.add_to(self.server)

    @contextlib.asynccontextmanager
    async def live(self) -> AsyncGenerator[None]:
        """Tell the MCP clients when tools come, change or go, until the end of the block."""
        await self._client.start()  # that of an agent starts at its first use
        changes = [self._client.watch_tools(), *([] if self._agents is None else [self._agents.changes()])]
        telling = asyncio.create_task(self._news.tell(self._cards, *changes), name="mcp-mqtt-agent changes")
        try:
            yield
        finally:
            self._listening.close()
            await self._open.close()
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            if self._agents is not None:
                await self._agents.close()

    async def _note_session(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.method == "notifications/initialized":
            self._news.add(ctx.session)
        try:
            return await call_next(ctx)
        except (MCPError, ValidationError):  # the SDK tells the client of an invalid request
            raise
        except Exception as error:
            raise hidden(error, "the request cannot be answered") from error

    # Requests of MCP clients

    async def _cards(self) -> dict[str, ToolCard]:
        """The tools by their names for the client. The names are made once for each change of the tools."""
        try:
            cards = await self._client.list_tools()
        except MQTTAgentError as error:
            raise hidden(error, "the tools cannot be listed") from error
        known, named = self._named
        if len(known) != len(cards) or any(was is not card for was, card in zip(known, cards, strict=True)):
            named = {model_name(card.tool): card for card in cards}
            self._named = cards, named
        return named

    def _schema_of(self, name: str) -> dict[str, Any] | None:
        """The schema that says which arguments a client of 2026 repeats in HTTP headers."""
        card = self._named[1].get(name)
        return None if card is None else card.input_schema

    async def _list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        tools = list[types.Tool]()
        for name, card in (await self._cards()).items():
            try:
                tools.append(_tool(name, card))
            except ValidationError as error:  # one invalid card hides no other
                logger.warning("tool %s is left out, because MCP cannot show its card: %s", card.tool, error)
        if self._agents is not None:
            tools += await self._agents.tools()
        return types.ListToolsResult(tools=tools)

    async def _call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        call = self._reopened(params)
        if call is None:
            call = OpenCall(params.name)
            later = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and may_ask(ctx)
            on_question = call.on_question if later else asks_at_once(ctx)
            card = (await self._cards()).get(params.name)
            try:
                if card is None:
                    handle = await self._delegate(params)
                    if self._tasks is not None and wants_tasks(ctx):
                        return self._tasks.created(ctx, handle)
                    assert self._agents is not None
                    call.handle = self._agents.follow(handle, on_question, _progress_to(ctx))
                else:
                    call.handle = await self._submit(ctx, card, params, call, on_question)
            except CallError as error:
                return _complete(ctx, _failed(error))
            except TaskError as error:
                return _complete(ctx, failed(error))
            except MQTTAgentError as error:
                raise hidden(error, "the tool cannot be called") from error
        assert call.handle is not None
        return await self._follow(ctx, call, call.handle)

    async def _delegate(self, params: types.CallToolRequestParams) -> TaskHandle:
        card = None if self._agents is None else (await self._agents.named()).get(params.name)
        if self._agents is None or card is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
        return await self._agents.begin(card, params.arguments or {})

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
    ) -> CallHandle:
        options: dict[str, Any] = {"timeout": self._timeout, "on_question": on_question}
        options["meta"] = {
            key: each
            for key, each in (ctx.meta or {}).items()
            if not key.startswith(_RESERVED) and key not in ("progress_token", "progressToken")
        } or None
        level = level_of(ctx)
        if level is not None:
            call.logs = Logs(ctx, level)
            options |= {"log_level": level, "on_log": call.logs.add}
        return await self._client.submit(card.tool, params.arguments or {}, **options)

    async def _follow(self, ctx: Context, call: OpenCall, handle: CallHandle | AgentTask) -> dict[str, Any]:
        """Follow a call until it has a result, or until its tool asks a client of 2026."""
        if call.logs is not None:
            call.logs.ctx = ctx  # a client that comes back has another request
        finish = _finish_task(ctx, handle) if isinstance(handle, AgentTask) else _finish_call(ctx, call, handle)
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


async def _finish_call(ctx: Context, call: OpenCall, handle: CallHandle) -> dict[str, Any]:
    async for partial in handle.partials():
        await _pass_on(ctx, partial)
    try:
        return _complete(ctx, await _answer(handle))
    finally:
        if call.logs is not None:
            await call.logs.sent()


def _progress_to(ctx: Context) -> OnProgress:
    """What passes on the progress of a task, if the client wants any."""

    async def pass_on(event: TaskEvent) -> None:
        if event.progress is not None:
            await ctx.session.report_progress(event.progress, event.total, event.content)

    return pass_on


async def _finish_task(ctx: Context, task: AgentTask) -> dict[str, Any]:
    task.on_progress = _progress_to(ctx)
    return _complete(ctx, dict(await asyncio.shield(task.outcome)))


async def _pass_on(ctx: Context, partial: Any) -> None:
    """Pass on a progress report, if the client wants any. MCP has no place for other partial results."""
    if isinstance(partial, dict) and isinstance(partial.get("progress"), (int, float)):
        await ctx.session.report_progress(partial["progress"], partial.get("total"), partial.get("message"))


def _complete(ctx: Context, answer: dict[str, Any]) -> dict[str, Any]:
    """Finish a result as the client's protocol has it. A block that MCP does not know becomes text."""
    blocks: list[Any] = answer["content"]
    answer["content"] = [block if _is_block(block) else _text(as_text(block)) for block in blocks]
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        answer["resultType"] = "complete"
    return answer


def _is_block(block: Any) -> bool:
    try:
        _BLOCK.validate_python(block, by_name=False)
    except ValidationError:
        return False
    return True


def _tool(name: str, card: ToolCard) -> types.Tool:
    output = card.output_schema
    fields: dict[str, Any] = {
        "name": name,
        "title": card.title,
        "description": card.description or None,
        "inputSchema": {"type": "object", **card.input_schema},
        # Clients refuse a result that is no object when the tool has an output schema.
        "outputSchema": output if output is not None and output.get("type") == "object" else None,
        "annotations": None if card.annotations is None else card.annotations.model_dump(exclude_none=True),
        "icons": card.icons,
        "_meta": {**(card.meta or {}), "mqtt-agent/tool": card.tool, "mqtt-agent/server": card.server},
    }
    return types.Tool.model_validate({key: each for key, each in fields.items() if each is not None}, by_name=False)


async def _answer(handle: CallHandle) -> dict[str, Any]:
    """The result of ``tools/call``."""
    try:
        result = await handle.result()
    except CallError as error:
        return _failed(error, handle.response)
    except MQTTAgentError as error:
        raise hidden(error, "the result of the call cannot be got") from error
    response = handle.response
    assert response is not None
    answer: dict[str, Any] = {"content": response.content or [_text(as_text(result))]}
    if response.structured is not False and isinstance(result, dict):
        answer["structuredContent"] = result
    if response.meta:
        answer["_meta"] = response.meta
    return answer


def _failed(error: CallError, response: Response | None = None) -> dict[str, Any]:
    """The result of a call that has failed.

    Raises:
        MCPError: The tool is at an MCP server, which answered with a JSON-RPC error.
    """
    fault = None if response is None else response.error
    code = fault.code if fault is not None else None
    if isinstance(error, (ToolFailed, InvalidArguments)) and code is not None and code.lstrip("-").isdecimal():
        assert fault is not None
        raise MCPError(int(code), fault.message, fault.data) from error
    content = error.content if isinstance(error, ToolFailed) else None
    answer: dict[str, Any] = {"content": content or [_text(str(error))], "isError": True}
    if isinstance(error, ToolFailed) and isinstance(error.data, dict):
        answer["structuredContent"] = error.data
    if isinstance(error, ToolUnavailable):
        answer["_meta"] = {"mqtt-agent/maybe_executed": error.maybe_executed}
    return answer


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
