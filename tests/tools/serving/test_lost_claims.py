"""The election when the connection of a replica is lost, at a broker without shared subscriptions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import Broker, Ejabberd
from mqtt_agent import Connection, ToolClient, ToolServer
from mqtt_agent.tools.calling import live_catalog
from mqtt_agent.tools.serving import election
from mqtt_agent.tools.serving.election import Election
from proxy import Proxy
from support import becomes, soon, until

from .test_election import Runs, cards

RUN_ON = [Ejabberd]


def lose_the_network_after(monkeypatch: pytest.MonkeyPatch, step: str, proxy: Proxy) -> None:
    """Reset the connection of a replica when its election has first done this step, and wait until it is back."""
    done = getattr(ToolServer, step, None) or getattr(Election, step)
    lost = asyncio.Event()

    async def lose_then_go_on(part: Any) -> None:
        await done(part)
        connection = part.connection if isinstance(part, ToolServer) else part._connection
        if not lost.is_set():
            lost.set()
            epoch = connection.epoch
            proxy.drop()
            await until(lambda: connection.epoch > epoch and connection.connected)

    monkeypatch.setattr(ToolServer if hasattr(ToolServer, step) else Election, step, lose_then_go_on)


class Noted:
    """What a replica does at the broker: the questions for other claims, and the subscriptions to the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[int] = []
        """The epochs of the connection in which it asked for other claims."""
        self.taken: list[tuple[int, bool]] = []
        """The epochs in which it took the calls, each with whether it also took those that waited in its session."""
        ask, take = Election._ask_claimants, Connection.take_alone

        async def ask_claimants(election: Election) -> None:
            self.asked.append(election._connection.epoch)
            await ask(election)

        async def take_alone(connection: Connection, owner: str, *, keep: bool) -> None:
            self.taken.append((connection.epoch, keep))
            await take(connection, owner, keep=keep)

        monkeypatch.setattr(Election, "_ask_claimants", ask_claimants)
        monkeypatch.setattr(Connection, "take_alone", take_alone)


@pytest.mark.rule("SHARE-5", "SHARE-7")
@pytest.mark.parametrize("step", ["_ask_claimants", "_claim_when_elected"])
async def test_a_claim_whose_connection_was_lost_is_made_again_and_takes_no_calls_that_waited(
    step: str, broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, noted = Runs(), Noted(monkeypatch)
    async with Proxy(broker.url) as proxy:
        server = runs.offer(ToolServer("pair", broker=proxy.url, namespace=namespace, replica="a", will_delay=20))
        lose_the_network_after(monkeypatch, step, proxy)
        await soon(server.start())
        async with ToolClient(broker=broker.url, namespace=namespace) as client:
            await cards(client, 1)
        epoch = server.connection.epoch
        assert epoch > 1
        assert noted.taken == [(epoch, False)], "the claim of the first connection was never valid"
        assert noted.asked[-1] == epoch
        await soon(server.stop())


@pytest.mark.rule("SHARE-7")
async def test_a_card_that_arrives_after_the_last_will_is_no_claim_that_stands(
    broker: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that was published just before the network was cut is sent again after the reconnect."""
    runs, noted = Runs(), Noted(monkeypatch)
    async with Proxy(broker.url) as proxy, ToolClient(broker=broker.url, namespace=namespace) as client:
        options = {"replica": "a", "will_delay": 0, "session_expiry": 60}
        async with runs.offer(ToolServer("pair", broker=proxy.url, namespace=namespace, **options)) as server:
            await cards(client, 1)
            epoch = server.connection.epoch
            proxy.hold()
            server._presence.show_again()
            await asyncio.sleep(0)  # the card is sent
            await proxy.cut()
            await becomes(lambda: _none_online(client))
            proxy.release()
            await proxy.mend()
            await until(lambda: len(noted.taken) == 2)
            assert noted.taken == [(epoch, False), (server.connection.epoch, False)]


async def _none_online(client: ToolClient) -> bool:
    return not await client.list_servers()


def test_a_caller_waits_for_a_takeover_for_longer_than_a_replica_asks_for_other_claims() -> None:
    assert live_catalog._TAKEN_OVER_WITHIN > 2 * election._ANSWERS_WITHIN  # the first claim may lose its connection
