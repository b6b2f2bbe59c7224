"""Changes of resources and prompts, as an independent peer asks for them and tells them, and between our endpoints."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from brokers import ALL_BROKERS
from mqtt_agent import ToolServer
from mqtt_agent.errors import CallerNotAuthorized
from mqtt_agent.tools import ServerChange, ServerRequest
from support import soon, until

from ..tools.conftest import MakeClient, MakeServer
from .stranger import Stranger, StrangeServer

RUN_ON = ALL_BROKERS
TELLS = {"resources": {"listChanged": True, "subscribe": True}, "prompts": {}}
LISTEN = "subscriptions/listen"
RESOURCES = "notifications/resources/list_changed"
UPDATED = "notifications/resources/updated"
EVENTS = "servers/books:a/events/stranger"


def library(server: ToolServer, **options: Any) -> list[ServerRequest]:
    """Let a server tell everything that a client asks for; returns its requests."""
    asked: list[ServerRequest] = []

    async def answer(request: ServerRequest) -> Any:
        asked.append(request)
        return request.params

    server.answer_requests(answer, TELLS, **options)
    return asked


def listen(request_id: str, listener: str = "1", **notifications: Any) -> dict[str, Any]:
    params = {"listener": listener, "notifications": notifications}
    return {"request_id": request_id, "method": LISTEN, "params": params, "client": "stranger"}


@pytest.mark.rule("TOPIC-11", "EVENTS-1", "EVENTS-3")
async def test_a_server_tells_a_client_what_the_client_has_asked_for_and_nothing_else(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("books", replica="a")
    library(server)
    await soon(server.start())
    await stranger.listen(EVENTS)
    await stranger.tell("servers/books:a/request", listen("1", resourcesListChanged=True, other=True))
    assert (await stranger.answer("1"))["result"] == {"notifications": {"resourcesListChanged": True}, "seconds": 180.0}
    await soon(server.tell_change("notifications/prompts/list_changed"))
    await soon(server.tell_change(UPDATED, {"uri": "x:a"}))
    await soon(server.tell_change(RESOURCES))
    await until(lambda: stranger.read(EVENTS))
    assert stranger.read(EVENTS) == [{"server": "books:a", "method": RESOURCES}]
    assert not stranger.on(EVENTS)[0].retain
    await stranger.tell("servers/books:a/request", listen("2", resourceSubscriptions=["x:a"]))
    await stranger.tell("servers/books:a/request", listen("3", "2", promptsListChanged=True))
    await stranger.answer("3")
    await soon(server.tell_change(RESOURCES))
    await soon(server.tell_change(UPDATED, {"uri": "x:b"}))
    await soon(server.tell_change(UPDATED, {"uri": "x:a"}))
    await soon(server.tell_change("notifications/prompts/list_changed"))
    await until(lambda: len(stranger.read(EVENTS)) == 3)
    assert stranger.read(EVENTS)[1:] == [
        {"server": "books:a", "method": UPDATED, "params": {"uri": "x:a"}},
        {"server": "books:a", "method": "notifications/prompts/list_changed"},
    ]


@pytest.mark.rule("EVENTS-2")
async def test_nobody_listens_who_may_not_read_and_nobody_ends_what_a_proven_client_has_asked_for(
    stranger: Stranger, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("books", replica="a")
    asked = library(server, allowed_callers=["agent-a", "stranger"])
    await soon(server.start())
    await stranger.listen(EVENTS)
    await stranger.listen("clients/stranger/responses/+")
    await stranger.tell("servers/books:a/request/stranger", listen("1", resourcesListChanged=True))
    await until(lambda: stranger.read("clients/stranger/responses/books:a"))
    await stranger.tell("servers/books:a/request", listen("2"))  # anybody could have sent it, for nothing at all
    await stranger.answer("2")
    await soon(server.tell_change(RESOURCES))
    await until(lambda: stranger.read(EVENTS))
    client, other = await make_client("agent-a"), await make_client("agent-b")
    assert await soon(client.watch_changes().subscribe("books", "x:a"))
    assert not await soon(other.watch_changes().subscribe("books", "x:a"))
    with pytest.raises(CallerNotAuthorized):
        await soon(other.read_resource("books", "x:a"))
    assert {each.client for each in asked} == {"stranger", "agent-a"}


async def test_a_client_asks_a_replica_again_that_has_restarted(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    client = await make_client("agent-a")
    changes = client.watch_changes({"books": ["x:a"]})
    for _ in range(2):
        server = make_server("books", replica="a")
        asked = library(server)
        await soon(server.start())
        await until(
            lambda asked=asked: [each for each in asked if "resourceSubscriptions" in each.params["notifications"]]
        )
        await soon(server.tell_change(UPDATED, {"uri": "x:a"}))
        while (await soon(changes.__anext__())) != ServerChange("books", UPDATED, {"uri": "x:a"}):
            pass
        await soon(server.stop())


@pytest.mark.rule("EVENTS-1")
async def test_a_client_asks_again_before_the_server_forgets_it(
    strange_server: StrangeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_agent.tools.calling.listening._SHORTEST", 0.02)
    got: list[dict[str, Any]] = []
    topic = f"{strange_server.mcp}/servers/odd/request"
    await strange_server.connection.subscribe(topic, lambda message: got.append(json.loads(message.payload)))
    await strange_server.show(capabilities=TELLS, started="2026-01-01T00:00:00.000Z", epoch=1)
    client = await make_client("agent-a")
    changes = client.watch_changes()
    for times, seconds in enumerate([0.1, 0, 10**300], 1):
        await until(lambda times=times: len(got) == times)
        request = {"client": client.agent_id, "call_id": got[-1]["request_id"]}
        result = {"notifications": got[-1]["params"]["notifications"], "seconds": seconds}
        await strange_server.reply(request, status="ok", result=result)
    changes.close()


async def test_a_client_believes_only_events_of_the_server_in_the_topic_and_of_what_it_wants(
    strange_server: StrangeServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[Any] = []
    await strange_server.connection.subscribe(f"{strange_server.mcp}/servers/odd/request", got.append)
    await strange_server.show(capabilities=TELLS, started="2026-01-01T00:00:00.000Z", epoch=1)
    client = await make_client("agent-a")
    changes = client.watch_changes({"odd": ["x:a"]})
    await until(lambda: got)
    topic = "servers/odd/events/agent-a"
    await strange_server.tell(topic, {"server": "other", "method": RESOURCES})
    await strange_server.tell(topic, {"method": RESOURCES})
    await strange_server.tell(topic, {"server": "odd", "method": UPDATED, "params": {"uri": "x:b"}})
    await strange_server.tell(topic, {"server": "odd", "method": "notifications/other"})
    await strange_server.tell(topic, {"server": "odd", "method": "notifications/other", "params": {"uri": "x:a"}})
    await strange_server.tell(topic, {"server": "odd", "method": UPDATED, "params": {"uri": ["x:a"]}})
    await strange_server.tell(topic, {"server": "odd", "method": UPDATED, "params": {"uri": "x:a"}})
    assert await soon(changes.__anext__()) == ServerChange("odd", UPDATED, {"uri": "x:a"})
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.rule("EVENTS-2")
async def test_what_clients_ask_for_has_a_limit_and_a_client_that_proves_its_name_goes_first(
    stranger: Stranger, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_agent.tools.serving.listeners._MOST", 1)
    monkeypatch.setattr("mqtt_agent.tools.serving.listeners._MOST_CHARACTERS", 5, raising=False)
    server = make_server("books", replica="a")
    library(server)
    await soon(server.start())
    await stranger.listen("clients/stranger/responses/+")
    for request_id, uri, told in (("1", "x:a", ["x:a"]), ("2", "x:b", None), ("1", "x:c", ["x:c"])):
        await stranger.tell(
            "servers/books:a/request", listen(f"{request_id}{uri}", request_id, resourceSubscriptions=[uri])
        )
        answer = await stranger.answer(f"{request_id}{uri}")
        assert answer["result"]["notifications"].get("resourceSubscriptions") == told
    await stranger.tell("servers/books:a/request/stranger", listen("3", resourceSubscriptions=["x:d"]))
    await until(lambda: stranger.read("clients/stranger/responses/books:a"))
    [answer] = stranger.read("clients/stranger/responses/books:a")
    assert answer["result"]["notifications"] == {"resourceSubscriptions": ["x:d"]}


async def test_a_reader_that_begins_while_the_last_one_ends_is_told_of_changes(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("books", replica="a")
    asked = library(server)
    await soon(server.start())
    client = await make_client("agent-a")

    def is_asked_for(uri: str) -> bool:
        return any(uri in each.params["notifications"].get("resourceSubscriptions", ()) for each in asked)

    for turns in range(12):
        changes = client.watch_changes({"books": [f"x:{turns}"]})
        await until(lambda turns=turns: is_asked_for(f"x:{turns}"))
        changes.close()
        for _ in range(turns):  # the end takes some turns of the event loop, and a message to the broker and back
            await asyncio.sleep(0)
