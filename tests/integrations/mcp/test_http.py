"""MCP servers over streamable HTTP: their calls, and what happens when they are restarted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
from brokers import free_port
from mcp_mqtt_agent import Bridge
from mqtt_agent import ToolClient
from support import becomes, kill, soon

from .conftest import SDK_SERVER, MakeBridge, shows
from .test_bridge import SDK_TOOLS

StartHTTP = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def start_http(port: int) -> Iterator[StartHTTP]:
    """Starts the SDK's server over HTTP, and waits until it listens."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*SDK_SERVER, str(port)], stderr=subprocess.PIPE)
        started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if b"running on" in line:
                break
        return process

    yield start
    for process in started:
        kill(process)


async def test_a_server_over_http_is_offered_and_its_restart_is_survived(
    make_bridge: MakeBridge, client: ToolClient, start_http: StartHTTP, port: int
) -> None:
    first = start_http()
    await make_bridge("sdk", f"http://127.0.0.1:{port}/mcp", headers={"X-Test": "1"})
    await shows(client, *SDK_TOOLS)
    before = await soon(client.call("sdk.pid"))
    kill(first)
    start_http()

    async def answers() -> bool:
        try:
            return (await client.call("sdk.pid", wait_online=True, timeout=10)) != before
        except Exception:
            return False

    await becomes(answers, 30)
    assert await soon(client.call("sdk.add", {"a": 1, "b": 2}), 20) == {"sum": 3}


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_call_that_takes_more_than_30_s_over_http_is_not_cut_off(
    make_bridge: MakeBridge, client: ToolClient, start_http: StartHTTP, port: int
) -> None:
    start_http()
    await make_bridge("sdk", f"http://127.0.0.1:{port}/mcp")
    await shows(client, *SDK_TOOLS)
    assert await client.call("sdk.nap", {"seconds": 35}, timeout=120) == {"result": "awake"}


async def test_a_server_that_is_not_there_is_an_error_that_says_so(port: int) -> None:
    with pytest.raises(ConnectionError, match=f"http://127.0.0.1:{port}/mcp does not answer: ConnectError"):
        await soon(Bridge("none", f"http://127.0.0.1:{port}/mcp").start(), 20)
