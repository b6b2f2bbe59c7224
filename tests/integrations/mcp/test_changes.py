"""Changes of resources and prompts go from the MCP server over MQTT to the MCP clients, in both protocols."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from brokers import Broker
from mcp import Client, MCPError
from mcp_mqtt_agent import Face
from mcp_mqtt_agent.watching import Watching
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.tools import ServerChange, ServerRequest
from support import becomes, soon, until

from .conftest import SERVERS, MakeBridge, shows

URI = "note://first"
RESOURCES = "notifications/resources/list_changed"
PROMPTS = "notifications/prompts/list_changed"
UPDATED = "notifications/resources/updated"
EVERYTHING = {(RESOURCES, None), (PROMPTS, None), (UPDATED, URI)}


def changing(protocol: str) -> list[str]:
    return [sys.executable, str(SERVERS / "changing_server.py"), protocol]


def what(change: ServerChange) -> tuple[str, str | None]:
    return change.method, change.params.get("uri")


async def until_told(changes: Any, wanted: set[tuple[str, str | None]]) -> None:
    """Wait until all these changes were told."""
    missing = set(wanted)
    while missing:
        change = await soon(changes.__anext__(), 20)
        assert change.server == "notes"
        missing.discard(what(change))


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["2025", "2026"])
async def test_changes_of_a_server_reach_the_client_that_asks_for_them_and_after_its_death_too(
    make_bridge: MakeBridge, client: ToolClient, protocol: str
) -> None:
    await make_bridge("notes", changing(protocol))
    await shows(client, "notes.die", "notes.touch")
    changes = client.watch_changes()
    assert await soon(changes.subscribe("notes", URI), 20)
    await soon(client.call("notes.touch"))
    await until_told(changes, EVERYTHING)
    with pytest.raises(ToolUnavailable):
        await soon(client.call("notes.die"))
    await until_told(changes, EVERYTHING)  # everything may have changed while the server was away
    await soon(client.call("notes.touch", wait_online=True), 20)
    await until_told(changes, {(UPDATED, URI)})


@pytest.mark.long
async def test_a_resource_whose_client_is_gone_is_not_watched_any_more(
    make_bridge: MakeBridge, client: ToolClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_mqtt_agent.watching._KEPT", 0.2)
    await make_bridge("notes", changing("2025"))
    await shows(client, "notes.die", "notes.touch")
    changes = client.watch_changes()
    assert await soon(changes.subscribe("notes", URI), 20)
    changes.close()

    async def is_forgotten() -> bool:
        return await client.call("notes.touch") == "[]"

    await becomes(is_forgotten, 20)


class Heard:
    """What an MCP client is told."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self.uris: list[str] = []

    async def __call__(self, message: Any) -> None:
        self.methods.append(getattr(message, "method", ""))
        uri = getattr(getattr(message, "params", None), "uri", None)
        if uri is not None:
            self.uris.append(str(uri))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_an_mcp_client_of_2025_is_told_of_changes_until_it_unsubscribes(
    make_bridge: MakeBridge, client: ToolClient
) -> None:
    await make_bridge("notes", changing("2026"))
    await shows(client, "notes.die", "notes.touch")
    heard, face = Heard(), Face(client)
    async with face.live(), Client(face.server, mode="legacy", message_handler=heard) as peer:
        resources = peer.server_capabilities.resources
        assert resources is not None
        assert (resources.subscribe, resources.list_changed) == (True, True)
        with pytest.raises(MCPError, match="no server tells the changes"):
            await soon(peer.session.subscribe_resource("note://nowhere"))
        await soon(peer.session.subscribe_resource(URI), 20)
        await soon(client.call("notes.touch"))
        await until(lambda: {RESOURCES, PROMPTS, UPDATED} <= set(heard.methods), 20)
        assert set(heard.uris) == {URI}
        await soon(peer.session.unsubscribe_resource(URI))
        heard.methods.clear()
        await soon(client.call("notes.touch"))
        await until(lambda: {RESOURCES, PROMPTS} <= set(heard.methods), 20)
        assert UPDATED not in heard.methods


async def test_an_mcp_client_of_2026_is_told_of_changes_on_its_stream(
    make_bridge: MakeBridge, client: ToolClient
) -> None:
    await make_bridge("notes", changing("2025"))
    await shows(client, "notes.die", "notes.touch")
    face = Face(client)
    async with face.live(), Client(face.server) as peer:
        wanted: dict[str, Any] = {"prompts_list_changed": True, "resources_list_changed": True}
        async with peer.listen(**wanted, resource_subscriptions=[URI, "note://nowhere"]) as stream:
            assert stream.honored.resource_subscriptions == [URI]
            await soon(client.call("notes.touch"))
            told = {str(await soon(stream.__anext__(), 20)) for _ in range(3)}
        assert told == {"ResourcesListChanged()", "PromptsListChanged()", f"ResourceUpdated(uri='{URI}')"}


@pytest.mark.long
async def test_lists_change_when_a_server_comes_and_when_it_goes(
    make_bridge: MakeBridge, client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    asked = asyncio.Event()

    async def answer(request: ServerRequest) -> Any:
        asked.set()
        return {}

    other = ToolServer("other", broker=mosquitto.url, namespace=namespace)
    other.answer_requests(answer, {"prompts": {"listChanged": True}})
    async with other:
        changes = client.watch_changes()
        await soon(asked.wait(), 20)  # so the client knows by now which servers there are
        bridge = await make_bridge("notes", changing("2025"))
        await until_told(changes, {(RESOURCES, None), (PROMPTS, None)})
        await soon(bridge.stop(), 20)
        await until_told(changes, {(RESOURCES, None), (PROMPTS, None)})


@pytest.mark.long
async def test_a_client_that_may_not_read_a_server_is_told_nothing(
    make_bridge: MakeBridge, client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    await make_bridge("notes", changing("2025"), allowed_callers=["caller"])
    changes = client.watch_changes()
    assert await soon(changes.subscribe("notes", URI), 20)
    strangers: list[dict[str, Any]] = [{"agent_id": "stranger"}, {"agent_id": "caller", "bound": "off"}]
    for stranger in strangers:
        async with ToolClient(**stranger, broker=mosquitto.url, namespace=namespace) as refused:
            assert not await soon(refused.watch_changes().subscribe("notes", URI), 20)


@pytest.mark.long
async def test_a_bridge_watches_only_so_many_resources_also_when_they_are_asked_for_at_once(
    make_bridge: MakeBridge, client: ToolClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_mqtt_agent.watching._MOST_URIS", 2)
    await make_bridge("notes", changing("2025"))
    await shows(client, "notes.die", "notes.touch")
    changes = client.watch_changes({"notes": ["a:1", "a:2", "a:3"]})
    await soon(changes.subscribe("notes", "a:4"), 20)  # asks for all of them
    assert (await soon(client.call("notes.touch"))).count("a:") == 2


@pytest.mark.long
async def test_a_resource_that_a_server_has_refused_is_asked_for_again(
    make_bridge: MakeBridge, client: ToolClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_mqtt_agent.watching._KEPT", 1.0)
    await make_bridge("notes", [*changing("2026"), "2"])  # one stream for the lists, and one for a resource
    await shows(client, "notes.die", "notes.touch")
    changes = client.watch_changes()
    assert await soon(changes.subscribe("notes", "a:1"), 20)
    assert not await soon(changes.subscribe("notes", "a:2"), 20)
    changes.unsubscribe("notes", "a:1")
    await becomes(lambda: changes.subscribe("notes", "a:2"), 20)


async def test_a_change_that_happens_often_while_it_waits_is_told_once() -> None:
    told, gate = list[str](), asyncio.Event()

    async def on_change(method: str, params: dict[str, Any]) -> None:
        told.append(method)
        await gate.wait()

    watching = Watching("notes", lambda: None, on_change)
    for _ in range(100):
        watching.tell(RESOURCES, {})
        watching.tell(PROMPTS, {})
        await asyncio.sleep(0)
    gate.set()
    await until(lambda: len(told) >= 3)
    await watching.end()
    assert told == [RESOURCES, PROMPTS, RESOURCES]


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_a_server_that_does_not_answer_holds_up_no_subscription_to_another_server(
    client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    asked = asyncio.Event()

    def library(name: str, *, answers: bool) -> ToolServer:
        async def answer(request: ServerRequest) -> Any:
            if request.method == "resources/list":
                return {"resources": [{"uri": f"{name}://first", "name": "first"}]}
            if not answers and "resourceSubscriptions" in request.params.get("notifications", {}):
                asked.set()
                await asyncio.Event().wait()
            return request.params

        server = ToolServer(name, broker=mosquitto.url, namespace=namespace)
        server.answer_requests(answer, {"resources": {"subscribe": True}})
        return server

    face = Face(client)
    async with library("slow", answers=False), library("fast", answers=True), face.live():
        async with Client(face.server, mode="legacy") as peer:
            waiting = asyncio.ensure_future(peer.session.subscribe_resource("slow://first"))
            await soon(asked.wait(), 20)
            await soon(peer.session.subscribe_resource("fast://first"), 20)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_a_client_that_subscribes_again_and_again_leaves_nothing_behind(
    client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    async def answer(request: ServerRequest) -> Any:
        listed = {"resources": [{"uri": URI, "name": "first"}]}
        return listed if request.method == "resources/list" else request.params

    server = ToolServer("notes", broker=mosquitto.url, namespace=namespace)
    server.answer_requests(answer, {"resources": {"subscribe": True}})
    face = Face(client)
    async with server, face.live(), Client(face.server, mode="legacy") as peer:
        for _ in range(5):
            await soon(peer.session.subscribe_resource(URI), 20)
            await soon(peer.session.unsubscribe_resource(URI), 20)
        [session] = face._news._sessions  # pyright: ignore[reportPrivateUsage]
        stack = session._connection.exit_stack  # pyright: ignore[reportPrivateUsage]
        assert len(stack._exit_callbacks) == 1  # type: ignore[attr-defined]  # pyright: ignore
