"""What an MCP client is told when the list that it asks for lacks a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from brokers import Broker
from mcp import Client, MCPError
from mcp_mqtt_agent import Face
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.tools import ServerRequest
from mqtt_agent.wire import ServerCard, Topics, encode
from support import becomes, soon

from .conftest import OddServer, shows_some

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])
LISTED = {
    "resources/list": {"resources": [{"uri": "note://a", "name": "a"}]},
    "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "note://{name}", "name": "notes"}]},
    "prompts/list": {"prompts": [{"name": "sum_up"}]},
}
SAID = "server lost: the machine is off"


async def answer(request: ServerRequest) -> Any:
    return LISTED[request.method]


def notes(broker: Broker, namespace: str) -> ToolServer:
    server = ToolServer("notes", broker=broker.url, namespace=namespace)
    server.add_tool("write", lambda: "written", description="Writes.")
    server.answer_requests(answer, {"resources": {}, "prompts": {}})
    return server


async def lose(client: ToolClient, namespace: str) -> None:
    """A server that had tools, resources and prompts is gone, since before anybody looked."""
    can: dict[str, Any] = {"resources": {}, "prompts": {}}
    card = ServerCard(server="lost", tools=["x"], status="offline", capabilities=can, unavailable="the machine is off")
    await client.connection.publish(Topics(namespace).server_card("lost"), encode(card), retain=True)

    async def is_known() -> bool:
        return bool((await client.list_tools()).incomplete)

    await becomes(is_known)


@MODES
async def test_a_list_that_lacks_a_server_says_so_and_is_an_error_when_it_would_be_empty(
    client: ToolClient, mosquitto: Broker, namespace: str, mode: Any
) -> None:
    await lose(client, namespace)
    face = Face(client)
    async with face.live(), Client(face.server, mode=mode) as peer:
        asking: list[Callable[[], Awaitable[Any]]] = [
            peer.list_tools,
            peer.list_resources,
            peer.list_resource_templates,
            peer.list_prompts,
            lambda: peer.call_tool("write", {}),
            lambda: peer.read_resource("note://a"),
            lambda: peer.get_prompt("sum_up"),
        ]
        for ask in asking:
            with pytest.raises(MCPError, match="the machine is off"):
                await soon(ask())
        async with notes(mosquitto, namespace):
            await shows_some(client, "write")

            async def has_resources() -> bool:
                return bool(await client.list_resources())

            await becomes(has_resources)
            for ask in asking[:4]:
                listed = (await soon(ask())).model_dump(by_alias=True)
                [said] = listed["_meta"]["mqtt-agent/incomplete"]
                assert said.startswith("server lost: ")
                assert said.endswith("the machine is off")
                assert any(listed.get(each) for each in ("tools", "resources", "resourceTemplates", "prompts"))
            with pytest.raises(MCPError, match="Unknown tool: no_such_tool; not all tools can be found now: .*is off"):
                await soon(peer.call_tool("no_such_tool", {}))


async def test_a_list_waits_for_a_server_that_was_lost_just_now(
    client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    face = Face(client)
    async with notes(mosquitto, namespace) as server, face.live(), Client(face.server) as peer:
        await shows_some(client, "write")
        assert [tool.name for tool in (await soon(peer.list_tools())).tools] == ["write"]
        await soon(server.say_unavailable("its MCP server is gone"))
        await soon(server.remove_tool("write"))

        async def is_missing() -> bool:
            return not await client.list_tools()

        await becomes(is_missing)
        listing = asyncio.ensure_future(peer.list_tools())
        assert not (await asyncio.wait([listing], timeout=0.1))[0]
        await soon(server.add_tool("write", lambda: "written"))
        await soon(server.say_unavailable(None))
        assert [tool.name for tool in (await soon(listing)).tools] == ["write"]


@pytest.mark.long
async def test_the_tools_of_an_mcp_server_that_ends_again_and_again_are_missing_in_a_list_and_come_back(
    make_bridge: Any, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("echo", "die")
    await make_bridge("odd", odd.command)
    await shows_some(client, "odd.die")
    face = Face(client)
    async with face.live(), Client(face.server) as peer:
        odd.path.write_text("no JSON")  # a server that is started again ends at once
        assert (await soon(peer.call_tool(model_name("odd.die"), {}), 20)).is_error  # type: ignore[union-attr]

        async def is_gone() -> bool:
            return not await client.list_tools()

        await becomes(is_gone, 20)
        with pytest.raises(MCPError, match="server odd: the MCP server behind the bridge does not run"):
            await soon(peer.list_tools(), 20)
        odd.offer("echo")

        async def is_back() -> bool:
            try:
                return [tool.name for tool in (await peer.list_tools()).tools] == [model_name("odd.echo")]
            except MCPError:
                return False

        await becomes(is_back, 60)
