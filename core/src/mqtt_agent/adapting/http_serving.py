"""Serves clients over HTTP until the asyncio task is canceled, and lets open requests end."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

__all__ = ["HTTPServer", "listening_at", "serve_until_canceled"]


class HTTPServer(Protocol):
    """The part of a ``uvicorn.Server`` that is needed.

    Attributes:
        should_exit: Whether the server is to end.
    """

    should_exit: bool

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve at these sockets until ``should_exit``."""


def listening_at(host: str, port: int) -> socket.socket:
    """A socket that listens at an address of IPv4 or IPv6. Its connections send small answers at once (TCP_NODELAY).

    Args:
        host: The host name, or the IP address.
        port: The port.

    Raises:
        OSError: The address cannot be used.
    """
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    # asyncio sets the option only for sockets that name their protocol. Without it, the body of an answer waits until
    # the client has acknowledged the headers, which it does after 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


async def serve_until_canceled(server: HTTPServer, listening: socket.socket) -> None:
    """Serve until the asyncio task is canceled. Then the server ends in order, and the cancellation is raised.

    Args:
        server: The server.
        listening: The socket at which the server listens.
    """
    serving = asyncio.create_task(server.serve([listening]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise
