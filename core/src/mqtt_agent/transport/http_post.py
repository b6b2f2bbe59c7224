"""Sends JSON to an HTTP server, in a thread: over TLS only, with a deadline, without redirects."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Answer", "Server"]

_MOST_BYTES = 64 * 1024
"""The longest answer that is read."""


@dataclass(frozen=True)
class Answer:
    """What the server has answered.

    Attributes:
        status: The HTTP status.
        retry_after: How many seconds the server asks to wait; None when it does not say this.
        body: The first 64 KiB of the body. They may hold secrets.
    """

    status: int
    retry_after: float | None
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Server:
    """An HTTP server, and how to reach it.

    Attributes:
        host: The host name or address.
        port: The port; None means the usual one.
        path: What stands before the path of each request, without a slash at its end.
        secure: Whether TLS is used.
    """

    host: str
    port: int | None
    path: str
    secure: bool

    @classmethod
    def parse(cls, url: str) -> Server:
        """Read the URL of a server.

        Raises:
            ValueError: The URL cannot be used. The message does not contain a user name, a password or a query.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"the URL of the token service cannot be read: {error}") from None
        if parts.scheme not in ("https", "http") or not host:
            raise ValueError(
                "the URL of the token service must be https://HOST, https://HOST:PORT or https://HOST/PATH"
            )
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("the URL of the token service must have no user name, no '?' and no '#'")
        if not all("!" <= character <= "~" for character in parts.path):
            raise ValueError("the path in the URL of the token service must be percent-encoded")
        secure = parts.scheme == "https"
        if not secure and not _is_loopback(host):
            raise ValueError(
                f"http:// would send secrets to {host} for everybody on the way to read: use https://. "
                "http:// is only for this machine (localhost, 127.0.0.1, ::1)"
            )
        return cls(host, port, parts.path.rstrip("/"), secure)

    def post(self, path: str, values: dict[str, str], timeout: float, context: ssl.SSLContext | None) -> Answer:
        """Send a JSON object and wait for the answer. This blocks.

        Args:
            path: The path of the request.
            values: The object.
            timeout: Seconds until the whole answer must have arrived.
            context: The TLS settings.

        Raises:
            TimeoutError: The answer has not arrived in time.
            OSError: The server cannot be reached.
            http.client.HTTPException: The server does not speak HTTP.
        """
        connection = (
            http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)
            if self.secure
            else http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        )
        deadline = time.monotonic() + timeout
        with contextlib.closing(connection):
            connection.connect()
            with _cut_off(connection.sock, deadline - time.monotonic()) as late:
                try:
                    headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
                    connection.request("POST", self.path + path, json.dumps(values), headers)
                    with connection.getresponse() as response:
                        body = response.read(_MOST_BYTES)
                except (OSError, http.client.HTTPException, ValueError):
                    if late.is_set():
                        raise TimeoutError from None
                    raise
            if late.is_set():
                raise TimeoutError
            return Answer(response.status, _seconds(response.headers.get("Retry-After")), body)


@contextlib.contextmanager
def _cut_off(sock: socket.socket, seconds: float) -> Any:
    """Shut a socket down after some seconds. A timeout of the socket begins anew with each byte that arrives."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(seconds, 0), cut)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _seconds(retry_after: str | None) -> float | None:
    """How long a ``Retry-After`` header asks to wait: it has seconds, or a date."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return max(date.timestamp() - time.time(), 0.0)
    return None
