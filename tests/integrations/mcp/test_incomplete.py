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
from mqtt_agent.tools.calling import live_catalog
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


async def silent(request: ServerRequest) -> Any:
    await asyncio.Event().wait()


def said_of(listed: Any) -> list[str]:
    """The servers that a list says that it lacks."""
    said = listed.model_dump(by_alias=True).get("_meta", {}).get("mqtt-agent/incomplete", ())
    return [each.removeprefix("server ").partition(":")[0] for each in said]


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
@pytest.mark.parametrize("named", [True, False], ids=["named", "stranger"])
async def test_a_list_that_lacks_a_server_says_so_and_is_an_error_when_it_would_be_empty(
    client: ToolClient, mosquitto: Broker, namespace: str, mode: Any, named: bool
) -> None:
    """Anybody may write the card of a server that was lost. A list is an error only if the server is known."""
    await lose(client, namespace)
    face = Face(client, servers=["lost", "notes"] if named else None)
    async with face.live(), Client(face.server, mode=mode) as peer:
        listing: list[Callable[[], Awaitable[Any]]] = [
            peer.list_tools,
            peer.list_resources,
            peer.list_resource_templates,
            peer.list_prompts,
        ]
        asking: list[Callable[[], Awaitable[Any]]] = [
            lambda: peer.call_tool("write", {}),
            lambda: peer.read_resource("note://a"),
            lambda: peer.get_prompt("sum_up"),
        ]
        for ask in [*listing, *asking] if named else asking:
            with pytest.raises(MCPError, match="the machine is off"):
                await soon(ask())
        for ask in [] if named else listing:
            assert said_of(await soon(ask())) == ["lost"]
        async with notes(mosquitto, namespace):
            await shows_some(client, "write")

            async def has_resources() -> bool:
                return bool(await client.list_resources())

            await becomes(has_resources)
            for ask in listing:
                listed = await soon(ask())
                assert said_of(listed) == ["lost"]
                shown = listed.model_dump(by_alias=True)
                assert any(shown.get(each) for each in ("tools", "resources", "resourceTemplates", "prompts"))
            with pytest.raises(MCPError, match="Unknown tool: no_such_tool; not all tools can be found now: .*is off"):
                await soon(peer.call_tool("no_such_tool", {}))


@MODES
async def test_what_a_client_was_shown_is_missed_when_it_is_lost_whatever_strangers_write(
    client: ToolClient, mosquitto: Broker, namespace: str, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_catalog, "RETURN_WITHIN", 0.1)
    face = Face(client)
    async with face.live(), Client(face.server, mode=mode) as peer:
        async with notes(mosquitto, namespace) as server:
            await shows_some(client, "write")
            assert (await soon(peer.list_tools())).tools
            for number in range(30):
                name = f"a{number}"
                lost = ServerCard(
                    server=name, tools=["x"], status="offline", unavailable="no, me", capabilities={"resources": {}}
                )
                await client.connection.publish(Topics(namespace).server_card(name), encode(lost), retain=True)
            await server.say_unavailable("its MCP server is gone")
            await server.remove_tool("write")

            async def is_missing() -> bool:
                return len((await client.list_tools()).incomplete) == 31

            await becomes(is_missing)
            with pytest.raises(MCPError, match="^no tool is available now: server notes: its MCP server is gone; "):
                await soon(peer.list_tools())


async def test_a_client_that_names_its_servers_is_shown_no_other(
    client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    face = Face(client, servers=["notes", "later"])
    other = ToolServer("other", broker=mosquitto.url, namespace=namespace)
    other.add_tool("secret", lambda: "told")
    other.answer_requests(silent, {"resources": {}, "prompts": {}})
    async with other, notes(mosquitto, namespace), face.live(), Client(face.server) as peer:
        await shows_some(client, "secret")
        await shows_some(client, "write")
        tools = await soon(peer.list_tools())
        assert ([tool.name for tool in tools.tools], said_of(tools)) == (["write"], ["later"])
        resources = await soon(peer.list_resources())  # the other server, which does not answer, is not asked
        assert ([each.uri for each in resources.resources], said_of(resources)) == (["note://a"], ["later"])
        with pytest.raises(MCPError, match="Unknown tool: secret"):
            await soon(peer.call_tool("secret", {}))
        replica = next(card.server for card in await soon(client.list_servers()) if card.shared_name == "notes")
        by_replica = Face(client, servers=[replica])
        async with by_replica.live(), Client(by_replica.server) as second:
            tools, resources = await soon(second.list_tools()), await soon(second.list_resources())
            assert ([tool.name for tool in tools.tools], [each.uri for each in resources.resources]) == (
                ["write"],
                ["note://a"],
            )
            assert (said_of(tools), said_of(resources)) == ([], [])


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
