"""A message for which the broker closes the connection each time is given up, and all other messages are sent."""

from __future__ import annotations

import asyncio

import pytest
from mqtt_agent import Agent, Connection, MemoryStore, ToolClient, ToolServer
from mqtt_agent.errors import PoisonMessage, TaskFailed, ToolFailed
from mqtt_agent.transport import PublishProperties
from proxy import Proxy
from scripted import Message, ScriptedBroker
from support import becomes, soon, until

MANY = PublishProperties(user_properties=(("key", "value"),) * 60)


async def test_the_message_that_costs_the_connection_three_times_is_given_up_and_the_others_arrive() -> None:
    async with ScriptedBroker(most_user_properties=50) as broker:
        connection = Connection(broker.url)
        await soon(connection.start())
        before = [connection.publish_soon("a/b", b"before %d" % number) for number in range(5)]
        poison = connection.publish_soon("a/b", b"poison", properties=MANY)
        behind = [connection.publish_soon("a/b", b"behind %d" % number) for number in range(5)]
        with pytest.raises(PoisonMessage, match=r"a message of 6 bytes for a/b was given up: .* closed .* 3 times"):
            await soon(poison)
        await soon(asyncio.gather(*before, *behind))
        assert broker.connects[connection.client_id] <= 5
        connects = broker.connects[connection.client_id]
        with pytest.raises(PoisonMessage):  # refused at once, and the connection lives
            await soon(connection.publish("a/b", b"poison", properties=MANY))
        await soon(connection.publish("a/b", b"later"))
        assert broker.connects[connection.client_id] == connects
        arrived = {message.payload for message in broker.published}
        assert {b"before 4", b"behind 4", b"later"} <= arrived
        assert b"poison" not in arrived
        await soon(connection.stop())


async def test_a_message_is_not_given_up_because_the_network_breaks_again_and_again() -> None:
    async with ScriptedBroker() as broker, Proxy(broker.url) as proxy:
        connection = Connection(proxy.url)
        await soon(connection.start())
        await soon(connection.publish("a/b", b"first"))
        for _ in range(5):
            proxy.hold(down=True, up=False)
            sent = [connection.publish_soon("a/b", b"%d" % number) for number in range(5)]
            await until(lambda: broker.published[-1].payload == b"4")
            proxy.drop()
            proxy.release()
            await soon(asyncio.gather(*sent))
        await soon(connection.stop())


def poisonous(broker: ScriptedBroker, topic_part: str) -> None:
    """Let the broker close the connection for each message to a topic with this part."""

    def close(topic: str) -> int | None:
        if topic_part in topic:
            raise ConnectionResetError
        return None

    broker.change(puback=close)


async def test_a_call_that_costs_the_connection_fails_and_other_calls_go_on(namespace: str) -> None:
    async with ScriptedBroker() as broker:
        server = ToolServer("server", broker=broker.url, namespace=namespace)
        server.add_tool("good", lambda: "good")
        server.add_tool("poison", lambda: "poison")
        async with server, ToolClient("caller", broker=broker.url, namespace=namespace) as client:
            await becomes(client.list_tools)
            poisonous(broker, "poison/call")
            bad = asyncio.ensure_future(client.call("poison"))
            good = asyncio.gather(*(client.call("good") for _ in range(10)))
            with pytest.raises(PoisonMessage):
                await soon(bad, 20)
            assert await soon(good) == ["good"] * 10


async def test_the_caller_is_told_when_the_response_costs_the_connection(namespace: str) -> None:
    async with ScriptedBroker() as broker:
        server = ToolServer("server", broker=broker.url, namespace=namespace)
        server.add_tool("big", lambda: "X" * 5_000)
        async with server, ToolClient("caller", broker=broker.url, namespace=namespace) as client:
            await becomes(client.list_tools)
            close_for_large(broker)
            with pytest.raises(ToolFailed, match="its result cannot be sent: a message of .* was given up") as caught:
                await soon(client.call("big"), 20)
            assert caught.value.code == "RESULT_REFUSED"


async def test_a_task_that_costs_the_connection_fails_and_other_tasks_go_on(namespace: str) -> None:
    async with ScriptedBroker() as broker:
        async with Agent("worker", broker=broker.url, namespace=namespace, store=MemoryStore()) as worker:

            @worker.on_task
            async def work(task: object) -> str:
                return "done"

            async with Agent("boss", broker=broker.url, namespace=namespace, store=MemoryStore()) as boss:
                await becomes(boss.peers)
                close_for_large(broker)
                with pytest.raises(PoisonMessage, match="was given up"):
                    await soon(boss.request("worker", "X" * 5_000), 20)
                good = (boss.request("worker", "x") for _ in range(5))
                assert await soon(asyncio.gather(*good), 20) == ["done"] * 5


async def test_the_requester_is_told_when_the_result_costs_the_connection(namespace: str) -> None:
    async with ScriptedBroker() as broker:
        async with Agent("worker", broker=broker.url, namespace=namespace, store=MemoryStore()) as worker:

            @worker.on_task
            async def work(task: object) -> str:
                return "X" * 5_000

            async with Agent("boss", broker=broker.url, namespace=namespace, store=MemoryStore()) as boss:
                await becomes(boss.peers)
                close_for_large(broker)
                with pytest.raises(TaskFailed, match="was completed, but its result cannot be sent") as caught:
                    await soon(boss.request("worker", "x"), 20)
                assert caught.value.type == "result_refused"


def close_for_large(broker: ScriptedBroker) -> None:
    """Let the broker close the connection for each message of more than 4,000 bytes."""
    publish = broker.publish

    def close(message: Message) -> int:
        if len(message.payload) > 4_000:
            broker.published.remove(message)
            raise ConnectionResetError
        return publish(message)

    broker.publish = close
