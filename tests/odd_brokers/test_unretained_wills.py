"""Retained cards that say online although their process is gone, at a broker that does not say when nobody listens.

Such a card stays when the broker publishes a Last Will without retaining it, or was killed before it could publish it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from brokers.rough import breaks
from mqtt_agent import Agent, Connection, MemoryStore, ToolClient, ToolServer
from mqtt_agent.aio.backoff import Backoff
from mqtt_agent.endpoints.outlived import Outlived, identify_card
from mqtt_agent.errors import CallerNotAuthorized
from mqtt_agent.identity import Identity, PrivateKey, TrustedKeys
from mqtt_agent.tools.serving import names, probe, rivals
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import ServerCard, Topics
from proxy import Proxy
from scripted import Message, ScriptedBroker
from support import becomes, soon, until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_ANSWERS_WITHIN", 0.4)
    monkeypatch.setattr(rivals, "_ASK_AGAIN", 0.1)
    monkeypatch.setattr(names, "_ASK_AFTER", 0.2)


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedBroker]:
    async with ScriptedBroker(matching=False, retains_wills=False) as broker:
        yield broker


def server(name: str, url: str, namespace: str, **options: Any) -> ToolServer:
    made = ToolServer(name, broker=url, namespace=namespace, will_delay=0, on_conflict="standby", **options)
    made.add_tool("search", lambda: name)
    return made


def online_card(namespace: str, server: str = "github:dead") -> tuple[str, bytes]:
    card = {"server": server, "name": "github", "tools": ["search"], "status": "online", "features": ["query"]}
    payload = json.dumps({**card, "started": "2026-01-01T00:00:00.000Z", "epoch": 1}).encode()
    return Topics(namespace).server_card(server), payload


def left_behind(scripted: ScriptedBroker, namespace: str) -> None:
    """Let the broker keep the cards of a server that is gone."""
    tool = json.dumps({"tool": "search", "server": "github", "status": "online"}).encode()
    for topic, payload in (online_card(namespace), (Topics(namespace).tool_card("search"), tool)):
        scripted.publish(Message(topic, payload, 1, True, b""))


def questions(scripted: ScriptedBroker, namespace: str, server: str) -> int:
    """How many questions whether a server is there the broker has got."""
    prefix = Topics(namespace).server_query(server)
    others = [each for each in scripted.published if each.topic.startswith(prefix)]
    return sum(f'"client":"{server}"'.encode() not in each.payload for each in others)


async def reconnects(scripted: ScriptedBroker, client: str, subscription: str) -> None:
    """Break the connection of a client, and wait until the client has made a subscription again."""
    made = scripted.subscribed.count(subscription)
    scripted.drop(next(name for name in scripted.sessions if client in name))
    await until(lambda: scripted.subscribed.count(subscription) > made)


def is_on_standby(server: ToolServer, scripted: ScriptedBroker, namespace: str) -> bool:
    kept = scripted.retained.get(Topics(namespace).server_card(server.server_id))
    return kept is not None and json.loads(kept.payload).get("refused") == ["search"]


@pytest.mark.rule("LATE-7")
async def test_the_server_on_standby_takes_over_from_a_killed_server_whose_card_stays_online(
    scripted: ScriptedBroker, namespace: str
) -> None:
    async with Proxy(scripted.url) as near, server("github", near.url, namespace):
        async with server("jira", scripted.url, namespace) as jira:
            assert is_on_standby(jira, scripted, namespace)
            async with ToolClient("caller", broker=scripted.url, namespace=namespace) as client:
                assert await soon(client.call("search")) == "github"
                await near.cut()
                await until(lambda: not is_on_standby(jira, scripted, namespace))
                assert await soon(client.call("search", wait_online=True)) == "jira"


@pytest.mark.rule("OWN-10")
async def test_a_newcomer_takes_the_name_of_a_server_that_does_not_answer(
    scripted: ScriptedBroker, namespace: str
) -> None:
    left_behind(scripted, namespace)
    async with server("jira", scripted.url, namespace) as jira:
        if breaks():  # a broken connection may put the decision off until after the start
            await until(lambda: not is_on_standby(jira, scripted, namespace), 60)
        assert not is_on_standby(jira, scripted, namespace)
        asked = questions(scripted, namespace, "github:dead")
        assert asked == 2 or (asked > 2 and breaks())


@pytest.mark.rule("OWN-10")
@pytest.mark.parametrize(
    "bound", ["prefer", *(pytest.param(each, marks=pytest.mark.long) for each in ("off", "require"))]
)
async def test_a_newcomer_waits_for_a_server_that_answers_and_asks_it_once(
    bound: Any, scripted: ScriptedBroker, namespace: str
) -> None:
    """From then on, the Last Will will tell. A silent network takes no name from a server before that."""
    async with Proxy(scripted.url) as near:
        github = server("github", near.url, namespace, replica="a", bound=bound)
        async with github, server("jira", scripted.url, namespace, bound=bound) as jira:
            assert is_on_standby(jira, scripted, namespace)
            near.hold()
            asked = questions(scripted, namespace, github.server_id)
            await until(lambda: questions(scripted, namespace, github.server_id) >= asked + 4)
            assert is_on_standby(jira, scripted, namespace)
            near.release()


@pytest.mark.rule("OWN-10")
async def test_a_server_that_can_get_no_answer_takes_nobody_for_gone(scripted: ScriptedBroker, namespace: str) -> None:
    left_behind(scripted, namespace)
    scripted.change(suback=lambda topic_filter: 0x87 if "/responses" in topic_filter else None)
    async with server("jira", scripted.url, namespace) as jira:
        asked = questions(scripted, namespace, "github:dead")
        await until(lambda: questions(scripted, namespace, "github:dead") >= asked + 3)
        assert is_on_standby(jira, scripted, namespace)


@pytest.mark.rule("OWN-10")
async def test_servers_that_act_only_upon_proven_messages_ask_each_other_too(
    scripted: ScriptedBroker, namespace: str
) -> None:
    keys = {name: PrivateKey.new(name) for name in ("github", "jira")}
    trusted = [key.public for key in keys.values()]
    github, jira = (Identity(key, TrustedKeys(trusted), verify="require") for key in keys.values())
    async with Proxy(scripted.url) as near, server("github", near.url, namespace, identity=github):
        async with server("jira", scripted.url, namespace, identity=jira) as newcomer:
            assert is_on_standby(newcomer, scripted, namespace)
        await near.cut()
        await until(lambda: scripted.session("github").writer is None)
        async with server("jira", scripted.url, namespace, identity=jira) as newcomer:
            assert not is_on_standby(newcomer, scripted, namespace)


@pytest.mark.rule("OWN-10", "SIG-7")
@pytest.mark.parametrize("signs", [False, pytest.param(True, marks=pytest.mark.long)], ids=["unsigned", "signed"])
async def test_a_server_that_the_owner_does_not_trust_does_not_take_its_names(
    signs: bool, scripted: ScriptedBroker, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The owner says that it is there, and nothing else."""
    keys = {name: PrivateKey.new(name) for name in ("github", "jira")}
    github = Identity(keys["github"], TrustedKeys([keys["github"].public]), verify="require")
    both = TrustedKeys(key.public for key in keys.values())
    newcomer = Identity(keys["jira"], both, verify="require") if signs else None
    async with server("github", scripted.url, namespace, identity=github) as owner:
        async with server("jira", scripted.url, namespace, identity=newcomer) as jira:
            assert is_on_standby(jira, scripted, namespace)
            asked = questions(scripted, namespace, owner.server_id)
            await until(lambda: questions(scripted, namespace, owner.server_id) >= asked + 2)
            assert is_on_standby(jira, scripted, namespace)
            async with ToolClient("jira", broker=scripted.url, namespace=namespace, identity=newcomer) as client:
                handle = await soon(client.submit("search"))
                if newcomer is None:
                    with pytest.raises(CallerNotAuthorized):
                        await soon(handle.result())
                await until(lambda: newcomer is None or "does not trust the key of this program" in caplog.text)
                await soon(handle.cancel())


@pytest.mark.long
@pytest.mark.rule("OWN-10", "SIG-6")
async def test_only_the_server_itself_can_say_that_it_is_there(scripted: ScriptedBroker, namespace: str) -> None:
    """On a plain topic, everybody can answer, also somebody with a trusted key who reads the query."""
    left_behind(scripted, namespace)
    keys = {name: PrivateKey.new(name) for name in ("github", "jira", "evil")}
    trusted = [key.public for key in keys.values()]
    jira, evil = (Identity(keys[name], TrustedKeys(trusted)) for name in ("jira", "evil"))
    inbox, attacker = Topics(namespace).client_responses, Connection(scripted.url, identity=evil)
    answered: list[str] = []

    def answer(message: InboundMessage) -> None:
        query = json.loads(message.payload)
        answered.append(query["query_id"])
        response = {"call_id": query["query_id"], "server": "evil", "result": {"known": []}}
        attacker.publish_soon(inbox(query["client"]), json.dumps(response).encode())

    await attacker.start()
    await attacker.subscribe(Topics(namespace).server_query("github:dead"), answer)
    async with server("jira", scripted.url, namespace, identity=jira) as newcomer:
        assert not is_on_standby(newcomer, scripted, namespace)
    assert len(answered) >= 2
    await attacker.stop()


@pytest.mark.rule("OWN-10", "ACCESS-1")
async def test_a_server_whose_connection_ends_when_it_asks_for_answers_serves_all_the_same(
    scripted: ScriptedBroker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some brokers end the connection of a client that has no right to subscribe."""
    monkeypatch.setattr(Backoff, "next_wait", lambda self: 0.02)
    monkeypatch.setattr(names, "PATIENCE", 0.0)
    left_behind(scripted, namespace)
    tries = list[str]()

    def refuse(topic_filter: str) -> int | None:
        if "/responses" in topic_filter and "jira" in topic_filter:
            tries.append(topic_filter)
            scripted.drop(next(client for client in scripted.sessions if "jira" in client))
        return None

    scripted.change(suback=refuse)
    jira = server("jira", scripted.url, namespace)
    jira.add_tool("other", lambda: "served")
    try:
        await soon(jira.start(), 20)
        async with ToolClient("caller", broker=scripted.url, namespace=namespace) as client:
            assert await soon(client.call("other", wait_online=True)) == "served"
            assert is_on_standby(jira, scripted, namespace)
            asked = questions(scripted, namespace, "github:dead")
            await until(lambda: questions(scripted, namespace, "github:dead") >= asked + 2)
            assert len(tries) == 1, "the inbox is tried again later"
    finally:
        await soon(jira.stop(), 20)


@pytest.mark.rule("OWN-10")
async def test_a_server_that_may_not_ask_takes_nobody_for_gone(scripted: ScriptedBroker, namespace: str) -> None:
    left_behind(scripted, namespace)
    dead = Topics(namespace).server_query("github:dead")
    scripted.change(puback=lambda topic: 0x87 if topic.startswith(dead) else None)
    async with server("jira", scripted.url, namespace) as jira:
        assert is_on_standby(jira, scripted, namespace)


@pytest.mark.rule("LATE-7")
async def test_a_stranger_who_says_that_a_live_server_is_offline_takes_nothing_from_it(
    scripted: ScriptedBroker, namespace: str
) -> None:
    async with server("github", scripted.url, namespace, replica="a") as github:
        async with server("jira", scripted.url, namespace) as jira:
            stranger = Connection(scripted.url)
            await stranger.start()
            own = Topics(namespace).server_card(github.server_id)
            forged = json.dumps({**json.loads(scripted.retained[own].payload), "status": "offline"}).encode()
            for retain in (True, False):
                shown = {forged, scripted.retained[own].payload}
                await stranger.publish(own, forged, retain=retain)
                await until(lambda shown=shown: scripted.retained[own].payload not in shown)
            async with ToolClient("caller", broker=scripted.url, namespace=namespace) as client:
                assert [card.server for card in await client.list_servers() if card.tools] == [github.server_id]
                assert await soon(client.call("search")) == "github"
            await until(lambda: is_on_standby(jira, scripted, namespace))
            await stranger.stop()


@pytest.mark.rule("LATE-7")
async def test_a_client_that_has_heard_the_will_of_a_server_does_not_find_it_online_after_a_reconnect(
    scripted: ScriptedBroker, namespace: str
) -> None:
    async with Proxy(scripted.url) as near, server("github", near.url, namespace):
        async with ToolClient("caller", broker=scripted.url, namespace=namespace) as client:
            await becomes(client.list_servers)
            await near.cut()

            async def nobody() -> bool:
                return not await client.list_servers()

            await becomes(nobody)
            await reconnects(scripted, "caller", Topics(namespace).all_server_cards)
            servers, tools = await soon(client.list_servers()), await soon(client.list_tools())
            assert (list(servers), list(tools)) == ([], [])
            for listed in (servers, tools):
                assert listed.incomplete == ["server github: the server has lost its connection, or has died"]


@pytest.mark.rule("LATE-7")
async def test_an_agent_that_has_heard_the_will_of_a_peer_does_not_find_it_online_after_a_reconnect(
    scripted: ScriptedBroker, namespace: str
) -> None:
    worker_options: dict[str, Any] = {"namespace": namespace, "store": MemoryStore(), "will_delay": 0}
    async with Proxy(scripted.url) as near, Agent("worker", broker=near.url, **worker_options):
        async with Agent("boss", broker=scripted.url, namespace=namespace, store=MemoryStore()) as boss:
            await becomes(boss.peers)
            await near.cut()

            async def nobody() -> bool:
                return not await boss.peers()

            await becomes(nobody)
            await reconnects(scripted, "boss", Topics(namespace).all_agent_statuses)
            assert await soon(boss.peers()) == []


def test_a_stranger_with_many_servers_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_MOST_HEARD", 10)
    scope: Any = SimpleNamespace(connection=SimpleNamespace(epoch=1))
    inquiry = probe.Inquiry(scope)
    for number in range(20):
        inquiry.hear("github")
        inquiry.hear(f"stranger-{number}")
    assert len(inquiry._heard) == 10
    assert "github" in inquiry._heard


def card(status: Any, seen: str, epoch: int = 1) -> ServerCard:
    return ServerCard(server="github", started="2026", epoch=epoch, status=status, last_seen=seen)


@pytest.mark.rule("LATE-7")
def test_only_the_very_card_that_a_will_has_ended_is_over() -> None:
    outlived = Outlived(identify_card)
    assert not outlived.is_over(card("online", "1"), None, retained=True)
    assert not outlived.is_over(card("offline", "0"), card("online", "1"), retained=False)
    assert outlived.is_over(card("online", "1"), card("offline", "0"), retained=True)
    assert not outlived.is_over(card("online", "1"), card("offline", "0"), retained=False), "somebody says it now"
    assert not outlived.is_over(card("online", "2"), card("offline", "0"), retained=True), "it was written later"


@pytest.mark.rule("LATE-7")
def test_neither_a_late_nor_a_retained_will_ends_a_card() -> None:
    outlived = Outlived(identify_card)
    present = card("online", "2", epoch=2)
    assert not outlived.is_over(card("offline", "0", epoch=1), present, retained=False)
    assert not outlived.is_over(card("offline", "0", epoch=2), present, retained=True)
    assert not outlived.is_over(present, present, retained=True)
