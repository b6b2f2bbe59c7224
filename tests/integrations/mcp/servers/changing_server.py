"""An MCP server whose lists and resources change: python changing_server.py 2025|2026 [STREAMS].

The tool ``touch`` tells that everything has changed. The tool ``die`` ends the process. A server of 2026 has at most
STREAMS subscriptions at once.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import anyio
import mcp_types as types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
)

URI = "note://first"
bus = InMemorySubscriptionBus()
subscribed = list[str]()


async def list_tools(ctx: Any, params: Any) -> types.ListToolsResult:
    schema = {"type": "object"}
    return types.ListToolsResult(tools=[types.Tool(name=each, input_schema=schema) for each in ("touch", "die")])


async def call_tool(ctx: Any, params: Any) -> types.CallToolResult:
    if params.name == "die":
        os._exit(3)
    if MODERN:
        for event in (ResourcesListChanged(), PromptsListChanged(), ResourceUpdated(URI), ResourceUpdated("note://b")):
            await bus.publish(event)
    else:
        await ctx.session.send_resource_list_changed()
        await ctx.session.send_prompt_list_changed()
        for uri in subscribed:
            await ctx.session.send_resource_updated(uri)
    return types.CallToolResult(content=[types.TextContent(type="text", text=str(sorted(subscribed)))])


async def list_resources(ctx: Any, params: Any) -> types.ListResourcesResult:
    return types.ListResourcesResult(resources=[types.Resource(uri=URI, name="first")])


async def read_resource(ctx: Any, params: Any) -> types.ReadResourceResult:
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=str(params.uri), text="a note")])


async def list_prompts(ctx: Any, params: Any) -> types.ListPromptsResult:
    return types.ListPromptsResult(prompts=[types.Prompt(name="review")])


async def subscribe(ctx: Any, params: Any) -> types.EmptyResult:
    subscribed.append(str(params.uri))
    return types.EmptyResult()


async def unsubscribe(ctx: Any, params: Any) -> types.EmptyResult:
    subscribed.remove(str(params.uri))
    return types.EmptyResult()


async def main() -> None:
    """Serve until standard input ends."""
    server: Server[Any] = Server(
        "changing",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
        on_subscriptions_listen=ListenHandler(bus, max_subscriptions=STREAMS),
    )
    options = server.create_initialization_options(NotificationOptions(True, True, True))
    async with stdio_server() as (reading, writing):
        if MODERN:
            await server.run(reading, writing, options)
        else:
            await serve_loop(server, reading, writing, lifespan_state={}, init_options=options)


MODERN = sys.argv[1] == "2026"
STREAMS = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
if __name__ == "__main__":
    anyio.run(main)
