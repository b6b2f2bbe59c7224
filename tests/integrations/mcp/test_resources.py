"""Resources, prompts and completions of an MCP server over MQTT, and for MCP clients."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from brokers import Broker
from mcp import Client, MCPError
from mcp_mqtt_agent import Face
from mcp_types import PromptReference, ResourceTemplateReference
from mqtt_agent import ToolClient, ToolContext, ToolError, ToolResult, ToolServer
from mqtt_agent.errors import CallerNotAuthorized, InvalidArguments, ToolUnavailable
from mqtt_agent.tools import ServerRequest
from support import becomes, soon

from .conftest import SDK_SERVER, MakeBridge

NAMES = {"type": "ref/prompt", "name": "review"}


async def test_resources_prompts_and_completions_go_from_the_server_over_mqtt_to_every_client(
    make_bridge: MakeBridge, client: ToolClient
) -> None:
    await make_bridge("notes", SDK_SERVER)

    async def has_resources() -> bool:
        return len(await client.list_resources()) == 1

    await becomes(has_resources, 20)
    [resource] = await soon(client.list_resources())
    assert (resource["uri"], resource["server"]) == ("note://first", "notes")
    [content] = await soon(client.read_resource("notes", "note://first"))
    assert (content["text"], content["mimeType"]) == ("the first note", "text/plain")
    [template] = await soon(client.list_resource_templates("notes"))
    assert template["uriTemplate"] == "note://by-name/{name}"
    [prompt] = await soon(client.list_prompts())
    assert (prompt["name"], prompt["description"]) == ("review", "Review code.")
    got = await soon(client.get_prompt("notes", "review", {"code": "1 + 1"}))
    assert got["messages"][0]["content"]["text"] == "Please review 1 + 1"
    asked = {"ref": NAMES, "argument": {"name": "code", "value": "x"}}
    completed = await soon(client.request("notes", "completion/complete", asked))
    assert completed["completion"]["values"] == ["x-1", "x-2"]
    with pytest.raises(InvalidArguments, match="Unknown resource"):
        await soon(client.read_resource("notes", "note://nowhere/at/all"))

    for mode in ("legacy", "auto"):
        face = Face(client)
        async with face.live(), Client(face.server, mode=mode) as peer:
            await sees_everything(peer)


async def test_a_large_content_of_a_tool_is_a_link_that_the_mcp_client_can_read(
    client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    server = ToolServer("files", broker=mosquitto.url, namespace=namespace)

    @server.tool
    async def export(size: int, ctx: ToolContext) -> ToolResult:
        return await ctx.share(bytes(size), name="zeros.bin")

    face = Face(client)
    async with server, face.live(), Client(face.server) as peer:

        async def is_listed() -> bool:
            return bool((await peer.list_tools()).tools)

        await becomes(is_listed)
        (link,) = (await soon(peer.call_tool("export", {"size": 1_000_000}))).content
        assert (link.type, getattr(link, "size", 0)) == ("resource_link", 1_000_000)
        (found,) = (await soon(peer.read_resource(getattr(link, "uri", "")))).contents
        assert base64.b64decode(getattr(found, "blob", "")) == bytes(1_000_000)
        (link,) = (await soon(peer.call_tool("export", {"size": 9_000_000}))).content
        with pytest.raises(MCPError, match="is larger than max_bytes=8,388,608"):
            await soon(peer.read_resource(getattr(link, "uri", "")))
        with pytest.raises(MCPError, match="keeps no such content"):
            await soon(peer.read_resource(getattr(link, "uri", "") + "0"))


async def sees_everything(peer: Client) -> None:
    """An MCP client lists and reads what the server has."""
    resources = (await soon(peer.list_resources())).resources
    assert [(each.uri, (each.meta or {})["mqtt-agent/server"]) for each in resources] == [("note://first", "notes")]
    templates = (await soon(peer.list_resource_templates())).resource_templates
    assert [each.uri_template for each in templates] == ["note://by-name/{name}"]
    texts: list[Any] = [
        (await soon(peer.read_resource(uri))).contents[0] for uri in ("note://first", "note://by-name/other")
    ]
    assert [each.text for each in texts] == ["the first note", "the note other"]
    with pytest.raises(MCPError, match="Unknown resource"):
        await soon(peer.read_resource("note://nowhere/at/all"))
    [prompt] = (await soon(peer.list_prompts())).prompts
    assert prompt.name.startswith("notes_review")
    got: Any = (await soon(peer.get_prompt(prompt.name, {"code": "2"}))).messages[0].content
    assert got.text == "Please review 2"
    assert (await soon(peer.get_prompt("review", {"code": "2"}))).messages[0].content == got
    for ref in (
        PromptReference(name=prompt.name),
        PromptReference(name="review"),
        ResourceTemplateReference(uri="note://by-name/{name}"),
    ):
        completed = await soon(peer.complete(ref, {"name": "code", "value": "y"}))
        assert completed.completion.values == ["y-1", "y-2"]


@pytest.mark.long
async def test_a_bridge_without_resources_offers_none(make_bridge: MakeBridge, client: ToolClient) -> None:
    await make_bridge("notes", SDK_SERVER, resources=False)
    with pytest.raises(ToolUnavailable):
        await soon(client.list_resources("notes"))


async def test_a_bridge_with_allowed_callers_serves_only_callers_whose_name_is_proven(
    make_bridge: MakeBridge, client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    bridge = await make_bridge("notes", SDK_SERVER, allowed_callers=["caller"])
    assert {tuple(card.allowed_callers or ()) for card in bridge.server.tools} == {("caller",)}
    assert await soon(client.call("notes.add", {"a": 1, "b": 2}, wait_online=True), 20) == {"sum": 3}
    assert len(await soon(client.read_resource("notes", "note://first"))) == 1
    where: Any = {"broker": mosquitto.url, "namespace": namespace}
    strangers: list[dict[str, Any]] = [{"agent_id": "stranger"}, {"agent_id": "caller", "bound": "off"}]
    for stranger in strangers:
        async with ToolClient(**stranger, **where) as refused:
            with pytest.raises(CallerNotAuthorized):
                await soon(refused.call("notes.add", {"a": 1, "b": 2}, wait_online=True))
            with pytest.raises(CallerNotAuthorized):
                await soon(refused.read_resource("notes", "note://first"))
            with pytest.raises(CallerNotAuthorized):
                await soon(refused.list_resources("notes"))


async def test_a_resource_is_asked_first_of_the_server_with_a_template_for_it(
    mosquitto: Broker, namespace: str, client: ToolClient
) -> None:
    asked = list[tuple[str, str]]()

    def serve(name: str, template: str, has: str) -> ToolServer:
        async def answer(request: ServerRequest) -> dict[str, Any]:
            if request.method == "resources/templates/list":
                return {"resourceTemplates": [{"uriTemplate": template, "name": "t"}]}
            if request.method == "resources/list":
                return {"resources": []}
            asked.append((name, request.params["uri"]))
            if request.params["uri"] != has:
                raise ToolError("Unknown resource", type="invalid_arguments", code="-32602")
            return {"contents": [{"uri": has, "text": name}]}

        server = ToolServer(name, broker=mosquitto.url, namespace=namespace)
        server.answer_requests(answer, {"resources": {}})
        return server

    first, last = serve("a", "a://{name}", "z://secret"), serve("z", "z://{name}/{more}", "z://one/two")
    odd, face = serve("m", "m://{", "m://x"), Face(client)
    async with first, last, odd, face.live(), Client(face.server) as peer:

        async def read(uri: str) -> str:
            contents: Any = (await soon(peer.read_resource(uri))).contents
            return contents[0].text

        assert await read("z://one/two") == "z"
        assert asked == [("z", "z://one/two")]
        assert await read("m://x") == "m"  # its template cannot be read
        asked.clear()
        with pytest.raises(MCPError, match="Unknown resource"):
            await read("q://nowhere")
        assert [name for name, _ in asked] == ["a", "m", "z"]
