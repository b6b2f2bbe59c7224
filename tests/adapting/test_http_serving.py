"""The socket of an HTTP server of ours."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import pytest
from mqtt_agent.adapting.http_serving import listening_at
from support import soon


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_body_of_an_answer_does_not_wait_for_the_acknowledgement_of_its_headers(host: str) -> None:
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            sock: socket.socket = transport.get_extra_info("socket")
            accepted.set_result(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    with listening_at(host, 0) as listening:
        server = await asyncio.get_running_loop().create_server(Connection, sock=listening)
        with closing(socket.create_connection(listening.getsockname()[:2])):
            assert await soon(accepted)
        server.close()
