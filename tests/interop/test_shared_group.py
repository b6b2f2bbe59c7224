"""The reference's replicas and ours behind the same tool.

A tool name belongs to one server name. So replicas that share the calls of a tool have one server name, also when they
use different SDKs. In these tests, the answer says which of both SDKs did the work.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import ToolChange, ToolClient, ToolContext, ToolServer
from mqtt_agent.errors import ToolNameTaken
from mqtt_agent.transport import Connection
from support import becomes, soon, until

from .conftest import (
    MakeServer,
    StartClient,
    StartReferenceClient,
    StartReferenceServer,
)
from .reference import ReferenceServer

CALLS = 300


def serve_work(server: ToolServer, held_until: asyncio.Event | None = None) -> list[tuple[str, int]]:
    """Offer the reference's tool ``work`` on our server; returns the list of the calls that the server receives.

    The results are those of the reference, but ``by`` is ``ours``. The description differs, too.
    """
    executed: list[tuple[str, int]] = []

    async def work(n: int, ctx: ToolContext) -> dict[str, Any]:
        executed.append((ctx.call_id, n))
        if held_until is not None:
            await held_until.wait()
        return {"n": n, "by": "ours"}

    server.add_tool("work", work, description="Ours says who did it.")
    return executed


async def servers_online(client: ToolClient, *servers: str) -> None:
    """Wait until exactly these servers are online."""
    changes = client.watch_tools()

    async def wait() -> None:
        while [card.server for card in await client.list_servers()] != sorted(servers):
            await changes.__anext__()

    await soon(wait(), 20)


def check_each_was_executed_once(
    reference: ReferenceServer, ours: list[tuple[str, int]], results: list[dict[str, Any]]
) -> None:
    theirs = [(call["call_id"], call["arguments"]["n"]) for call in reference.executed if call["executed"] == "work"]
    assert sorted(n for _, n in ours + theirs) == list(range(CALLS))
    assert len({call_id for call_id, _ in ours + theirs}) == CALLS
    assert [result["n"] for result in results] == list(range(CALLS))
    assert Counter(result["by"] for result in results) == {"ours": len(ours), "reference": len(theirs)}
    assert ours
    assert theirs


@pytest.mark.rule("SHARE-1", "SHARE-2")
async def test_each_call_of_ours_runs_once_on_one_of_both(
    make_server: MakeServer, start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    reference = await start_reference_server("reference", "work")
    server = make_server("reference")
    executed = serve_work(server)
    await soon(server.start())
    client = await start_client()
    await servers_online(client, "reference", server.server_id)
    results = await soon(asyncio.gather(*(client.call("work", {"n": n}) for n in range(CALLS))), 30)
    check_each_was_executed_once(reference, executed, results)


@pytest.mark.rule("SHARE-1", "SHARE-2")
async def test_each_call_of_its_client_runs_once_on_one_of_both(
    make_server: MakeServer,
    start_reference_server: StartReferenceServer,
    start_reference_client: StartReferenceClient,
) -> None:
    server = make_server("reference")
    executed = serve_work(server)
    await soon(server.start())
    reference = await start_reference_server("reference", "work")
    client = await start_reference_client()
    results = await soon(asyncio.gather(*(client.call("work", {"n": n}) for n in range(CALLS))), 30)
    check_each_was_executed_once(reference, executed, results)


@pytest.mark.rule("PRES-5")
async def test_we_go_on_calling_when_it_stops_and_says_that_the_tool_is_offline(
    make_server: MakeServer, start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    server = make_server("reference")
    executed = serve_work(server)
    await soon(server.start())
    reference = await start_reference_server("reference", "work")
    client = await start_client()
    await servers_online(client, "reference", server.server_id)
    changes: list[ToolChange] = []
    watching = client.watch_tools()

    async def watch() -> None:
        async for change in watching:
            changes.append(change)

    watcher = asyncio.ensure_future(watch())
    await reference.stop()
    await servers_online(client, server.server_id)
    [card] = await soon(client.list_tools())
    assert (card.tool, card.status) == ("work", "online")
    results = await soon(asyncio.gather(*(client.call("work", {"n": n}) for n in range(20))))
    assert results == [{"n": n, "by": "ours"} for n in range(20)]
    assert len(executed) == 20
    assert "offline" not in [change.kind for change in changes]
    watcher.cancel()


@pytest.mark.rule("PRES-9")
async def test_our_replica_shows_the_tool_online_again_to_clients_that_trust_its_card(
    make_server: MakeServer,
    start_reference_server: StartReferenceServer,
    start_client: StartClient,
    start_reference_client: StartReferenceClient,
) -> None:
    server = make_server("reference")
    serve_work(server)
    await soon(server.start())
    reference = await start_reference_server("reference", "work")
    stranger = await start_reference_client()
    card = await stranger.card("work")
    assert (card["server"], card["description"]) == ("reference", "Says who did it.")
    await reference.stop()

    async def shown_again() -> None:
        while (await stranger.card("work"))["status"] != "online":
            pass

    await soon(shown_again())
    card = await stranger.card("work")
    assert (card["server"], card["description"]) == ("reference", "Ours says who did it.")
    assert await stranger.call("work", {"n": 1}) == {"n": 1, "by": "ours"}


@pytest.mark.rule("PRES-8")
async def test_it_goes_on_when_ours_stops_and_the_tool_is_never_offline(
    make_server: MakeServer,
    start_reference_server: StartReferenceServer,
    start_client: StartClient,
    start_reference_client: StartReferenceClient,
) -> None:
    reference = await start_reference_server("reference", "work")
    server = make_server("reference")
    serve_work(server)
    await soon(server.start())
    client, stranger = await start_client(), await start_reference_client()
    await servers_online(client, "reference", server.server_id)
    await soon(server.stop())
    await servers_online(client, "reference")
    results = await soon(asyncio.gather(*(client.call("work", {"n": n}) for n in range(20))))
    assert results == [{"n": n, "by": "reference"} for n in range(20)]
    assert len(reference.executed) == 20
    assert (await stranger.card("work"))["status"] == "online"


@pytest.mark.rule("PRES-10")
async def test_calls_under_way_while_ours_stops_are_all_answered_once(
    make_server: MakeServer,
    start_reference_server: StartReferenceServer,
    start_client: StartClient,
    start_reference_client: StartReferenceClient,
) -> None:
    reference = await start_reference_server("reference", "work")
    server = make_server("reference")
    executed = serve_work(server)
    await soon(server.start())
    client = await start_reference_client()
    calls = [asyncio.ensure_future(client.call("work", {"n": n}, timeout=8000)) for n in range(CALLS)]
    await until(lambda: executed)
    await soon(server.stop(), 20)
    results = await soon(asyncio.gather(*calls), 20)
    check_each_was_executed_once(reference, executed, results)


@pytest.mark.rule("PRES-10")
async def test_calls_that_the_broker_holds_back_for_ours_while_it_stops_are_all_answered_once(
    mosquitto: Mosquitto,
    make_server: MakeServer,
    start_reference_server: StartReferenceServer,
    start_reference_client: StartReferenceClient,
) -> None:
    reference = await start_reference_server("reference", "work", "echo")
    # Many brokers send at most 20 or 32 unacknowledged messages to one client; with this setting, Mosquitto sends 8.
    server = make_server("reference", connection=Connection(mosquitto.url, receive_maximum=8), max_concurrency=4)
    go_on = asyncio.Event()
    executed = serve_work(server, held_until=go_on)
    await soon(server.start())
    client = await start_reference_client()
    calls = [asyncio.ensure_future(client.call("work", {"n": n}, timeout=8000)) for n in range(CALLS)]
    await client.call("echo")  # its earlier calls have reached a replica by now
    await until(lambda: len(executed) == 4)
    stopping = asyncio.ensure_future(server.stop())
    go_on.set()
    await soon(stopping, 20)
    results = await soon(asyncio.gather(*calls), 20)
    check_each_was_executed_once(reference, executed, results)


@pytest.mark.rule("LOST-3")
@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_a_repeatable_call_that_is_lost_with_it_is_sent_again_to_ours(
    kill: bool, make_server: MakeServer, start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    reference = await start_reference_server("reference", "hang")
    client = await start_client()
    await servers_online(client, "reference")
    handle = await soon(client.submit("hang", retry=True))
    await until(lambda: reference.executed)
    server = make_server("reference")
    server.add_tool("hang", lambda: "ours does not hang", read_only=True)
    await soon(server.start())
    await servers_online(client, "reference", server.server_id)
    await (reference.kill if kill else reference.stop)()
    assert await soon(handle.result()) == "ours does not hang"
    assert handle.server == server.server_id


async def test_its_calls_and_ours_have_different_ids_in_the_same_group(
    make_server: MakeServer,
    start_client: StartClient,
    start_reference_client: StartReferenceClient,
    start_reference_server: StartReferenceServer,
) -> None:
    reference = await start_reference_server("reference", "work")
    theirs, ours = await start_reference_client("same-name"), await start_client("python-client")
    await soon(asyncio.gather(theirs.call("work", {"n": 1}), ours.call("work", {"n": 2})))
    by_client = {call["client"]: call["call_id"] for call in reference.executed}
    assert set(by_client) == {"same-name", "python-client"}
    assert re.fullmatch(r"call_[0-9a-z]+_[0-9a-z]+", by_client["same-name"])


@pytest.mark.rule("OWN-1", "OWN-2")
@pytest.mark.parametrize("on_conflict", ["raise", "standby"])
async def test_ours_of_another_name_takes_no_calls_of_a_tool_that_it_serves_until_it_stops(
    on_conflict: str, make_server: MakeServer, start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    reference = await start_reference_server("reference", "work")
    server = make_server("ours", on_conflict=on_conflict)
    executed = serve_work(server)
    if on_conflict == "raise":
        with pytest.raises(ToolNameTaken, match=r"server 'reference' \(reference\) offers") as caught:
            await soon(server.start())
        assert (caught.value.tool, caught.value.server, caught.value.owner) == ("work", "ours", "reference")
    else:
        await soon(server.start())
    client = await start_client()
    results = await soon(asyncio.gather(*(client.call("work", {"n": n}) for n in range(20))))
    assert results == [{"n": n, "by": "reference"} for n in range(20)]
    assert not executed
    [card] = await client.list_tools()
    assert (card.server, card.also_offered_by) == ("reference", [])
    await reference.stop()
    if on_conflict == "raise":
        await soon(server.start())
    assert await soon(client.call("work", {"n": 1}, wait_online=True), 20) == {"n": 1, "by": "ours"}


@pytest.mark.rule("OWN-1", "OWN-5")
async def test_a_server_on_standby_waits_until_its_last_replica_and_ours_are_both_gone(
    make_server: MakeServer, start_reference_server: StartReferenceServer, start_client: StartClient
) -> None:
    replica, waiting = make_server("reference"), make_server("waiting", on_conflict="standby")
    serve_work(replica)
    await soon(replica.start())
    reference = await start_reference_server("reference", "work")
    waiting.add_tool("work", lambda n: {"n": n, "by": "waiting"})
    await soon(waiting.start())
    client = await start_client()
    await servers_online(client, "reference", replica.server_id, waiting.server_id)
    for server, expected in ((replica, {"ours", "reference"}), (reference, {"reference"})):
        results = await soon(asyncio.gather(*(client.call("work", {"n": n}) for n in range(20))))
        assert {result["by"] for result in results} == expected
        await soon(server.stop(), 20)
    assert await soon(client.call("work", {"n": 1}, wait_online=True), 20) == {"n": 1, "by": "waiting"}


@pytest.mark.rule("OWN-7")
async def test_everybody_is_told_when_it_serves_a_tool_of_ours_under_another_name(
    make_server: MakeServer,
    start_reference_server: StartReferenceServer,
    start_client: StartClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server("ours")
    executed = serve_work(server)
    await soon(server.start())
    client = await start_client()
    reference = await start_reference_server("reference", "work")

    async def marked() -> bool:
        return [(card.server, card.also_offered_by) for card in await client.list_tools()] == [("ours", ["reference"])]

    await becomes(marked)
    await until(lambda: len(warnings_about(caplog, "reference")) == 2)
    of_client, of_server = sorted(warnings_about(caplog, "reference"), key=len)
    results = await soon(asyncio.gather(*(client.call("work", {"n": n}) for n in range(CALLS))), 30)
    check_each_was_executed_once(reference, executed, results)
    await reference.stop()
    await servers_online(client, server.server_id)
    [card] = await client.list_tools()
    assert (card.status, card.also_offered_by) == ("online", []), "whoever the card names now"

    async def corrected() -> bool:
        return [card.server for card in await client.list_tools()] == ["ours"]

    await becomes(corrected)
    assert "'ours' and 'reference' both offer tool 'work', so a call may reach either of them" in of_client
    assert "'ours' and 'reference' (reference) both serve tool 'work'" in of_server
    assert len(warnings_about(caplog, "reference")) == 2


def warnings_about(caplog: pytest.LogCaptureFixture, server: str) -> list[str]:
    """The warnings that name a server."""
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [message for message in messages if repr(server) in message]
