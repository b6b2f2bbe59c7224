"""Sender-bound topics between our endpoints and peers that follow only docs/wire-format.md."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker, Mosquitto, password_line
from mqtt_agent import Agent, Password, ToolClient, ToolContext, ToolServer
from mqtt_agent.errors import CallCanceled, CallerNotAuthorized, ToolFailed, ToolUnavailable
from mqtt_agent.transport import PublishProperties
from proxy import Proxy
from support import becomes, soon, until

from .stranger import NOW, Stranger, StrangeServer

RUN_ON = ALL_BROKERS
MakeServer = Callable[..., ToolServer]
MakeClient = Callable[..., Awaitable[ToolClient]]


def serve(server: ToolServer) -> list[tuple[str, bool, Any]]:
    """Offer the tools ``work`` and ``wait``; returns the caller, ``ctx.bound`` and the argument of each call."""
    ran: list[tuple[str, bool, Any]] = []

    async def work(ctx: ToolContext, n: int = 0) -> int:
        ran.append((ctx.client, ctx.bound, n))
        await ctx.stream("busy")
        return n

    async def wait(ctx: ToolContext) -> None:
        ran.append((ctx.client, ctx.bound, "wait"))
        await asyncio.Event().wait()

    server.add_tool("work", work)
    server.add_tool("wait", wait)
    return ran


async def call_bound(
    stranger: Stranger, tool: str, call_id: str, *, sender: str = "stranger", inbox: str | None = None, **fields: Any
) -> None:
    """Publish a call on the sender-bound topic of ``sender``."""
    call = {"call_id": call_id, "arguments": {}, "client": "stranger", "timestamp": NOW, **fields}
    properties = PublishProperties(response_topic=inbox, correlation_data=call_id.encode())
    await stranger.tell(f"tools/{tool}/call/{sender}", call, properties)


async def bound_answer(stranger: Stranger, server: str, call_id: str) -> dict[str, Any]:
    """Wait for a response on the sender-bound inbox of ``stranger``."""
    topic = f"clients/stranger/responses/{server}"
    await until(lambda: any(each["call_id"] == call_id for each in stranger.read(topic)))
    return next(each for each in stranger.read(topic) if each["call_id"] == call_id)


@pytest.mark.rule("BOUND-1", "BOUND-2", "BOUND-3", "BOUND-5")
async def test_a_call_on_a_bound_topic_is_answered_on_the_bound_inbox_whatever_its_response_topic_says(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("weather", replica="a")
    ran = serve(server)
    await soon(server.start())
    await stranger.listen("clients/stranger/responses/+")
    await stranger.listen("clients/stranger/stream/+/the-call")
    await stranger.listen("clients/victim/responses")
    for number, inbox in enumerate((None, stranger.inbox, f"{stranger.mcp}/clients/victim/responses")):
        await call_bound(stranger, "work", f"call-{number}", inbox=inbox, arguments={"n": number})
        answer = await bound_answer(stranger, "weather:a", f"call-{number}")
        assert (answer["result"], answer["server"]) == (number, "weather:a")
    await call_bound(stranger, "work", "the-call", stream=True)
    await bound_answer(stranger, "weather:a", "the-call")
    stream = "clients/stranger/stream/weather:a/the-call"
    await until(lambda: len(stranger.read(stream)) == 3)
    assert [each["type"] for each in stranger.read(stream)] == ["accepted", "partial", "done"]
    assert {(client, bound) for client, bound, _ in ran} == {("stranger", True)}
    assert stranger.on("clients/victim/responses") == stranger.on("clients/stranger/responses") == []


@pytest.mark.rule("BOUND-4", "BOUND-6")
async def test_a_message_that_names_another_client_than_its_topic_is_refused(
    stranger: Stranger, make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server("weather", replica="a")
    ran = serve(server)
    await soon(server.start())
    await stranger.listen("clients/+/responses/+")
    await call_bound(stranger, "work", "forged", client="victim")
    error = (await bound_answer(stranger, "weather:a", "forged"))["error"]
    assert (error["type"], error["code"]) == ("unauthorized", "WRONG_CLIENT")
    await call_bound(stranger, "wait", "mine")
    await until(lambda: ran)
    for sender, client in (("evil", "stranger"), ("evil", "evil")):
        await stranger.tell(f"tools/wait/cancel/{sender}", {"call_id": "mine", "client": client})
    await stranger.tell("tools/wait/cancel", {"call_id": "mine", "client": "stranger"})
    forged = {"query_id": "q1", "call_ids": ["mine"], "client": "stranger"}
    await stranger.tell("servers/weather:a/query/evil", forged)
    await stranger.tell("servers/weather:a/query", {**forged, "query_id": "q2"})
    await stranger.tell("servers/weather:a/query/stranger", {**forged, "query_id": "q3"})
    assert (await bound_answer(stranger, "weather:a", "q3"))["result"] == {"known": ["mine"]}
    assert (await stranger.answer("q2"))["result"] == {"known": []}, "a plain query knows nothing of bound calls"
    assert ran == [("stranger", True, "wait")]
    told = [each.getMessage() for each in caplog.records if "in the name of another client" in each.getMessage()]
    assert len(told) == 3
    topics = {message.topic for message in stranger.seen if "/responses/" in message.topic}
    assert topics == {f"{stranger.mcp}/clients/stranger/responses/weather:a"}
    await stranger.tell("tools/wait/cancel/stranger", {"call_id": "mine", "client": "stranger"})
    assert (await bound_answer(stranger, "weather:a", "mine"))["error"]["code"] == "CANCELED"


@pytest.mark.rule("BOUND-6")
async def test_a_plain_call_with_the_id_of_a_bound_call_is_another_call(
    stranger: Stranger, make_server: MakeServer
) -> None:
    server = make_server("weather", replica="a")
    ran = serve(server)
    await soon(server.start())
    await stranger.listen("clients/stranger/responses/+")
    await stranger.call("work", "one", arguments={"n": 1})
    assert (await stranger.answer("one"))["result"] == 1
    await call_bound(stranger, "work", "one", arguments={"n": 2})
    assert (await bound_answer(stranger, "weather:a", "one"))["result"] == 2
    assert ran == [("stranger", False, 1), ("stranger", True, 2)]


@pytest.mark.rule("BOUND-7")
async def test_the_allowed_callers_of_a_tool_are_enforced_on_bound_topics(
    stranger: Stranger, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("weather", replica="a")
    server.add_tool("secret", lambda: "told", allowed_callers=["agent-a", "hinted"])
    await soon(server.start())
    assert await soon((await make_client("agent-a")).call("secret")) == "told"
    with pytest.raises(CallerNotAuthorized, match="agent-b is not one of the allowed callers of tool secret"):
        await soon((await make_client("agent-b")).call("secret"))
    await stranger.call("secret", "plain")
    assert (await stranger.answer("plain"))["result"] == "told", "on a plain topic the list is a hint"


@pytest.mark.rule("BOUND-2", "BOUND-8")
async def test_calls_are_bound_when_every_server_of_the_tool_says_so(
    make_server: MakeServer, make_client: MakeClient, broker: Broker
) -> None:
    new = make_server("weather", replica="new")
    ran = serve(new)
    await soon(new.start())
    client = await make_client("agent-a")
    handle = await soon(client.submit("work"))
    assert await soon(handle.result()) == 0
    assert handle.bound
    assert ran == [("agent-a", True, 0)]
    if not broker.shared_subscriptions:
        return  # only one replica serves there
    old = make_server("weather", replica="old", bound="off")
    serve(old)
    await soon(old.start())
    await becomes(lambda: servers_are(client, 2))
    for _ in range(10):
        handle = await soon(client.submit("work"))
        assert await soon(handle.result()) == 0
        assert not handle.bound
    await soon(old.stop())
    await becomes(lambda: servers_are(client, 1))
    handle = await soon(client.submit("work"))
    assert await soon(handle.result()) == 0
    assert handle.bound


async def servers_are(client: ToolClient, count: int) -> bool:
    return len(await client.list_servers()) == count


@pytest.mark.rule("BOUND-8")
async def test_an_old_server_and_an_old_client_are_served_with_plain_topics(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("old", bound="off")
    ran = serve(server)
    await soon(server.start())
    seen: list[Any] = []
    new = await make_client("new")
    assert await soon(new.call("work", {"n": 1}, on_partial=seen.append)) == 1
    other = make_server("current")
    others: list[Any] = []

    async def current(ctx: ToolContext) -> str:
        others.append((ctx.client, ctx.bound))
        await ctx.stream("busy")
        return "done"

    other.add_tool("current", current)
    await soon(other.start())
    old = await make_client("old", bound="off")
    assert await soon(old.call("current", on_partial=seen.append)) == "done"
    assert (ran, others, seen) == ([("new", False, 1)], [("old", False)], ["busy", "busy"])


@pytest.mark.rule("BOUND-9")
async def test_endpoints_that_require_bound_topics_use_no_plain_topic(
    broker: Broker, stranger: Stranger, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("closed", replica="a", bound="require")
    ran = serve(server)
    for topic in ("clients/+/responses", "tools/+/call", "tools/+/cancel", "servers/+/query", "tools/+/stream/+"):
        await stranger.listen(topic)
    await soon(server.start())
    client = await make_client("agent-a", bound="require")
    seen: list[Any] = []
    assert [card.tool for card in await soon(client.list_tools())] == ["wait", "work"]
    assert await soon(client.call("work", {"n": 1}, on_partial=seen.append)) == 1
    handle = await soon(client.submit("wait"))
    await until(lambda: len(ran) == 2)
    await handle.cancel()
    executor = server._executor
    assert executor is not None
    await until(lambda: executor.active == 0)
    # Without shared subscriptions, replicas ask on the topic of their server's name. This topic has no other use.
    asked = [] if broker.shared_subscriptions else [f"{stranger.mcp}/servers/closed/query"]
    assert ([message.topic for message in stranger.seen], seen) == (asked, ["busy"])
    await stranger.tell("tools/work/call", {"call_id": "x", "client": "stranger"})
    await stranger.tell("servers/closed:a/query", {"query_id": "q", "call_ids": [], "client": "stranger"})
    await stranger.tell("servers/closed/query", {"query_id": "q2", "call_ids": [], "client": "stranger"})
    assert await soon(client.call("work", {"n": 2})) == 2
    assert [each for each in ran if each[0] == "stranger"] == []
    assert stranger.on("clients/stranger/responses") == []


@pytest.mark.rule("BOUND-9")
async def test_a_client_that_requires_bound_topics_says_so_when_a_server_does_not_speak_them(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("old", bound="off")
    ran = serve(server)
    await soon(server.start())
    client = await make_client("agent-a", bound="require")
    with pytest.raises(
        ToolUnavailable, match=r"work: no server of the tool speaks sender-bound topics.*bound='prefer'"
    ):
        await soon(client.call("work"))
    assert ran == []


# What a caller believes


@pytest.mark.rule("BOUND-10", "RESP-8")
async def test_a_caller_believes_only_a_server_that_a_card_of_the_tool_has_named(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    odd = strange_server
    calls: list[dict[str, Any]] = []
    await odd.connection.subscribe(
        f"{odd.mcp}/tools/strange/call/+", lambda message: calls.append(json.loads(message.payload))
    )
    await odd.show_tool()
    await odd.show(features=["bound"])
    await odd.tell("servers/evil/card", {"server": "evil", "tools": ["other"], "features": ["bound"]}, retain=True)
    client = await make_client("agent-a")
    handle = await soon(client.submit("strange", timeout=30))
    await until(lambda: calls)
    assert handle.bound
    inbox, call_id = "clients/agent-a/responses", calls[0]["call_id"]
    packed = PublishProperties(correlation_data=call_id.encode())
    forged = {"call_id": call_id, "result": "forged"}
    await odd.tell(inbox, forged)  # on the plain topic, where anybody may write
    await odd.tell(f"{inbox}/evil", forged)
    await odd.tell(f"{inbox}/evil", {**forged, "server": "odd"})
    await odd.tell(f"{inbox}/evil", {"status": 1}, packed)
    await odd.tell(f"{inbox}/odd", {**forged, "server": "evil"})
    await odd.tell(f"{inbox}/odd:b", {"call_id": call_id, "result": "true", "server": "odd:b"})
    assert await soon(handle.result()) == "true"
    handle = await soon(client.submit("strange", timeout=30))
    await until(lambda: len(calls) == 2)
    await odd.tell(f"{inbox}/odd", {"status": 1}, PublishProperties(correlation_data=handle.call_id.encode()))
    with pytest.raises(ToolFailed, match="the response cannot be read") as caught:
        await soon(handle.result())
    assert caught.value.code == "UNREADABLE_RESPONSE"


@pytest.mark.rule("BOUND-10")
async def test_a_caller_takes_no_partials_of_another_server(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    odd = strange_server
    calls: list[dict[str, Any]] = []
    await odd.connection.subscribe(
        f"{odd.mcp}/tools/strange/call/+", lambda message: calls.append(json.loads(message.payload))
    )
    await odd.show_tool(supports_streaming=True)
    await odd.show(features=["bound"])
    client = await make_client("agent-a")
    handle = await soon(client.submit("strange", timeout=30))
    await until(lambda: calls)
    stream = "clients/agent-a/stream"
    partial = {"call_id": handle.call_id, "seq": 1, "type": "partial"}
    await odd.tell(f"{stream}/evil/{handle.call_id}", {**partial, "content": "forged"})
    await odd.tell(f"{stream}/odd/{handle.call_id}", {**partial, "content": "forged", "server": "evil"})
    await odd.tell(f"{stream}/odd/{handle.call_id}", {**partial, "content": "true"})
    await odd.tell("clients/agent-a/responses/odd", {"call_id": handle.call_id, "result": 1, "seq": 1})
    assert await soon(handle.result()) == 1
    assert [each async for each in handle.partials()] == ["true"]


@pytest.mark.rule("CANCEL-4")
async def test_a_caller_is_told_when_somebody_else_cancels_its_call(
    stranger: Stranger, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    ran = serve(server)
    await soon(server.start())
    client = await make_client("agent-a", bound="off")
    handle = await soon(client.submit("wait"))
    await until(lambda: ran)
    await stranger.tell("tools/wait/cancel", {"call_id": handle.call_id, "client": "agent-a", "reason": "forged"})
    with pytest.raises(CallCanceled, match="wait: the call was canceled: forged"):
        await soon(handle.result())


@pytest.mark.rule("BOUND-11")
async def test_a_plain_call_of_an_earlier_life_of_its_server_runs_again_when_somebody_repeats_it(
    stranger: Stranger, make_server: MakeServer
) -> None:
    runs: list[Any] = []
    for _ in range(2):
        server = make_server("weather", replica="a")
        runs.append(serve(server))
        await soon(server.start())
        for _ in range(2):
            answers = len(stranger.answers("captured"))
            await stranger.call("work", "captured")
            await until(lambda answers=answers: len(stranger.answers("captured")) > answers)
        await soon(server.stop())
    assert runs == [[("stranger", False, 0)], [("stranger", False, 0)]]


# Rights


def bound_rights(broker_of: Callable[..., Mosquitto], rights: str, users: str) -> Mosquitto:
    return broker_of(
        ["acl_file {folder}/acl", "password_file {folder}/passwords"],
        anonymous=False,
        files={"acl": rights, "passwords": "".join(password_line(user, "secret") for user in users.split())},
        credentials={"username": "weather", "password": "secret"},
    )


BOUND_RIGHTS = """\
user weather
topic write ns/mcp/servers/weather:a/card
topic write ns/mcp/tools/work/card
topic write ns/mcp/tools/wait/card
topic write ns/mcp/clients/+/responses/weather:a
topic write ns/mcp/clients/+/stream/weather:a/+
topic write ns/mcp/servers/+/query/weather:a
topic read ns/mcp/servers/+/card
topic read ns/mcp/tools/+/card
topic read ns/mcp/tools/work/call/+
topic read ns/mcp/tools/wait/call/+
topic read ns/mcp/tools/+/cancel/+
topic read ns/mcp/servers/weather:a/query/+

user agent-a
topic write ns/mcp/tools/+/call/agent-a
topic write ns/mcp/tools/+/cancel/agent-a
topic write ns/mcp/servers/+/query/agent-a
topic write ns/mcp/clients/agent-a/responses/agent-a
topic read ns/mcp/clients/agent-a/responses/+
topic read ns/mcp/clients/agent-a/stream/+/+
topic read ns/mcp/servers/+/card
topic read ns/mcp/tools/+/card
topic read ns/agents/+/status
"""


@pytest.mark.rule("ACCESS-4")
@pytest.mark.parametrize("setting", ["prefer", "require"])
async def test_the_rights_for_bound_topics_are_enough(
    setting: Any, make_mosquitto: Callable[..., Mosquitto], caplog: pytest.LogCaptureFixture
) -> None:
    broker = bound_rights(make_mosquitto, BOUND_RIGHTS, "weather agent-a")
    where: dict[str, Any] = {"broker": broker.url, "namespace": "ns", "bound": setting}
    server = ToolServer("weather", replica="a", client_id="weather", credentials=Password("weather", "secret"), **where)
    client = ToolClient("agent-a", client_id="agent-a", credentials=Password("agent-a", "secret"), **where)
    ran = serve(server)
    async with server, client:
        assert (server.connection.client_id, client.connection.client_id) == ("weather", "agent-a")
        assert [card.tool for card in await soon(client.list_tools())] == ["wait", "work"]
        seen: list[Any] = []
        assert await soon(client.call("work", {"n": 1}, on_partial=seen.append)) == 1
        handle = await soon(client.submit("wait"))
        await until(lambda: len(ran) == 2)
        await handle.cancel()
        executor = server._executor
        assert executor is not None
        await until(lambda: executor.active == 0)
        assert (seen, {bound for _, bound, _ in ran}) == (["busy"], {True})
    told = [each for each in caplog.records if each.name.startswith("mqtt_agent") and each.levelno >= logging.WARNING]
    assert [each.getMessage() for each in told] == []


@pytest.mark.rule("ACCESS-4")
async def test_the_tool_of_a_killed_agent_is_offline_for_a_client_with_these_rights(
    make_mosquitto: Callable[..., Mosquitto],
) -> None:
    host = "\nuser host\ntopic readwrite ns/#\n"
    broker = bound_rights(make_mosquitto, BOUND_RIGHTS + host, "weather agent-a host")
    served = ToolServer("hosted", namespace="ns")
    served.add_tool("work", lambda: 1)
    async with Proxy(broker.url) as network:
        login: dict[str, Any] = {"credentials": Password("host", "secret"), "will_delay": 0, "session_expiry": 1}
        agent = Agent("host", broker=network.url, namespace="ns", **login)
        await soon(agent.start())
        await soon(agent.serve_tools(served))
        credentials = Password("agent-a", "secret")
        async with ToolClient("agent-a", credentials=credentials, broker=broker.url, namespace="ns") as client:
            assert [card.tool for card in await soon(client.list_tools())] == ["work"]
            await network.cut()
            await becomes(lambda: nothing_online(client))
            with pytest.raises(ToolUnavailable, match="offline"):
                await soon(client.call("work"))
            await network.mend()
        await soon(agent.stop(), 20)


async def nothing_online(client: ToolClient) -> bool:
    return not await client.list_tools()
