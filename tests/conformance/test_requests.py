"""Requests for resources and prompts, as an independent peer sends and answers them, and between our endpoints."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from brokers import ALL_BROKERS, Ejabberd
from mqtt_agent import ToolError, ToolServer
from mqtt_agent.display.lacking import first_few
from mqtt_agent.errors import CallerNotAuthorized, CallTimeout, ToolFailed, ToolUnavailable, TopicNotAuthorized
from mqtt_agent.tools import ServerRequest
from mqtt_agent.tools.calling import requests
from mqtt_agent.transport import InboundMessage
from support import becomes, soon, until

from ..tools.conftest import MakeClient, MakeServer
from .stranger import Stranger, StrangeServer

RUN_ON = ALL_BROKERS
LONG_ON = [Ejabberd]
PAGES = {None: (["a", "b"], "2"), "2": (["c"], None)}


def library(server: ToolServer, **options: Any) -> list[ServerRequest]:
    """Let a server have the resources ``x:a``, ``x:b`` and ``x:c``; returns its requests."""
    asked: list[ServerRequest] = []

    async def answer(request: ServerRequest) -> Any:
        asked.append(request)
        if request.method == "resources/list":
            names, following = PAGES[request.params.get("cursor")]
            return {"resources": [{"uri": f"x:{name}", "name": name} for name in names], "nextCursor": following}
        if request.method == "resources/read":
            return {"contents": [{"uri": request.params["uri"], "text": server.replica}]}
        raise ToolError("no such method", code="-32601", data=[1])

    server.answer_requests(answer, {"resources": {}}, instructions="Read first.", **options)
    return asked


@pytest.mark.rule("REQUEST-1", "REQUEST-2", "REQUEST-3", "REQUEST-5", "TOPIC-10")
async def test_a_server_answers_requests_and_its_card_shows_what_it_has(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("books", replica="a")
    asked = library(server)
    await stranger.listen("servers/books:a/card")
    await soon(server.start())
    await until(lambda: stranger.read("servers/books:a/card"))
    card = stranger.read("servers/books:a/card")[-1]
    assert (card["capabilities"], card["instructions"]) == ({"resources": {}}, "Read first.")
    request = {"request_id": "1", "method": "resources/read", "params": {"uri": "x:a"}, "client": "stranger"}
    await stranger.tell("servers/books:a/request", {**request, "client": "a/b"})
    await stranger.tell("servers/books:a/request", {"client": "stranger"})
    await stranger.tell("servers/books:a/request", request)
    answer = await stranger.answer("1")
    assert (answer["result"], answer["server"]) == ({"contents": [{"uri": "x:a", "text": "a"}]}, "books:a")
    await stranger.tell("servers/books:a/request", {**request, "request_id": "2", "method": "prompts/list"})
    error = (await stranger.answer("2"))["error"]
    assert (error["type"], error["code"], error["data"]) == ("tool_error", "-32601", [1])
    assert [each.client for each in asked] == ["stranger", "stranger"]
    await soon(server.stop())
    await until(lambda: stranger.read("servers/books:a/card")[-1]["status"] == "offline")
    assert "capabilities" not in stranger.read("servers/books:a/card")[-1]


@pytest.mark.rule("BOUND-13")
async def test_on_bound_topics_the_name_in_the_topic_asks_and_only_allowed_clients_are_answered(
    stranger: Stranger, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("books", replica="a")
    asked = library(server, allowed_callers=["agent-a", "stranger"])
    await soon(server.start())
    await stranger.listen("clients/stranger/responses/+")
    request = {"request_id": "1", "method": "resources/list", "client": "stranger"}
    await stranger.tell("servers/books:a/request/evil", request)
    await stranger.tell("servers/books:a/request/stranger", {**request, "request_id": "2"})
    topic = "clients/stranger/responses/books:a"
    await until(lambda: stranger.read(topic))
    assert [each["call_id"] for each in stranger.read(topic)] == ["2"]
    client, other = await make_client("agent-a"), await make_client("agent-b")
    assert await soon(client.read_resource("books", "x:a")) == [{"uri": "x:a", "text": "a"}]
    assert (asked[-1].client, asked[-1].bound) == ("agent-a", True)
    with pytest.raises(CallerNotAuthorized, match="agent-b is not one of the allowed callers"):
        await soon(other.read_resource("books", "x:a"))


async def test_a_client_lists_all_pages_of_all_servers_and_reads(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    for name in ("books", "films"):
        server = make_server(name)
        library(server)
        await soon(server.start())
    await soon(make_server("plain").start())
    client = await make_client()

    async def sees_both() -> bool:
        return len(await client.list_resources()) == 6

    await becomes(sees_both)
    found = [(each["server"], each["uri"]) for each in await soon(client.list_resources())]
    assert found == [(server, f"x:{name}") for server in ("books", "films") for name in "abc"]
    assert [each["name"] for each in await soon(client.list_resources("films"))] == ["a", "b", "c"]
    assert await soon(client.list_prompts()) == []
    replica = next(card.server for card in await soon(client.list_servers()) if card.shared_name == "films")
    some = await soon(client.list_resources([replica, "plain", "flims"]))
    assert [(each["server"], each["name"]) for each in some] == [("films", name) for name in "abc"]
    assert some.missing == {"flims": "no server of this name is online"}
    assert some.incomplete == ["server flims: no server of this name is online"]
    with pytest.raises(ToolFailed) as caught:
        await soon(client.request("books", "resources/subscribe", {"uri": "x:a"}))
    assert (caught.value.code, caught.value.data) == ("-32601", [1])
    with pytest.raises(ToolUnavailable, match="plain: no online replica has resources"):
        await soon(client.list_resources("plain"))


@pytest.mark.rule("REQUEST-4")
async def test_a_request_whose_replica_is_gone_goes_to_another_one(
    strange_server: StrangeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[dict[str, Any]] = []

    def on_request(message: InboundMessage) -> None:
        got.append(json.loads(message.payload))

    topic = f"{strange_server.mcp}/servers/odd/request"
    await strange_server.connection.subscribe(topic, on_request)
    await strange_server.show(capabilities={"resources": {}})
    client = await make_client()

    async def is_seen() -> bool:
        return bool(await client.list_servers())

    await becomes(is_seen)
    with pytest.raises(CallTimeout, match="odd: no answer to resources/read in time"):
        await soon(client.read_resource("odd", "x:a", timeout=0.05))
    reading = asyncio.ensure_future(client.read_resource("odd", "x:a"))
    await until(lambda: len(got) == 2)
    answer = {"status": "ok", "result": {"contents": []}}
    await strange_server.reply({"client": client.agent_id, "call_id": got[1]["request_id"]}, **answer)
    assert await soon(reading) == []
    reading = asyncio.ensure_future(client.read_resource("odd", "x:a"))
    await until(lambda: len(got) == 3)
    await strange_server.show(status="offline")
    await strange_server.show(capabilities={"resources": {}}, started="2027-01-01T00:00:00.000Z", epoch=1)
    await until(lambda: len(got) == 4)  # the next process of the server is asked too
    monkeypatch.setattr(requests, "RETURN_WITHIN", 0.1)
    await strange_server.show(status="offline")
    with pytest.raises(ToolUnavailable, match="odd: no online replica has resources"):
        await soon(reading, 20)


@pytest.mark.rule("SCARD-9", "REQUEST-1")
async def test_a_list_says_which_servers_it_lacks(
    strange_server: StrangeServer, make_server: MakeServer, make_client: MakeClient
) -> None:
    await strange_server.show(status="offline", capabilities={"resources": {}}, unavailable="lost, nobody knows why")
    client = await make_client()

    async def lacks() -> bool:
        return bool((await client.list_tools()).incomplete)

    await becomes(lacks)
    said = ["server odd: lost, nobody knows why"]
    tools, servers = await soon(client.list_tools()), await soon(client.list_servers())
    assert (tools, tools.incomplete, servers, servers.incomplete) == ([], said, [], said)
    resources = await soon(client.list_resources())
    assert (resources, list(resources.missing)) == ([], ["odd"])
    assert resources.incomplete[0].endswith("lost, nobody knows why")
    assert (await soon(client.list_resources(["books"]))).missing == {"books": "no server of this name is online"}
    with pytest.raises(ToolUnavailable, match="odd: no online replica has resources: lost, nobody knows why"):
        await soon(client.list_resources("odd"))
    prompts = await soon(client.list_prompts())
    assert (prompts, prompts.incomplete) == ([], [])  # the server has none
    server = make_server("books")
    library(server)
    await soon(server.start())

    async def sees_three() -> bool:
        return len(await client.list_resources()) == 3

    await becomes(sees_three)
    [lacking] = (await soon(client.list_resources())).incomplete
    assert lacking.endswith("lost, nobody knows why")
    await strange_server.show(unavailable="the machine behind it is off", tools=[])

    async def says_so() -> bool:
        return (await client.list_tools()).incomplete == ["server odd: the machine behind it is off"]

    await becomes(says_so)
    await strange_server.show(status="offline")  # somebody has stopped it

    async def is_whole() -> bool:
        return not (await client.list_tools()).incomplete and not (await client.list_resources()).incomplete

    await becomes(is_whole)


@pytest.mark.rule("SCARD-9")
async def test_servers_that_never_were_hide_no_server_that_was_lost(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    """Anybody who may write cards may write many of them, with names that come before all others."""
    client = await make_client()
    await strange_server.show(capabilities={"resources": {}})

    async def sees_it() -> bool:
        return bool(await client.list_servers())

    await becomes(sees_it)
    lost: dict[str, Any] = {"status": "offline", "unavailable": "lost", "capabilities": {"resources": {}}}
    for number in range(30):
        server = f"a{number}"
        await strange_server.tell(f"servers/{server}/card", {"server": server, "tools": ["x"], **lost}, retain=True)
    await strange_server.show(**lost, tools=["x"])

    async def lacks_all() -> bool:
        return len((await client.list_tools()).incomplete) == 31

    await becomes(lacks_all)
    for listed in (await soon(client.list_tools()), await soon(client.list_servers())):
        assert listed.incomplete[0] == "server odd: lost"
        assert first_few(listed.incomplete)[0] == "server odd: lost"
        assert first_few(listed.incomplete)[-1] == "and 12 more"
    assert "odd" in (await soon(client.list_resources(["odd"], timeout=0.1))).missing


async def test_a_server_that_lets_a_client_read_nothing_is_not_missing_in_a_list(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, open_to_all = make_server("secret"), make_server("books")
    library(secret, allowed_callers=["agent-b"])
    library(open_to_all)
    await soon(secret.start())
    await soon(open_to_all.start())
    client = await make_client("agent-a")

    async def sees_both() -> bool:
        return len(await client.list_servers()) == 2

    await becomes(sees_both)
    listed = await soon(client.list_resources())
    assert ({each["server"] for each in listed}, listed.incomplete) == ({"books"}, [])
    publish = client.connection.publish

    async def deny(topic: str, *args: Any, **options: Any) -> Any:
        if "servers/secret:" in topic:
            raise TopicNotAuthorized("the broker does not allow it", topic=topic)
        return await publish(topic, *args, **options)

    monkeypatch.setattr(client.connection, "publish", deny)
    listed = await soon(client.list_resources())
    assert ({each["server"] for each in listed}, listed.incomplete) == ({"books"}, [])


@pytest.mark.rule("SCARD-9")
async def test_the_tools_of_an_agent_that_was_lost_are_missing_in_a_list(
    stranger: Stranger, make_client: MakeClient
) -> None:
    await stranger.tell("servers/odd/card", {"server": "odd", "tools": ["strange"], "agent": "host"}, retain=True)
    await stranger.tell("tools/strange/card", {"tool": "strange", "server": "odd"}, retain=True)
    lost = {"name": "host", "status": "offline"}
    topic = f"{stranger.mcp.removesuffix('/mcp')}/agents/host/status"
    await stranger.connection.publish(topic, json.dumps(lost).encode(), retain=True)
    client = await make_client()

    async def lacks() -> bool:
        listed = await client.list_tools()
        return not listed and listed.incomplete == [
            "server odd: agent host, whose connection the server uses, is offline"
        ]

    await becomes(lacks)
