"""The web server of the console: one page, its updates, and what the page asks for.

Every request must name this server in ``Host``, so that a foreign web site cannot reach it under a name of its own.
The files of the page are the same for everybody. Every other request needs the token in the header ``Authorization``.
A request that changes something must come from the page itself.

There is no cookie: browsers send the cookies of one port of a computer to all its ports, where other programs listen.
The page gets the token from the fragment of its address, which browsers send to nobody, and keeps it in the storage of
its origin, which the port is a part of.
"""

from __future__ import annotations

import contextlib
import hmac
import http.server
import importlib.resources
import json
import logging
import queue
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from mqtt_agent.cli.console.work import browser_json
from mqtt_agent.cli.console.writing import BadRequest
from mqtt_agent.logs import logger_of

__all__ = ["Site", "WebServer"]

logger: logging.Logger = logger_of(__name__)

_FILES = {
    "/": ("index.html", "text/html"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript")
        for name in ("app", "ask", "dom", "forms", "detail", "sequence")
    },
    "/app.css": ("app.css", "text/css"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LARGEST = 1024 * 1024
_PING = 15.0
"""Seconds without an update after which the connection of a page is tried."""


@dataclass(frozen=True)
class Site:
    """What the web server shows and does. Its threads call these functions.

    Attributes:
        join: Returns the queue of a new page; None in the queue ends it.
        leave: Called when a page has gone.
        tool: Returns what is known of a tool, by name.
        item: Returns what is known of a ``call`` or a ``task``, by id.
        act: Carries out an action of the page, and returns what the page gets. None when the console only reads.
    """

    join: Callable[[], queue.Queue[str | None]]
    leave: Callable[[queue.Queue[str | None]], None]
    tool: Callable[[str], dict[str, Any] | None]
    item: Callable[[str, str], dict[str, Any] | None]
    act: Callable[[str, dict[str, Any]], dict[str, Any]] | None


class WebServer:
    """Serves the console in threads of its own.

    Args:
        address: The address to listen at.
        port: The port; 0 takes a free one.
        site: What is shown and done.

    Raises:
        OSError: The port is in use.
    """

    def __init__(self, address: str, port: int, site: Site) -> None:
        self.site: Site = site
        self.token: str = secrets.token_urlsafe(24)
        self._server = _Server((address, port), _Handler)
        self._server.console = self  # type: ignore[attr-defined]
        self.port: int = self._server.server_address[1]
        names = {address, "127.0.0.1", "localhost"} if address.startswith("127.") else {address}
        self.hosts: set[str] = {f"{name}:{self.port}" for name in names}
        self.url: str = f"http://{address}:{self.port}/#token={self.token}"

    def __enter__(self) -> WebServer:
        threading.Thread(target=self._server.serve_forever, daemon=True, name="mqtt-agent-console").start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def admits(self, authorization: str) -> bool:
        """Whether the value of the header ``Authorization`` has the token of this server."""
        return hmac.compare_digest(authorization.encode(), f"Bearer {self.token}".encode())


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of an error without a traceback: a page that goes away in the middle is no fault."""
        logger.debug("a request to the console has failed", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    server_version = "mqtt-agent"
    sys_version = ""
    timeout = 60
    disable_nagle_algorithm = True  # else an update waits until the page has acknowledged the one before, for 40 ms

    @property
    def _console(self) -> WebServer:
        return cast("Any", self.server).console

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: the terminal is for the address of the page."""

    def do_GET(self) -> None:
        """Answer with the page, a file of the page, the updates, or what is known of a tool, a call or a task."""
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if not self._is_for_us(must_have_origin=False):
            return
        if address.path in _FILES:
            name, kind = _FILES[address.path]
            text = (importlib.resources.files("mqtt_agent.cli.console") / "static" / name).read_bytes()
            self._answer(HTTPStatus.OK, text, f"{kind}; charset=utf-8")
        elif not self._has_token():
            self._refuse(HTTPStatus.FORBIDDEN, "open the address with the token that mqtt-agent console has printed")
        elif address.path == "/events":
            self._stream()
        elif (found := self._find(address.path, query)) is not None:
            self._json(HTTPStatus.OK, found)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def _find(self, path: str, query: dict[str, list[str]]) -> dict[str, Any] | None:
        name = query.get("name", [""])[0]
        if path == "/tool":
            return self._console.site.tool(name)
        return self._console.site.item(path[1:], name) if path in ("/call", "/task") else None

    def do_POST(self) -> None:
        """Do what the page asks for."""
        if not self._is_for_us(must_have_origin=True):
            return
        length = self.headers.get("Content-Length", "")
        if not self._has_token():
            self._refuse(HTTPStatus.FORBIDDEN, "open the address with the token again")
        elif self._console.site.act is None:
            self._refuse(HTTPStatus.FORBIDDEN, "this console only reads: start it with --allow-writes")
        elif self.headers.get_content_type() != "application/json" or not length.isdecimal() or int(length) > _LARGEST:
            self._refuse(HTTPStatus.BAD_REQUEST, "send a JSON object of at most 1 MiB")
        else:
            self._act(self.rfile.read(int(length)), self._console.site.act)

    def _act(self, body: bytes, act: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        try:
            asked: Any = json.loads(body)
            if not isinstance(asked, dict):
                raise BadRequest("send a JSON object")
            self._json(HTTPStatus.OK, act(self.path[1:], cast("dict[str, Any]", asked)))
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "send a JSON object")
        except BadRequest as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))

    def _is_for_us(self, *, must_have_origin: bool) -> bool:
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        if host not in self._console.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "this address is not the console's")
            return False
        if (origin is None and must_have_origin) or (origin is not None and origin != f"http://{host}"):
            self._refuse(HTTPStatus.FORBIDDEN, "only the console's own page may ask")
            return False
        return True

    def _has_token(self) -> bool:
        return self._console.admits(self.headers.get("Authorization", ""))

    def _stream(self) -> None:
        page = self._console.site.join()
        try:
            self._head(HTTPStatus.OK, {"Content-Type": "text/event-stream"})
            while True:
                try:
                    update = page.get(timeout=_PING)
                except queue.Empty:
                    self.wfile.write(b": still here\n\n")
                    continue
                if update is None:
                    return
                self.wfile.write(b"data: " + update.encode() + b"\n\n")
        except OSError:
            return  # the page is closed
        finally:
            self._console.site.leave(page)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._json(status, {"error": why})

    def _json(self, status: HTTPStatus, value: Any) -> None:
        self._answer(status, browser_json(value).encode(), "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        with contextlib.suppress(OSError):
            self._head(status, {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})})
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
