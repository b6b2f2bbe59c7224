"""Servers of several names, and of several versions, in their own processes: killed, started at once, deployed."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.errors import InvalidArguments, ToolUnavailable
from skips import inapplicable
from support import becomes, soon

from .conftest import MakeClient, MakeServer, Process, SpawnNamed
from .naming import callers, serving, waiting

RUN_ON = ALL_BROKERS


async def test_a_killed_owner_is_replaced_by_the_server_on_standby(
    broker: Broker, spawn_named: SpawnNamed, make_client: MakeClient
) -> None:
    client = await make_client()
    github = spawn_named("github", "search")
    await serving(client, "search", "github")
    spawn_named("jira", "search", "tickets")
    await waiting(client, "search", "jira")
    assert await soon(callers(client, "search")) == {"github"}
    assert await soon(callers(client, "tickets")) == {"jira"}
    os.kill(github.pid, signal.SIGKILL)
    await serving(client, "search", "jira")
    if not broker.frees_groups:  # the broker drops the share of the dead server, so nobody knows whether it runs
        await _each_is_answered_or_told(client, "search", "jira")
        return
    assert await soon(callers(client, "search")) == {"jira"}
    spawn_named("github", "search", "issues")
    await waiting(client, "search", "github")
    assert await soon(callers(client, "search")) == {"jira"}, "who serves goes on"
    assert await soon(callers(client, "issues")) == {"github"}


async def _each_is_answered_or_told(client: ToolClient, tool: str, server: str) -> None:
    calls = (client.call(tool, {"n": n}, wait_online=True) for n in range(20))
    for outcome in await soon(asyncio.gather(*calls, return_exceptions=True), 40):
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, ToolUnavailable)
            assert outcome.maybe_executed
        else:
            assert outcome["server"] == server


@pytest.mark.rule("OWN-6")
async def test_after_a_broker_that_lost_its_cards_exactly_one_server_serves(own_broker: Broker, namespace: str) -> None:
    def server(name: str, **options: Any) -> ToolServer:
        made = ToolServer(name, broker=own_broker.url, namespace=namespace, will_delay=1, **options)
        made.add_tool("search", lambda n: {"server": name, "arguments": {"n": n}})
        return made

    async with server("github"), server("jira", on_conflict="standby"):
        async with ToolClient(broker=own_broker.url, namespace=namespace) as client:
            await waiting(client, "search", "jira")
            for _ in range(2):
                await asyncio.to_thread(own_broker.restart, keep_state=False, kill=True)
                await serving(client, "search", "github")
                assert await soon(callers(client, "search"), 30) == {"github"}
                await waiting(client, "search", "jira")


async def test_during_a_rolling_deployment_each_call_reaches_a_replica_that_it_fits(
    spawn_named: SpawnNamed, make_client: MakeClient
) -> None:
    """Two replicas take the argument ``old``. Two others take ``new`` and replace them, and are then rolled back."""
    client = await make_client("caller")
    sent = 0

    async def keep_calling(argument: str, until: asyncio.Event) -> int:
        """Call with an argument that only some of the replicas take; every call must succeed."""
        nonlocal sent
        count = 0
        while not until.is_set():
            sent += 1
            result = await client.call("work", {argument: sent}, timeout=20, wait_online=True)
            assert list(result["arguments"]) == [argument]
            count += 1
        return count

    async def deploy(before: str, after: str, running: list[Process]) -> list[Process]:
        leaving, ending = asyncio.Event(), asyncio.Event()
        calls = [asyncio.ensure_future(keep_calling(before, leaving)) for _ in range(4)]
        started = [spawn_named("shop", "work", schema=after)]
        await serving(client, "work", *["shop"] * 3)
        calls += [asyncio.ensure_future(keep_calling(after, ending)) for _ in range(4)]
        started.append(spawn_named("shop", "work", schema=after))
        await serving(client, "work", *["shop"] * 4)
        running[0].send_signal(signal.SIGTERM)
        await serving(client, "work", *["shop"] * 3)
        leaving.set()
        assert min(await soon(asyncio.gather(*calls[:4]), 30)) > 0
        running[1].send_signal(signal.SIGTERM)
        await serving(client, "work", *["shop"] * 2)
        ending.set()
        assert min(await soon(asyncio.gather(*calls[4:]), 30)) > 0
        return started

    async def shows(argument: str) -> bool:
        return [list(card.input_schema["properties"]) for card in await client.list_tools()] == [[argument]]

    if not client.connection.shared_subscriptions:
        inapplicable("only one replica serves at this broker, so only its schema is there")
    old = [spawn_named("shop", "work", schema="old") for _ in range(2)]
    await serving(client, "work", "shop", "shop")
    new = await deploy("old", "new", old)
    await becomes(lambda: shows("new"), 30)
    with pytest.raises(InvalidArguments):
        await client.call("work", {"old": 0})
    await deploy("new", "old", new)
    await becomes(lambda: shows("old"))
    with pytest.raises(InvalidArguments):
        await client.call("work", {"new": 0})


async def test_the_card_of_a_tool_is_that_of_the_replicas_that_are_left(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    """A new version was tried in one replica and is stopped: the tool list has the old schema again."""
    client = await make_client()

    async def shows(argument: str) -> bool:
        return [list(card.input_schema["properties"]) for card in await client.list_tools()] == [[argument]]

    servers: dict[str, ToolServer] = {}
    for argument in ("old", "new"):
        servers[argument] = server = make_server("shop")
        schema = {"type": "object", "properties": {argument: {"type": "integer"}}}
        server.add_tool("work", lambda **arguments: arguments, input_schema=schema)
        await soon(server.start())
        if client.connection.shared_subscriptions or argument == "old":
            await becomes(lambda: shows(argument))  # noqa: B023
    await soon(servers["new"].stop(), 20)
    await becomes(lambda: shows("old"))
