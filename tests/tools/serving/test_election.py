"""Replicas at a broker without shared subscriptions: one replica is active, and the others are on standby."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterable

import pytest
from brokers import Broker, Ejabberd
from brokers.rough import around
from mqtt_agent import Agent, Connection, MemoryStore, ToolClient, ToolServer
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.tools.serving.election import Election
from mqtt_agent.tools.serving.intake import Intake
from mqtt_agent.tools.serving.presence import Presence
from mqtt_agent.transport.link import Link
from mqtt_agent.wire import ServerCard, Topics, encode
from proxy import Proxy
from support import becomes, soon, until

from ..conftest import MakeClient, MakeServer, Spawn

RUN_ON = [Ejabberd]
WILL_DELAY = 1


class Runs:
    """Replicas of one server that record which replica ran which call; no call ends while ``go_on`` is not set."""

    def __init__(self) -> None:
        self.by: Counter[str] = Counter()
        self.calls: Counter[int] = Counter()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def offer(self, server: ToolServer) -> ToolServer:
        async def work(n: int) -> str:
            self.by[server.replica] += 1
            self.calls[n] += 1
            await self.go_on.wait()
            return server.replica

        server.add_tool("work", work)
        return server


async def cards(client: ToolClient, count: int) -> dict[str, ServerCard]:
    """Wait for this number of online cards, with one active replica and the others on standby, and return the cards."""
    found: dict[str, ServerCard] = {}

    async def all_there() -> bool:
        found.clear()
        found.update({card.server: card for card in await client.list_servers()})
        standing_by = [card for card in found.values() if card.standby]
        return len(found) == count == len(standing_by) + 1 and any(card.tools for card in found.values())

    await becomes(all_there, 60)
    return found


def behind_a_bad_network(broker: Broker) -> bool:
    """Whether further faults may happen at any time, also to the replica and the client that a test leaves alone."""
    return broker.url != around(broker.url)


def is_lost(outcome: object) -> bool:
    """Whether a call ended with the error that it may have run."""
    return isinstance(outcome, ToolUnavailable) and outcome.maybe_executed


async def answered_by(replica: str, client: ToolClient, numbers: Iterable[int], broker: Broker) -> None:
    """Make calls one after the other, which a replica answers."""
    for number in numbers:
        call = client.call("work", {"n": number}, wait_online=behind_a_bad_network(broker))
        [outcome] = await soon(asyncio.gather(call, return_exceptions=True), 60)
        assert outcome == replica or (is_lost(outcome) and behind_a_bad_network(broker))


@pytest.mark.rule("SHARE-4")
async def test_of_replicas_that_start_at_once_one_serves_and_runs_each_call_once(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    runs = Runs()
    servers = {server.server_id: server for server in (runs.offer(make_server("many")) for _ in range(8))}
    client = await make_client()
    await soon(asyncio.gather(*(server.start() for server in servers.values())), 30)
    for left in range(8, 0, -1):
        found = await cards(client, left)
        [leader] = [card.server for card in found.values() if not card.standby]
        assert [card.server for card in found.values() if card.tools] == [leader]
        before = runs.by.copy()
        results = await soon(asyncio.gather(*(client.call("work", {"n": 100 * left + n}) for n in range(20))))
        assert set(results) == {servers[leader].replica}
        assert runs.by - before == Counter({servers[leader].replica: 20})
        await soon(servers[leader].stop(), 20)
    assert set(runs.calls.values()) == {1}
    assert await soon(client.list_tools()) == []


@pytest.mark.rule("SHARE-4", "SCARD-6")
async def test_who_serves_goes_on_when_another_starts(make_server: MakeServer, make_client: MakeClient) -> None:
    runs = Runs()
    first, second = runs.offer(make_server("pair", replica="z")), runs.offer(make_server("pair", replica="a"))
    await soon(first.start())
    client = await make_client()
    calls = [asyncio.ensure_future(client.call("work", {"n": n})) for n in range(200)]
    await soon(second.start())
    assert await soon(asyncio.gather(*calls)) == ["z"] * 200
    found = await cards(client, 2)
    assert (found["pair:a"].standby, found["pair:a"].tools) == (True, [])
    assert (found["pair:z"].standby, found["pair:z"].tools) == (False, ["work"])


@pytest.mark.rule("SHARE-9")
async def test_no_call_fails_while_the_one_that_serves_is_stopped(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    runs = Runs()
    servers = [runs.offer(make_server("pair", replica=replica)) for replica in "ab"]
    for server in servers:
        await soon(server.start())
    client = await make_client()
    await cards(client, 2)
    stopping = asyncio.Event()
    results: list[str] = []

    async def keep_calling() -> None:
        while results[-20:].count("b") < 20:
            results.append(await client.call("work", {"n": len(results)}))
            if len(results) == 20:
                stopping.set()

    calling = asyncio.ensure_future(keep_calling())
    await soon(stopping.wait())
    await soon(servers[0].stop(), 20)
    await soon(calling, 20)
    assert sorted(results) == results
    assert set(runs.calls.values()) == {1}


@pytest.mark.rule("SHARE-6")
async def test_a_killed_one_is_replaced_and_only_what_may_not_run_twice_fails(
    spawn: Spawn, make_client: MakeClient
) -> None:
    client = await make_client()
    first = spawn("a", will_delay=WILL_DELAY)
    await cards(client, 1)
    second = spawn("b", will_delay=WILL_DELAY)
    assert (await cards(client, 2))["remote:b"].standby
    assert {(await soon(client.call("who")))["pid"] for _ in range(10)} == {first.pid}
    repeatable = await soon(client.submit("slow_but_repeatable", {"seconds": 0.2}))
    once = await soon(client.submit("hang"))
    for handle in (repeatable, once):
        assert await soon(handle.partials().__anext__()) == {"pid": first.pid}
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(ToolUnavailable, match="went offline") as caught:
        await soon(once.result(), 60)
    assert caught.value.maybe_executed
    assert await soon(repeatable.result(), 60) == second.pid
    assert {(await soon(client.call("who")))["pid"] for _ in range(10)} == {second.pid}


@pytest.mark.rule("SHARE-7")
async def test_a_lost_network_for_less_than_the_will_delay_changes_nothing(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    runs = Runs()
    async with Proxy(broker.url) as proxy:
        async with runs.offer(
            ToolServer("pair", broker=proxy.url, namespace=namespace, replica="a", will_delay=20)
        ) as first:
            await soon(runs.offer(make_server("pair", replica="b")).start())
            client = await make_client()
            await cards(client, 2)
            for blip in range(3):
                epoch = first.connection.epoch
                calls = [asyncio.ensure_future(client.call("work", {"n": 100 * blip + n})) for n in range(30)]
                runs.go_on.clear()
                await until(lambda: runs.by["a"] > 60 * blip)  # noqa: B023
                proxy.drop()
                await until(lambda: first.connection.epoch > epoch)  # noqa: B023
                calls += [asyncio.ensure_future(client.call("work", {"n": 100 * blip + n})) for n in range(30, 60)]
                runs.go_on.set()
                assert await soon(asyncio.gather(*calls), 20) == ["a"] * 60
    assert set(runs.calls.values()) == {1}


@pytest.mark.rule("SHARE-7")
async def test_who_was_away_for_longer_stands_by_when_it_is_back(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    runs = Runs()
    async with Proxy(broker.url) as proxy:
        options = {"replica": "a", "will_delay": 1, "session_expiry": 60}
        async with runs.offer(ToolServer("pair", broker=proxy.url, namespace=namespace, **options)):
            second = runs.offer(make_server("pair", replica="b", will_delay=20))
            await soon(second.start())
            client = await make_client()
            await cards(client, 2)
            await proxy.cut()
            await cards(client, 1)
            # The broker also keeps these calls in the session of the replica that is away.
            await answered_by("b", client, range(30), broker)
            await proxy.mend()
            found = await cards(client, 2)
            assert found["pair:a"].standby
            await answered_by("b", client, range(30, 60), broker)
            await soon(second.stop(), 20)
            await answered_by("a", client, range(60, 61), broker)
    assert set(runs.calls.values()) == {1}
    assert runs.by["a"] <= 1


async def test_who_stands_by_again_leaves_the_calls_of_the_one_that_serves_alone_when_it_stops(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsubscribed: list[str] = []
    unsubscribe = Link.unsubscribe

    async def noted(self: Link, topic_filter: str) -> int:
        unsubscribed.append(topic_filter)
        return await unsubscribe(self, topic_filter)

    monkeypatch.setattr(Link, "unsubscribe", noted)
    runs = Runs()
    async with Proxy(broker.url) as proxy:
        options = {"replica": "a", "will_delay": 1, "session_expiry": 60}
        async with runs.offer(ToolServer("pair", broker=proxy.url, namespace=namespace, **options)):
            await soon(runs.offer(make_server("pair", replica="b")).start())
            client = await make_client()
            await cards(client, 2)
            await proxy.cut()
            await cards(client, 1)
            await proxy.mend()
            await cards(client, 2)
        assert [await soon(client.call("work", {"n": n})) for n in range(10)] == ["b"] * 10
    # With a second UNSUBSCRIBE, ejabberd would remove the subscription of another client.
    assert unsubscribed.count(Topics(namespace).tool_call("work")) == 1


async def test_a_cut_that_nobody_notices_runs_no_call_twice(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    runs = Runs()
    async with Proxy(broker.url) as proxy:
        connection = Connection(proxy.url, client_id="pair:a", keep_alive=1, will_delay=1, session_expiry=60)
        first = runs.offer(ToolServer("pair", connection=connection, namespace=namespace, replica="a"))
        await soon(first.start())
        await soon(runs.offer(make_server("pair", replica="b", will_delay=20)).start())
        client = await make_client()
        await cards(client, 2)
        epoch = connection.epoch
        proxy.hold()
        # The broker sends these calls to the disconnected replica until its pings are missing, and then keeps them for
        # it.
        calls = [asyncio.ensure_future(client.call("work", {"n": n})) for n in range(30)]
        done = await soon(asyncio.gather(*calls, return_exceptions=True), 30)
        for outcome in done:
            assert is_lost(outcome) or (outcome == "b" and behind_a_bad_network(broker))  # then it was sent later
        await answered_by("b", client, range(30, 60), broker)
        proxy.release()
        await until(lambda: connection.epoch > epoch and connection.connected, 60)
        assert (await cards(client, 2))["pair:a"].standby
        await answered_by("b", client, range(60, 90), broker)
        await soon(first.stop(), 20)
        await soon(connection.stop(end_session=True))
    assert set(runs.calls.values()) == {1}, "what a was given before the cut may run late, and what came after it not"


@pytest.mark.rule("SHARE-5")
@pytest.mark.parametrize("seen_by", ["both", "the second"])
async def test_of_two_claims_at_once_one_is_withdrawn(
    seen_by: str, make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No replica knows of the other before its own claim is published."""
    runs = Runs()
    servers = [runs.offer(make_server("pair", replica=replica)) for replica in "ab"]
    others = Election._others
    announce = Presence.announce_server
    claims: list[Presence] = []
    both_claim = asyncio.Event()

    async def announce_server(self: Presence) -> None:
        if self.standby and not both_claim.is_set():
            return  # so that no replica waits for another replica
        if not self.standby and len(claims) < 2:
            claims.append(self)
            if len(claims) == 2 and seen_by == "the second":
                await until(lambda: servers[0]._election._serves or servers[1]._election._serves)
            await announce(self)
            if len(claims) == 2:
                both_claim.set()
            if seen_by == "both":
                await soon(both_claim.wait())
            return
        await announce(self)

    def blind(self: Election) -> list[ServerCard]:
        return others(self) if claims and self._presence in claims else []

    monkeypatch.setattr(Presence, "announce_server", announce_server)
    monkeypatch.setattr(Election, "_others", blind)
    taken: list[str] = []
    take_alone = Connection.take_alone

    async def noted(self: Connection, owner: str, *, keep: bool) -> None:
        taken.append(owner)
        await take_alone(self, owner, keep=keep)

    monkeypatch.setattr(Connection, "take_alone", noted)
    client = await make_client()
    await soon(asyncio.gather(*(server.start() for server in servers)))
    assert len(claims) == 2
    found = await cards(client, 2)
    [leader] = [card.replica for card in found.values() if not card.standby]
    assert [await soon(client.call("work", {"n": n})) for n in range(30)] == [leader] * 30
    assert set(runs.calls.values()) == {1}
    assert set(taken) == {f"pair:{leader}"}  # after a reconnect, it subscribes once more


@pytest.mark.rule("SHARE-6")
async def test_a_claim_of_somebody_who_is_not_there_is_passed_over(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_agent.tools.serving.election._ASK_AFTER", 0.2)
    monkeypatch.setattr("mqtt_agent.tools.serving.election._CLAIMS_MEET", 0.1)
    runs = Runs()
    server = runs.offer(make_server("pair", replica="a"))
    await soon(server.start())
    client = await make_client()
    stranger = Connection(broker.url)
    await soon(stranger.start())
    topics = Topics(namespace)
    ghost = ServerCard(server="pair:ghost", name="pair", tools=["work"], started="2020-01-01T00:00:00.000Z")
    await soon(stranger.subscribe(topics.server_query("pair:ghost"), lambda message: None))
    await soon(stranger.publish(topics.server_card("pair:ghost"), encode(ghost), retain=True))
    changes = client.watch_tools()
    assert (await cards(client, 2))["pair:a"].standby
    await soon(stranger.stop(end_session=True))
    while any(card.standby for card in await client.list_servers()):
        await soon(changes.__anext__())
    assert await soon(client.call("work", {"n": 1})) == "a"


async def test_a_broker_that_is_killed_and_forgets_leaves_one_that_serves(own_broker: Broker, namespace: str) -> None:
    runs = Runs()
    servers = [ToolServer("pair", broker=own_broker.url, namespace=namespace, replica=r) for r in "ab"]
    async with runs.offer(servers[0]), runs.offer(servers[1]):
        async with ToolClient(broker=own_broker.url, namespace=namespace) as client:
            await cards(client, 2)
            own_broker.restart(keep_state=False, kill=True)
            await until(lambda: client.connection.epoch > 1 and client.connection.connected, 30)
            results = await soon(
                asyncio.gather(*(client.call("work", {"n": n}, wait_online=True) for n in range(30))), 30
            )
            assert len(set(results)) == 1
            await cards(client, 2)
    assert set(runs.calls.values()) == {1}


@pytest.mark.rule("LATE-5", "SHARE-7")
async def test_who_serves_no_more_after_the_broker_forgot_everything_finishes_its_calls(
    own_broker: Broker, namespace: str
) -> None:
    runs = Runs()
    runs.go_on.clear()
    options = {"namespace": namespace, "will_delay": 20}
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(own_broker.url))
        first = ToolServer("pair", broker=proxy.url, replica="a", **options)
        await stack.enter_async_context(runs.offer(first))
        await stack.enter_async_context(runs.offer(ToolServer("pair", broker=own_broker.url, replica="b", **options)))
        client = await stack.enter_async_context(ToolClient(broker=own_broker.url, namespace=namespace))
        assert (await cards(client, 2))["pair:b"].standby
        handles = [await soon(client.submit("work", {"n": n})) for n in range(3)]
        await until(lambda: runs.by["a"] == 3)
        await proxy.cut()
        await asyncio.to_thread(own_broker.restart, keep_state=False, kill=True)

        async def second_serves() -> bool:
            return any(card.tools for card in await client.list_servers() if card.server == "pair:b")

        await becomes(second_serves, 30)
        await proxy.mend()
        await until(lambda: first.connection.connected and first.connection.epoch > 1, 30)
        assert (await cards(client, 2))["pair:a"].standby
        runs.go_on.set()
        assert [await soon(handle.result(), 30) for handle in handles] == ["a"] * 3
        assert await soon(client.call("work", {"n": 3})) == "b"
    assert set(runs.calls.values()) == {1}


@pytest.mark.rule("SHARE-5")
async def test_who_cannot_see_all_cards_does_not_serve_yet(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    server = runs.offer(make_server("pair", replica="a"))
    barrier, broker_is_quick = Intake.barrier, asyncio.Event()

    async def slow_barrier(intake: Intake, timeout: float) -> bool:
        return await barrier(intake, timeout) and broker_is_quick.is_set()

    monkeypatch.setattr(Intake, "barrier", slow_barrier)
    client = await make_client()
    await soon(server.start())
    assert await soon(client.list_servers()) == []
    broker_is_quick.set()
    await cards(client, 1)
    assert await soon(client.call("work", {"n": 1})) == "a"


@pytest.mark.rule("SHARE-8")
async def test_calls_that_run_keep_no_other_message_from_coming(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server, go_on = make_server("pair", replica="a"), asyncio.Event()

    async def wait(n: int) -> int:
        await go_on.wait()
        return n

    server.add_tool("wait", wait)
    Runs().offer(server)
    await soon(server.start())
    client = await make_client()
    handles = [await soon(client.submit("wait", {"n": n})) for n in range(40)]
    assert await soon(client.call("work", {"n": 1})) == "a"
    await soon(handles[0].cancel())
    await until(lambda: server.active_calls == 39)
    go_on.set()
    assert [await soon(handle.result()) for handle in handles[1:]] == list(range(1, 40))
    assert (await cards(client, 1))["pair:a"].session_present is False


async def test_servers_on_one_connection_serve_and_stand_by_each_for_itself(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    """An agent's connection can have any number of tool servers."""
    runs = Runs()
    await soon(runs.offer(make_server("pair", replica="elsewhere")).start())
    async with Agent("host", broker=broker.url, namespace=namespace, store=MemoryStore()) as agent:
        hosted, other = runs.offer(make_server("pair", replica="hosted")), make_server("other", replica="x")

        @other.tool
        async def answer() -> int:
            return 42

        await soon(agent.serve_tools(hosted))
        await soon(agent.serve_tools(other))
        client = await make_client()
        assert [await soon(client.call("work", {"n": n}, wait_online=True)) for n in range(20)] == ["elsewhere"] * 20
        assert await soon(client.call("answer", wait_online=True)) == 42
        found = {card.server: card.standby for card in await client.list_servers()}
        assert found == {"pair:elsewhere": False, "pair:hosted": True, "other:x": False}
    assert set(runs.calls.values()) == {1}


async def test_a_server_on_an_agents_connection_is_replaced_when_the_agent_is_gone(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    runs = Runs()
    async with Proxy(broker.url) as proxy:
        where = {"broker": proxy.url, "namespace": namespace, "will_delay": 1}
        async with Agent("host", store=MemoryStore(), **where) as agent:
            await soon(agent.serve_tools(runs.offer(make_server("pair", replica="hosted"))))
            client = await make_client()
            assert await soon(client.call("work", {"n": 0}, wait_online=True)) == "hosted"
            await soon(runs.offer(make_server("pair", replica="other")).start())
            await cards(client, 2)
            await proxy.cut()
            await cards(client, 1)
            # The broker also keeps these calls in the session of the agent.
            assert [await soon(client.call("work", {"n": n}, wait_online=True)) for n in range(1, 20)] == ["other"] * 19
            await proxy.mend()
            assert (await cards(client, 2))["pair:hosted"].standby
            assert [await soon(client.call("work", {"n": n})) for n in range(20, 40)] == ["other"] * 20
    assert runs.by == {"hosted": 1, "other": 39}
