"""A broker that limits the life of messages: cards are published again before the broker forgets them."""

from __future__ import annotations

import pytest
from mqtt_agent import Agent, MemoryStore, ToolClient, ToolServer
from scripted import ScriptedBroker
from support import becomes, soon, until

LIFE = 3


@pytest.mark.rule("PRES-14")
async def test_a_newcomer_finds_the_tool_whose_card_the_broker_would_have_forgotten(namespace: str) -> None:
    async with ScriptedBroker(longest_life=LIFE, tells_life=True) as broker:
        server = ToolServer("weather", broker=broker.url, namespace=namespace)
        server.add_tool("forecast", lambda: 7)
        async with server:
            topics = {message.topic for message in broker.published if message.retain}
            assert len(topics) == 2

            def times() -> int:
                return min(sum(each.topic == topic for each in broker.published) for topic in topics)

            await until(lambda: times() >= 4)  # the first card is forgotten by now
            assert topics <= set(broker.retained)
            async with ToolClient("caller", broker=broker.url, namespace=namespace) as client:
                assert [card.tool for card in await soon(client.list_tools())] == ["forecast"]
                assert await soon(client.call("forecast")) == 7


@pytest.mark.rule("PRES-14")
async def test_a_newcomer_finds_the_agent_whose_card_the_broker_would_have_forgotten(namespace: str) -> None:
    async with ScriptedBroker(longest_life=LIFE, tells_life=True) as broker:
        async with Agent("worker", broker=broker.url, namespace=namespace, store=MemoryStore()):
            topics = {message.topic for message in broker.published if message.retain}
            assert len(topics) == 2

            def times() -> int:
                return min(sum(each.topic == topic for each in broker.published) for topic in topics)

            await until(lambda: times() >= 4)
            assert topics <= set(broker.retained)
            async with Agent("boss", broker=broker.url, namespace=namespace, store=MemoryStore()) as boss:
                await becomes(boss.peers)


async def test_two_replicas_publish_the_card_of_their_tool_as_often_as_one(namespace: str) -> None:
    async with ScriptedBroker(longest_life=LIFE, tells_life=True) as broker:
        servers = [ToolServer("weather", broker=broker.url, namespace=namespace) for _ in range(2)]
        for server in servers:
            server.add_tool("forecast", lambda: 7)
        async with servers[0], servers[1]:
            tool = next(message.topic for message in broker.published if "/tools/" in message.topic)

            def published(topic: str) -> int:
                return sum(each.topic == topic for each in broker.published)

            before = published(tool)
            own = next(topic for topic in broker.retained if servers[0].server_id in topic)
            first = published(own)
            await until(lambda: published(own) >= first + 3)
            assert published(tool) - before <= 5
