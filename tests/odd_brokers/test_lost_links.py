"""A network connection that is lost in the very moment in which it is ready for use."""

from __future__ import annotations

import asyncio
import re

import pytest
from mqtt_agent import Connection, ToolClient, ToolServer
from mqtt_agent.aio.backoff import Backoff
from mqtt_agent.endpoints import copies
from mqtt_agent.errors import TopicNotAuthorized
from mqtt_agent.tools.serving import election
from mqtt_agent.transport import reconnect
from mqtt_agent.wire import Topics
from scripted import ScriptedBroker
from support import soon, until


@pytest.mark.parametrize("turns", range(6))
async def test_messages_are_sent_over_the_next_link_when_a_link_is_lost_with_the_last_answer(turns: int) -> None:
    """The broker closes the connection some turns of the event loop after its SUBACK."""
    async with ScriptedBroker(sessions=False) as broker:
        connection = Connection(broker.url)
        await soon(connection.start())
        await soon(connection.subscribe("a/b", print))
        session = broker.session(connection.client_id)
        closed = 0

        def close_soon(left: int) -> None:
            nonlocal closed
            if left:
                asyncio.get_running_loop().call_soon(close_soon, left - 1)
                return
            closed += 1
            again = broker.session(connection.client_id)
            assert again.writer is not None
            again.writer.transport.abort()

        def suback(topic_filter: str) -> None:
            if not closed:
                close_soon(turns + 1)

        broker.change(suback=suback)
        assert session.writer is not None
        session.writer.transport.abort()
        await until(lambda: not connection.connected)
        sending = [connection.publish_soon("c/d", b"%d" % number) for number in range(5)]
        assert [await soon(each) for each in sending] == [0x10] * 5
        assert closed == 1
        await soon(connection.stop())


@pytest.mark.rule("ACCESS-1")
async def test_a_server_comes_back_although_the_broker_refuses_now_what_the_server_can_do_without(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rights of the server were taken away, or the network was lost before the broker refused."""
    monkeypatch.setattr(Backoff, "next_wait", lambda self: 0.02)
    monkeypatch.setattr(election, "_ANSWERS_WITHIN", 0.02)
    monkeypatch.setattr(copies, "_LEAST", 0.02)
    async with ScriptedBroker(connack=(0, b"\x2a\x00")) as broker:  # a cluster may keep retained messages apart
        server = ToolServer("weather", broker=broker.url, namespace=namespace)
        server.add_tool("forecast", lambda: "sun")
        await soon(server.start())
        refused, epoch = list[str](), server.connection.epoch
        optional = {server._answers._questions, server._election._claims_topic}

        def suback(topic_filter: str) -> int | None:
            if topic_filter not in optional:
                return None
            refused.append(topic_filter)
            return 0x87

        broker.change(suback=suback)
        broker.drop(server.connection.client_id)
        await until(lambda: server.connection.epoch > epoch and server.connection.connected)
        assert set(refused) == optional
        await soon(server.stop())


@pytest.mark.rule("ACCESS-2")
async def test_a_client_comes_back_although_the_broker_refuses_now_to_tell_it_changes(
    namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Backoff, "next_wait", lambda self: 0.02)
    async with ScriptedBroker() as broker, ToolClient("caller", broker=broker.url, namespace=namespace) as client:
        changes = client.watch_changes()
        await until(lambda: any("/events/" in each for each in broker.subscribed))
        epoch = client.connection.epoch
        broker.change(suback=lambda topic_filter: 0x87 if "/events/" in topic_filter else None)
        broker.drop(client.connection.client_id)
        await until(lambda: client.connection.epoch > epoch and client.connection.connected)
        await until(lambda: "hears of no changes" in caplog.text)
        changes.close()


@pytest.mark.rule("ACCESS-1")
async def test_calls_that_wait_get_the_reason_when_a_needed_subscription_is_refused_at_each_reconnect(
    namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As for a refused login: somebody must give the right back, and then the client works again."""
    monkeypatch.setattr(Backoff, "next_wait", lambda self: 0.02)
    monkeypatch.setattr(reconnect, "_REFUSED_FOR", 0.1)
    async with ScriptedBroker() as broker, ToolServer("weather", broker=broker.url, namespace=namespace) as server:
        server.add_tool("forecast", lambda: "sun")
        async with ToolClient("caller", broker=broker.url, namespace=namespace) as client:
            assert await soon(client.call("forecast", wait_online=True)) == "sun"
            inbox = Topics(namespace).client_responses("caller")
            broker.change(suback=lambda topic_filter: 0x87 if topic_filter == inbox else None)
            broker.drop(client.connection.client_id)
            await until(lambda: not client.connection.connected)
            with pytest.raises(TopicNotAuthorized, match=re.escape(inbox)):
                await soon(client.call("forecast", timeout=30))
            assert caplog.text.count("failed and will be tried again") == 1
            broker.change(suback=lambda topic_filter: None)
            await until(lambda: client.connection.connected)
            assert await soon(client.call("forecast", wait_online=True)) == "sun"


async def test_a_link_that_is_lost_while_the_client_subscribes_says_so(
    namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some brokers end the connection of a client that has no right to subscribe."""
    monkeypatch.setattr(Backoff, "next_wait", lambda self: 0.02)
    async with ScriptedBroker() as broker, ToolClient("caller", broker=broker.url, namespace=namespace) as client:
        name = client.connection.client_id

        def refuse(topic_filter: str) -> int | None:
            broker.drop(name)
            return None

        broker.change(suback=refuse)
        broker.drop(name)
        await until(lambda: f"while {name!r} subscribed: brokers may do this when they do not allow" in caplog.text)
        broker.change(suback=lambda topic_filter: None)
        await until(lambda: client.connection.connected)
