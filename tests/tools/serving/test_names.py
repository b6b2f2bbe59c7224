"""Two server names, one tool name: exactly one of the servers takes the calls, and everybody is told."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import Connection, ToolClient, ToolServer
from mqtt_agent.errors import ToolNameTaken, ToolUnavailable
from mqtt_agent.tools.serving.server import ToolServer as AsyncToolServer
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import ServerCard
from support import becomes, soon

from ..conftest import MakeClient, MakeServer

RUN_ON = ALL_BROKERS


def offering(make_server: MakeServer, name: str, *tools: str, **options: Any) -> ToolServer:
    """A server whose tools return the server's name."""
    server = make_server(name, **options)

    def add(tool: str) -> None:
        server.add_tool(tool, lambda: name)

    for tool in tools:
        add(tool)
    return server


async def card_of(client: ToolClient, server: ToolServer) -> ServerCard | None:
    cards = {card.server: card for card in await client.list_servers(online_only=False)}
    return cards.get(server.server_id)


async def lists(client: ToolClient, server: ToolServer, tools: list[str], refused: list[str] | None = None) -> None:
    """Wait until a server's card lists exactly these tools, and refuses exactly these."""

    async def so() -> bool:
        card = await card_of(client, server)
        return card is not None and (sorted(card.tools), card.refused) == (tools, refused) and card.claims is None

    await becomes(so, 20)


async def retained(broker: Broker, namespace: str) -> dict[str, bytes]:
    """All cards that the broker keeps in the namespace."""
    found: dict[str, bytes] = {}

    def keep(message: InboundMessage) -> None:
        found[message.topic] = message.payload

    connection = Connection(broker.url)
    await connection.start()
    end = asyncio.Event()
    await connection.subscribe(f"{namespace}/mcp/+/+/card", keep, qos=0, snapshot=True)
    await connection.subscribe(f"{namespace}/end", lambda _: end.set())
    await connection.publish(f"{namespace}/end", b"end")
    await soon(end.wait())
    await connection.stop(end_session=True)
    return {topic: payload for topic, payload in found.items() if payload}


async def test_a_second_server_name_is_refused_and_leaves_nothing_behind(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    github = offering(make_server, "github", "search", "issues")
    await soon(github.start())
    before = await retained(broker, namespace)
    jira = offering(make_server, "jira", "search", "tickets")
    with pytest.raises(ToolNameTaken, match="'jira' cannot offer this tool, because server 'github'") as caught:
        await soon(jira.start())
    assert (caught.value.tool, caught.value.server, caught.value.owner) == ("search", "jira", "github")
    assert "prefix=True" in str(caught.value)
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "'jira'" in r.getMessage()]
    assert len(told) == 1
    assert not jira.connection.started
    assert await retained(broker, namespace) == before
    client = await make_client()
    assert {await soon(client.call("search")) for _ in range(20)} == {"github"}
    await soon(github.stop(), 20)
    await soon(jira.start(), 20)
    assert await soon(client.call("search", wait_online=True)) == "jira"


@pytest.mark.rule("OWN-8")
async def test_a_server_on_standby_serves_its_other_tools_and_takes_over(
    broker: Broker, make_server: MakeServer, make_client: MakeClient
) -> None:
    github = offering(make_server, "github", "search", "issues", will_delay=20)
    await soon(github.start())
    jira = offering(make_server, "jira", "search", "tickets", on_conflict="standby", will_delay=20)
    await soon(jira.start())
    client = await make_client()
    await lists(client, jira, ["tickets"], ["search"])
    assert {await soon(client.call("search")) for _ in range(20)} == {"github"}
    assert await soon(client.call("tickets")) == "jira"
    results: list[str] = []
    stop = asyncio.Event()

    async def keep_calling() -> None:
        while results[-20:].count("jira") < 20:
            try:
                results.append(await client.call("search"))
            except ToolUnavailable as error:
                # The broker confirms and drops a call without a subscriber, as if a server had got it. At the embedded
                # broker, a stopping server also gets calls that it cannot answer.
                assert not broker.says_unheard
                assert stop.is_set(), "no call fails before the first server stops"
                assert error.maybe_executed
            if len(results) == 20:
                stop.set()

    calling = asyncio.ensure_future(keep_calling())
    await soon(stop.wait())
    await soon(github.stop(), 20)
    await soon(calling, 20)
    assert results == sorted(results), "each server has its calls in one piece"
    await lists(client, jira, ["search", "tickets"])
    [card] = [card for card in await client.list_tools() if card.tool == "search"]
    assert (card.server, card.also_offered_by) == ("jira", [])


@pytest.mark.parametrize("on_conflict", ["standby", "raise"])
async def test_of_servers_that_start_in_the_same_moment_exactly_one_serves(
    on_conflict: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    client = await make_client()
    for turn in range(6):
        tools = [f"{turn}-{tool}" for tool in ("search", "read", "write")]
        servers = [offering(make_server, f"server-{n}-{turn}", *tools, on_conflict=on_conflict) for n in range(4)]
        started = await soon(asyncio.gather(*(s.start() for s in servers), return_exceptions=True), 40)
        for tool in tools:
            found = await soon(asyncio.gather(*(client.call(tool, wait_online=True) for _ in range(12))), 20)
            assert len(set(found)) == 1, found
        if on_conflict == "raise":
            assert Counter(map(type, started)) == Counter({ToolNameTaken: 3, type(None): 1}), started
        else:
            assert started == [None] * 4
        for server in servers:
            await soon(server.stop(), 20)


async def test_replicas_of_one_name_share_the_calls_as_before(make_server: MakeServer, make_client: MakeClient) -> None:
    replicas = [offering(make_server, "github", "search") for _ in range(3)]
    await soon(asyncio.gather(*(replica.start() for replica in replicas)), 20)
    client = await make_client()
    assert {await soon(client.call("search", wait_online=True)) for _ in range(30)} == {"github"}


async def test_a_tool_that_is_added_to_a_started_server_is_refused_too(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    github = offering(make_server, "github", "search")
    jira, wiki = make_server("jira"), make_server("wiki", on_conflict="standby")
    for server in (github, jira, wiki):
        await soon(server.start())
    with pytest.raises(ToolNameTaken):
        await soon(jira.add_tool("search", lambda: "jira"))
    assert jira.tools == []
    await soon(jira.add_tool("tickets", lambda: "jira"))
    await soon(wiki.add_tool("search", lambda: "wiki"))
    client = await make_client()
    await lists(client, jira, ["tickets"])
    await lists(client, wiki, [], ["search"])
    assert {await soon(client.call("search")) for _ in range(20)} == {"github"}
    await soon(github.stop(), 20)
    await lists(client, wiki, ["search"])
    assert await soon(client.call("search")) == "wiki"


@pytest.mark.rule("OWN-7")
async def test_two_servers_that_both_have_a_name_settle_who_keeps_it(
    broker: Broker,
    namespace: str,
    make_server: MakeServer,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second server sees no card of the first: the broker has lost its retained messages, and has split."""
    github = offering(make_server, "github", "search")
    await soon(github.start())
    jira = offering(make_server, "jira", "search", "tickets")

    async def see_nothing(*_: Any) -> dict[str, Any]:
        return {}

    blind = jira._names  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(type(blind), "_taken", see_nothing)
    await soon(jira.start())
    monkeypatch.undo()
    client = await make_client()
    await lists(client, jira, ["tickets"], ["search"])
    await lists(client, github, ["search"])
    assert {await soon(client.call("search")) for _ in range(20)} == {"github"}
    assert any("both serve tool 'search'" in r.getMessage() for r in caplog.records)


async def test_a_prefix_keeps_the_names_apart(make_server: MakeServer, make_client: MakeClient) -> None:
    github = offering(make_server, "github", "search", prefix=True)
    jira = offering(make_server, "jira", "search", prefix="ji.")
    wiki = offering(make_server, "wiki", "search")
    for server in (github, jira, wiki):
        await soon(server.start())
    client = await make_client()
    for tool, server in (("github_search", "github"), ("ji.search", "jira"), ("search", "wiki")):
        assert await soon(client.call(tool, wait_online=True)) == server
    assert [card.tool for card in github.tools] == ["github_search"]


def test_on_conflict_has_two_values(broker: Broker, namespace: str) -> None:
    with pytest.raises(ValueError, match="'raise' or 'standby', not 'replace'"):
        AsyncToolServer("jira", broker=broker.url, namespace=namespace, on_conflict="replace")  # type: ignore[arg-type]
