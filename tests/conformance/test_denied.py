"""A right that is missing at the broker is told: with an error to the one who waits, or else with one warning."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from brokers import Ejabberd, Mosquitto
from mqtt_agent import Agent, Connection, MemoryStore, TaskContext, ToolClient, ToolContext, ToolServer
from mqtt_agent.aio.seen import Seen
from mqtt_agent.errors import TopicNotAuthorized
from mqtt_agent.transport import Will, denials
from support import soon, until

MakeMosquitto = Callable[..., Mosquitto]


@pytest.fixture(autouse=True)
def nothing_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "_told", Seen(1000))


def with_rights(make_mosquitto: MakeMosquitto, *denied: str, bound: str = "prefer") -> dict[str, Any]:
    """A Mosquitto that allows everything but some topics, as lines such as ``deny ns/#`` of an acl_file."""
    acl = "\n".join(["topic readwrite #", *(f"topic deny {each}" for each in denied)])
    broker = make_mosquitto(["acl_file {folder}/acl"], files={"acl": acl})
    return {"broker": broker.url, "namespace": "ns", "bound": bound}


def warnings(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return [record.getMessage() for record in records if words in record.getMessage()]


def streaming_server(where: dict[str, Any]) -> ToolServer:
    server = ToolServer("server", **where)

    @server.tool
    async def crawl(ctx: ToolContext) -> str:
        for number in range(3):
            await ctx.stream(number)
        return "done"

    @server.tool
    async def hang(ctx: ToolContext) -> None:
        await asyncio.Event().wait()

    return server


@pytest.fixture(params=["off", "prefer", "require"])
def bound(request: pytest.FixtureRequest) -> str:
    """Which topics the endpoints use; only with ``"off"`` the plain topics."""
    return request.param


async def test_denied_partial_results_are_told_once(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture, bound: str
) -> None:
    where = with_rights(make_mosquitto, "ns/mcp/tools/+/stream/+", "ns/mcp/clients/+/stream/+/+", bound=bound)
    server = streaming_server(where)
    async with server, ToolClient("client", **where) as client:
        for _ in range(2):
            assert await soon(client.call("crawl", on_partial=print)) == "done"
    [told] = warnings(caplog, "the partial results of tool 'crawl'")
    assert told.startswith("the broker does not let this client publish")
    topic = "ns/mcp/tools/crawl/stream/" if bound == "off" else f"ns/mcp/clients/client/stream/{server.server_id}/"
    assert f" to {topic}" in told


async def test_denied_events_are_told_once(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture, bound: str
) -> None:
    where = with_rights(make_mosquitto, "ns/tasks/+/events", "ns/tasks/+/events/+/+", bound=bound)
    worker = Agent("worker", store=MemoryStore(), **where)

    @worker.on_task
    async def work(task: TaskContext) -> str:
        await task.progress(0.5)
        return "done"

    task_ids: list[str] = []
    async with worker, Agent("boss", store=MemoryStore(), **where) as boss:
        for _ in range(2):
            handle = await soon(boss.delegate("worker", "go"))
            task_ids.append(handle.task_id)
            assert await soon(handle.result()) == "done"
    [told] = warnings(caplog, "the events of its tasks")
    topic = "ns/tasks/{}/events" if bound == "off" else "ns/tasks/boss/events/worker/{}"
    assert f" to {topic.format(task_ids[0])}, so" in told


async def test_a_denied_cancel_is_told_once(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture, bound: str
) -> None:
    where = with_rights(make_mosquitto, "ns/mcp/tools/+/cancel", "ns/mcp/tools/+/cancel/+", bound=bound)
    server = streaming_server(where)
    async with server, ToolClient("client", **where) as client:
        for _ in range(2):
            handle = await soon(client.submit("hang"))
            await handle.cancel()
        await until(lambda: warnings(caplog, "its cancels of calls"))
        server._drain_timeout = 0.1
    [told] = warnings(caplog, "its cancels of calls")
    topic = "ns/mcp/tools/hang/cancel" if bound == "off" else "ns/mcp/tools/hang/cancel/client"
    assert f" to {topic}, so" in told


@pytest.mark.parametrize("who", ["server", "client", "agent"])
async def test_an_endpoint_that_may_not_read_its_topics_says_so_once(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture, who: str
) -> None:
    topics = {"server": "ns/mcp/servers/+/query", "client": "ns/mcp/clients/+/responses", "agent": "ns/tasks/+/control"}
    open_to_all = ["ns/mcp/tools/#", "ns/mcp/servers/+/card", "ns/agents/#", *topics.values()]
    open_to_all.remove(topics[who])
    acl = "\n".join([f"topic write {topics[who]}", *(f"topic readwrite {each}" for each in open_to_all)])
    broker = make_mosquitto(["acl_file {folder}/acl"], files={"acl": acl})
    where: Any = {"broker": broker.url, "namespace": "ns"}
    if who == "server":
        server = streaming_server(where)
        await soon(server.start(), 20)
        await soon(server.stop(), 20)
    elif who == "client":
        async with ToolClient("me", **where) as client:
            await soon(client.list_tools(), 20)
    else:
        async with Agent("me", store=MemoryStore(), **where) as agent:
            await soon(agent.peers(), 20)
    [told] = warnings(caplog, "does not get its own messages on")
    assert topics[who].split("/+/")[0] in told
    assert "access rules" in told


# ejabberd denies with other reason codes


class Guarded(Ejabberd):
    """An ejabberd that lets clients publish on ``open/#`` only."""

    def prepare(self) -> None:
        super().prepare()
        path = self.folder / "ejabberd.yml"
        config = json.loads(path.read_text())
        config["modules"]["mod_mqtt"] = {"access_publish": {"open/#": [{"allow": "all"}], "#": [{"deny": "all"}]}}
        path.write_text(json.dumps(config))


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    if missing := Guarded.missing():
        pytest.skip(missing)
    with Guarded() as broker:
        yield broker


async def test_a_denied_message_and_a_denied_will_are_the_same_error_at_ejabberd(guarded: Guarded) -> None:
    connection = Connection(guarded.url)
    await soon(connection.start())
    await soon(connection.publish("open/t", b"x"))
    with pytest.raises(TopicNotAuthorized, match="does not let this client publish to closed/t"):
        await soon(connection.publish("closed/t", b"x"))
    await soon(connection.stop())
    connection = Connection(guarded.url)
    connection.claim_will(Will("closed/will", lambda: b"gone"))
    with pytest.raises(TopicNotAuthorized, match="does not let this client have a Last Will on closed/will"):
        await soon(connection.start())
