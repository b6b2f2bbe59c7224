"""The cost of a tool call, counted and not timed: MQTT packets, bytes, and Python calls."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from brokers import Broker, Embedded, Mosquitto
from mqtt_agent import ToolClient, ToolServer
from support import soon, until

from .counting import CountingIdentity, CountingProxy, counted_calls, counted_instructions, identities

CALLS = 50
ARGUMENTS = {"text": "123456789"}

BYTES_PER_CALL = {"client sends": 420, "client gets": 280, "server sends": 280, "server gets": 420}
PYTHON_CALLS_PER_CALL = 395
"""The measured number is 364. If paho-mqtt wrote and read each PUBLISH, the number would be 660."""
PYTHON_CALLS_PER_CALL_AT_ONCE = 320
"""The measured number is 290. If each message that waits were packed twice, the number would be 340."""
INSTRUCTIONS_PER_CALL = {1: 9_800, 64: 7_900}
"""By the number of calls at once. The measured numbers are 9,400 and 7,100. On a busy machine, waiting calls are packed
again."""

PYTHON_CALLS_MORE_PER_SIGNED_CALL = 180
"""The measured number is 170, and includes the calls of :class:`CountingIdentity`."""


def make_server(url: str, namespace: str, identity: CountingIdentity | None = None) -> ToolServer:
    server = ToolServer("server", broker=url, namespace=namespace, identity=identity)

    @server.tool
    async def echo(text: str) -> dict[str, str]:
        return {"text": text}

    return server


@contextlib.asynccontextmanager
async def counted(broker: Broker, namespace: str) -> AsyncIterator[tuple[ToolClient, CountingProxy, CountingProxy]]:
    """A client and a server that have completed their start, each behind a counting proxy."""
    async with CountingProxy(broker.url) as near_client, CountingProxy(broker.url) as near_server:
        async with make_server(near_server.url, namespace):
            async with ToolClient("client", broker=near_client.url, namespace=namespace) as client:
                await soon(client.call("echo", ARGUMENTS))
                await until(lambda: near_server.sent.packets[-2:] == ["PUBLISH", "PUBACK"])
                await until(lambda: near_client.sent.packets[-1:] == ["PUBACK"])
                near_client.forget()
                near_server.forget()
                yield client, near_client, near_server


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each version of Python has other instructions")
@pytest.mark.parametrize("at_once", INSTRUCTIONS_PER_CALL)
async def test_a_call_costs_few_bytecode_instructions(mosquitto: Mosquitto, namespace: str, at_once: int) -> None:
    each_calls = max(1, 192 // at_once)

    async def call_often(client: ToolClient) -> None:
        for _ in range(each_calls):
            await client.call("echo", ARGUMENTS)

    async with (
        make_server(mosquitto.url, namespace),
        ToolClient("client", broker=mosquitto.url, namespace=namespace) as client,
    ):
        await soon(client.call("echo", ARGUMENTS))
        with counted_instructions() as instructions:
            await asyncio.gather(*(call_often(client) for _ in range(at_once)))
    assert instructions.count / each_calls / at_once <= INSTRUCTIONS_PER_CALL[at_once]


@pytest.mark.parametrize("kind", [Embedded, Mosquitto], ids=lambda kind: kind.name)
async def test_a_call_costs_each_side_two_packets_there_and_two_back(
    kind: type[Embedded | Mosquitto], request: pytest.FixtureRequest, namespace: str
) -> None:
    broker: Broker = request.getfixturevalue(kind.name)
    async with counted(broker, namespace) as (client, near_client, near_server):
        for _ in range(CALLS):
            assert await soon(client.call("echo", ARGUMENTS)) == ARGUMENTS
        once_each = Counter({"PUBLISH": CALLS, "PUBACK": CALLS})
        flows = {
            "client sends": near_client.sent,  # the call, and the acknowledgement of the answer
            "client gets": near_client.received,  # the acknowledgement of the call, and the answer
            "server sends": near_server.sent,  # the answer, and then the acknowledgement of the call
            "server gets": near_server.received,  # the call, and the acknowledgement of the answer
        }
        await until(lambda: all(len(flow.packets) >= 2 * CALLS for flow in flows.values()))
        assert {name: Counter(flow.packets) for name, flow in flows.items()} == dict.fromkeys(flows, once_each)
        for name, flow in flows.items():
            assert flow.bytes / CALLS <= BYTES_PER_CALL[name], name


async def test_a_second_listing_costs_no_packet(mosquitto: Mosquitto, namespace: str) -> None:
    async with counted(mosquitto, namespace) as (client, near_client, _):
        first = await soon(client.list_tools())
        near_client.forget()
        assert await soon(client.list_tools()) == first
        assert await soon(client.list_tools(server="server")) == first
        assert [card.server for card in await soon(client.list_servers())]
        await soon(client.call("echo", ARGUMENTS))  # any packet that the listing sent has passed before
        await until(lambda: len(near_client.sent.packets) >= 2)
        assert near_client.sent.packets == ["PUBLISH", "PUBACK"]
        assert sorted(near_client.received.packets) == ["PUBACK", "PUBLISH"]


async def test_calls_that_wait_for_the_brokers_window_cost_few_python_calls(
    mosquitto: Mosquitto, namespace: str
) -> None:
    at_once = 64  # Mosquitto takes 20 messages before it has confirmed the first of them

    async def call_often(client: ToolClient) -> None:
        for _ in range(CALLS):
            await client.call("echo", ARGUMENTS)

    async with (
        make_server(mosquitto.url, namespace),
        ToolClient("client", broker=mosquitto.url, namespace=namespace) as client,
    ):
        await soon(client.call("echo", ARGUMENTS))
        with counted_calls() as calls:
            await asyncio.gather(*(call_often(client) for _ in range(at_once)))
    assert calls.count / CALLS / at_once <= PYTHON_CALLS_PER_CALL_AT_ONCE


async def test_a_call_costs_few_python_calls(mosquitto: Mosquitto, namespace: str) -> None:
    async with (
        make_server(mosquitto.url, namespace),
        ToolClient("client", broker=mosquitto.url, namespace=namespace) as client,
    ):
        await soon(client.call("echo", ARGUMENTS))
        with counted_calls() as calls:
            for _ in range(CALLS):
                await client.call("echo", ARGUMENTS)
    # Client and server together, with their event loop, and without calls of C functions.
    assert calls.count / CALLS <= PYTHON_CALLS_PER_CALL


async def test_a_signed_call_costs_two_signatures_two_checks_and_few_python_calls(
    mosquitto: Mosquitto, namespace: str
) -> None:
    async def count(namespace: str, near: CountingIdentity | None, far: CountingIdentity | None) -> float:
        async with (
            make_server(mosquitto.url, namespace, far),
            ToolClient("client", broker=mosquitto.url, namespace=namespace, identity=near) as client,
        ):
            await soon(client.call("echo", ARGUMENTS))
            before = [each.count for each in (near, far) if each is not None]
            with counted_calls() as calls:
                for _ in range(CALLS):
                    await client.call("echo", ARGUMENTS)
            after = [each.count for each in (near, far) if each is not None]
        assert after == [each + Counter(signed=CALLS, checked=CALLS) for each in before]
        return calls.count / CALLS

    signed = await count(f"{namespace}/signed", *identities("client", "server"))
    plain = await count(f"{namespace}/plain", None, None)
    assert signed - plain <= PYTHON_CALLS_MORE_PER_SIGNED_CALL
