"""Servers of two names that start in the same moment, and a name whose owner is dead but looks online."""

from __future__ import annotations

import asyncio
import json

from brokers import Broker, Ejabberd, Mosquitto
from mqtt_agent import Connection
from support import kill, soon

from .conftest import MakeClient, MakeServer, SpawnNamed
from .naming import callers, serving, waiting

RUN_ON = [Mosquitto, Ejabberd]


async def test_of_two_processes_that_start_at_once_exactly_one_serves(
    spawn_named: SpawnNamed, make_client: MakeClient
) -> None:
    client = await make_client()
    for turn in range(20):
        tool = f"search-{turn}"
        on_conflict = "raise" if turn % 2 else "standby"
        processes = [spawn_named(name, tool, on_conflict=on_conflict) for name in ("github", "jira")]
        found = await soon(callers(client, tool), 25)
        assert len(found) == 1
        await serving(client, tool, *found)
        if on_conflict == "raise":
            codes = [process.poll() for process in processes]
            while None not in codes or 3 not in codes:
                await asyncio.sleep(0.01)
                codes = [process.poll() for process in processes]
        else:
            await waiting(client, tool, *({"github", "jira"} - found))
        for process in processes:
            kill(process)


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
