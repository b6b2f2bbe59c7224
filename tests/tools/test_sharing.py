"""Several endpoints on one connection."""

from __future__ import annotations

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import Connection, ToolClient, ToolContext, ToolServer
from support import soon

from .conftest import MakeClient

RUN_ON = ALL_BROKERS


async def test_a_server_and_a_client_share_one_connection(
    broker: Broker, namespace: str, make_client: MakeClient
) -> None:
    connection = Connection(broker.url)
    server = ToolServer("inside", namespace=namespace, connection=connection)
    client = ToolClient("beside", namespace=namespace, connection=connection)
    stranger = await make_client()

    @server.tool
    async def echo(text: str, ctx: ToolContext) -> str:
        await ctx.stream(text)
        return text

    async with server, client:
        for number in range(3):
            text, partials = f"own {number}", list[str]()
            assert await soon(client.call("echo", {"text": text}, on_partial=partials.append)) == text
            assert partials == [text]
            assert await soon(stranger.call("echo", {"text": "theirs"}, wait_online=True)) == "theirs"
        assert connection.epoch == stranger.connection.epoch == 1 or not broker.keeps_shared_messages
        await soon(client.stop())
        assert await soon(stranger.call("echo", {"text": "still"})) == "still"
    assert not connection.started


async def test_a_server_must_be_made_before_its_connection_starts(broker: Broker, namespace: str) -> None:
    connection = Connection(broker.url)
    async with ToolClient(namespace=namespace, connection=connection):
        with pytest.raises(ValueError, match="create the tool server first"):
            ToolServer("late", namespace=namespace, connection=connection)
