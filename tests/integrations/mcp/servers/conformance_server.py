"""An MCP server with the tools, resources and prompts that MCP's conformance suite asks for, over standard input."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY, EmptyResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

Context = ServerRequestContext[Any, Any]

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
KEPT = {"ttlMs": 0, "cacheScope": "private", "resultType": "complete"}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def embedded(uri: str, mime: str, words: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": words}}


IMAGE = {"type": "image", "data": PNG, "mimeType": "image/png"}
ANSWERS: dict[str, list[dict[str, Any]]] = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [IMAGE],
    "test_audio_content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}],
    "test_embedded_resource": [
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        IMAGE,
        embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ],
}


def form(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def one_of(**titles: str) -> list[dict[str, str]]:
    return [{"const": value, "title": title} for value, title in titles.items()]


TITLES = one_of(value1="First Option", value2="Second Option", value3="Third Option")
OPTIONS = ["option1", "option2", "option3"]
STRING = {"type": "string"}
FORMS: dict[str, list[dict[str, tuple[str, dict[str, Any]]]]] = {
    "test_elicitation": [{"answer": ("", form(username=STRING, email=STRING))}],
    "test_elicitation_sep1034_defaults": [
        {
            "answer": (
                "Please review",
                {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "default": "John Doe"},
                        "age": {"type": "integer", "default": 30},
                        "score": {"type": "number", "default": 95.5},
                        "status": {
                            "type": "string",
                            "enum": ["active", "inactive", "pending"],
                            "default": "active",
                        },
                        "verified": {"type": "boolean", "default": True},
                    },
                },
            )
        }
    ],
    "test_elicitation_sep1330_enums": [
        {
            "answer": (
                "Please choose",
                {
                    "type": "object",
                    "properties": {
                        "untitledSingle": {"type": "string", "enum": OPTIONS},
                        "titledSingle": {"type": "string", "oneOf": TITLES},
                        "legacyEnum": {
                            "type": "string",
                            "enum": ["opt1", "opt2", "opt3"],
                            "enumNames": ["Option One", "Option Two", "Option Three"],
                        },
                        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": OPTIONS}},
                        "titledMulti": {"type": "array", "items": {"anyOf": TITLES}},
                    },
                },
            )
        }
    ],
    "test_input_required_result_elicitation": [{"user_name": ("What is your name?", form(name=STRING))}],
    "test_streaming_elicitation": [{"user_name": ("What is your name?", form(name=STRING))}],
    "test_input_required_result_request_state": [{"confirm": ("Please confirm", form(ok={"type": "boolean"}))}],
    "test_input_required_result_tampered_state": [{"confirm": ("Please confirm", form(ok={"type": "boolean"}))}],
    "test_input_required_result_multi_round": [
        {"step1": ("Step 1: What is your name?", form(name=STRING))},
        {"step2": ("Step 2: What is your favorite color?", form(color=STRING))},
    ],
}
"""The questions of each tool: round by round, by their keys, with the message and the form."""

DIALECT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": STRING, "city": STRING},
        }
    },
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "json_schema_2020_12_tool": DIALECT,
    "test_elicitation": {"type": "object", "properties": {"message": STRING}, "required": ["message"]},
    "test_header": {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        "required": ["region"],
    },
}


def results(content: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"content": content, "resultType": "complete", **more}


async def progress(ctx: Context) -> dict[str, Any]:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100)
        await asyncio.sleep(0.05)
    return results([text("done")])


async def log(ctx: Context) -> dict[str, Any]:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", words, "conformance", ctx.request_id)
        await asyncio.sleep(0.05)
    return results([text("logged")])


async def missing(ctx: Context) -> dict[str, Any]:
    needed = {"requiredCapabilities": {"sampling": {}}}
    raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "this tool needs sampling", needed)


async def fail(ctx: Context) -> dict[str, Any]:
    return results([text("This tool intentionally returns an error for testing")], isError=True)


ACTIONS: dict[str, Callable[[Context], Awaitable[dict[str, Any]]]] = {
    "test_tool_with_progress": progress,
    "test_tool_with_logging": log,
    "test_logging_tool": log,
    "test_error_handling": fail,
    "test_missing_capability": missing,
}


async def ask(ctx: Context, name: str, params: Any) -> dict[str, Any]:
    """Ask the forms of a tool, each round as the protocol of the client has it."""
    rounds, arguments = FORMS[name], params.arguments or {}
    modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    known: dict[str, Any] = json.loads(params.request_state) if params.request_state else {}
    for key, response in (params.input_responses or {}).items():
        known[key] = response if isinstance(response, dict) else response.model_dump(by_alias=True, mode="json")
    for questions in rounds:
        missing = {key: each for key, each in questions.items() if key not in known}
        if not missing:
            continue
        if modern:
            requests = {
                key: {
                    "method": "elicitation/create",
                    "params": {"mode": "form", "message": words or arguments["message"], "requestedSchema": schema},
                }
                for key, (words, schema) in missing.items()
            }
            return {"resultType": "input_required", "inputRequests": requests, "requestState": json.dumps(known)}
        for key, (words, schema) in missing.items():
            given = await ctx.session.elicit_form(words or arguments["message"], schema, ctx.request_id)
            known[key] = given.model_dump(by_alias=True, mode="json")
    [*_, last] = known.values()
    content = last.get("content") or {}
    said = f"action={last.get('action')}, content={json.dumps(content)}; state-ok"
    if "name" in (known.get("user_name") or {}).get("content", {}):
        said = f"Hello, {known['user_name']['content']['name']}!"
    return results([text(f"User response: {said}")])


async def list_tools(ctx: Context, params: Any) -> Any:
    names = sorted({*ANSWERS, *FORMS, *ACTIONS, *SCHEMAS})
    tools = [
        {"name": name, "description": f"Conformance: {name}", "inputSchema": SCHEMAS.get(name, NOTHING)}
        for name in names
    ]
    return {"tools": tools, **KEPT}


async def call_tool(ctx: Context, params: Any) -> Any:
    name = params.name
    if name in ANSWERS:
        return results(ANSWERS[name])
    if name in FORMS:
        return await ask(ctx, name, params)
    if name in ACTIONS:
        return await ACTIONS[name](ctx)
    if name in SCHEMAS:
        return results([text(json.dumps(params.arguments))])
    raise MCPError(INVALID_PARAMS, f"Unknown tool: {name}")


RESOURCES: dict[str, dict[str, Any]] = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://watched-resource": {"mimeType": "text/plain", "text": "This text is watched."},
}
BEFORE, AFTER = "test://template/", "/data"


async def list_resources(ctx: Context, params: Any) -> Any:
    listed = [
        {"uri": uri, "name": uri[7:], "description": f"Conformance: {uri}", "mimeType": each["mimeType"]}
        for uri, each in RESOURCES.items()
    ]
    return {"resources": listed, **KEPT}


async def list_templates(ctx: Context, params: Any) -> Any:
    template = {"uriTemplate": f"{BEFORE}{{id}}{AFTER}", "name": "template", "mimeType": "application/json"}
    return {"resourceTemplates": [template], **KEPT}


async def read_resource(ctx: Context, params: Any) -> Any:
    uri = str(params.uri)
    found = RESOURCES.get(uri)
    if found is None and uri.startswith(BEFORE) and uri.endswith(AFTER):
        about = {"id": uri[len(BEFORE) : -len(AFTER)], "templateTest": True}
        words = json.dumps(about | {"data": f"Data for ID: {about['id']}"})
        found = {"mimeType": "application/json", "text": words}
    if found is None:
        raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})
    return {"contents": [{"uri": uri, **found}], **KEPT}


PROMPTS: dict[str, list[str]] = {
    "test_simple_prompt": [],
    "test_prompt_with_arguments": ["arg1", "arg2"],
    "test_prompt_with_embedded_resource": ["resourceUri"],
    "test_prompt_with_image": [],
}


async def list_prompts(ctx: Context, params: Any) -> Any:
    prompts = [
        {
            "name": name,
            "description": f"Conformance: {name}",
            "arguments": [{"name": each, "description": each, "required": True} for each in arguments],
        }
        for name, arguments in PROMPTS.items()
    ]
    return {"prompts": prompts, **KEPT}


async def get_prompt(ctx: Context, params: Any) -> Any:
    given = params.arguments or {}
    blocks = {
        "test_simple_prompt": lambda: [text("This is a simple prompt for testing.")],
        "test_prompt_with_arguments": lambda: [
            text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")
        ],
        "test_prompt_with_embedded_resource": lambda: [
            embedded(given["resourceUri"], "text/plain", "Embedded resource content for testing."),
            text("Please process the embedded resource above."),
        ],
        "test_prompt_with_image": lambda: [IMAGE, text("Please analyze the image above.")],
    }[params.name]()
    return {"messages": [{"role": "user", "content": each} for each in blocks], "resultType": "complete"}


async def complete(ctx: Context, params: Any) -> Any:
    values = [each for each in ("paris", "park", "party") if each.startswith(params.argument.value)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}, "resultType": "complete"}


async def set_level(ctx: Context, params: Any) -> Any:
    return {}


async def subscribe(ctx: Context, params: Any) -> EmptyResult:
    return EmptyResult()


async def main() -> None:
    """Serve until standard input ends."""
    server: Server[Any] = Server(
        "conformance",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=subscribe,
        on_subscriptions_listen=ListenHandler(InMemorySubscriptionBus()),
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_set_logging_level=set_level,
        get_tool_input_schema=lambda name: None,
    )
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)
