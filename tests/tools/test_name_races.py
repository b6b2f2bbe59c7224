"""Servers of two names that start in the same moment, and a name whose owner is dead but looks online."""

from __future__ import annotations

import asyncio
import json

import pytest
from brokers import Broker, Ejabberd, Mosquitto
from mqtt_agent import Connection
from support import soon

from .conftest import MakeClient, MakeServer, Process, SpawnNamed
from .naming import callers, serving, waiting

RUN_ON = [Mosquitto, Ejabberd]


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await soon(asyncio.to_thread(process.stdout.readline), 60)).decode().strip()


@pytest.mark.rule("OWN-3", "OWN-4")
@pytest.mark.parametrize("on_conflict", ["standby", "raise"])
async def test_of_two_processes_that_start_at_once_exactly_one_serves(
    on_conflict: str, spawn_named: SpawnNamed, make_client: MakeClient
) -> None:
    """Twenty times: each tool has two servers of its own, which start in the same moment."""
    client = await make_client()
    tools = [f"search-{turn}" for turn in range(20)]
    processes = [spawn_named(name, *tools, on_conflict=on_conflict, schema="each") for name in ("github", "jira")]
    assert [await line(process) for process in processes] == ["ready", "ready"]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b".")
        process.stdin.flush()
    outcomes = [(await line(process)).split() for process in processes]
    for turn, tool in enumerate(tools):
        names = {f"github-{tool}", f"jira-{tool}"}
        found = await soon(callers(client, tool), 25)
        assert len(found) == 1
        await serving(client, tool, *found)
        both = sorted(each[turn] for each in outcomes)
        if on_conflict == "raise":
            assert both == ["NoneType", "ToolNameTaken"]
        else:
            assert both == ["NoneType", "NoneType"]
            await waiting(client, tool, *(names - found))


@pytest.mark.rule("OWN-5")
async def test_a_dead_owner_does_not_lock_the_name(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    """The broker was killed together with the owner, so it has sent no Last Will."""
    connection = Connection(broker.url)
    await connection.start()
    card = {"server": "github:dead", "name": "github", "tools": ["search"], "status": "online", "features": ["query"]}
    tool = {"tool": "search", "server": "github", "status": "online"}
    for topic, content in ((f"servers/{card['server']}", card), ("tools/search", tool)):
        payload = json.dumps({**content, "started": "2026-01-01T00:00:00.000Z", "epoch": 1}).encode()
        await connection.publish(f"{namespace}/mcp/{topic}/card", payload, retain=True)
    jira = make_server("jira")
    jira.add_tool("search", lambda: "jira")
    await soon(jira.start(), 20)
    client = await make_client()
    assert await soon(client.call("search")) == "jira"
    await connection.publish(f"{namespace}/mcp/servers/{card['server']}/card", b"", retain=True)
    await connection.stop(end_session=True)
