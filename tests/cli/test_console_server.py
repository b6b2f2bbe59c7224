"""The web server of the console, without a browser."""

from __future__ import annotations

import http.client
import queue
import socket
from contextlib import closing

import pytest
from mqtt_agent.cli.console import web
from mqtt_agent.cli.console.web import Site, WebServer


def test_an_update_does_not_wait_until_the_page_has_acknowledged_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: list[int] = []
    handle = web._Handler.handle

    def noting(handler: web._Handler) -> None:
        options.append(handler.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        handle(handler)

    monkeypatch.setattr(web._Handler, "handle", noting)
    site = Site(queue.Queue, lambda page: None, lambda name: None, lambda kind, name: None, None)
    with WebServer("127.0.0.1", 0, site) as server:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as page:
            page.request("GET", "/", headers={"Host": f"127.0.0.1:{server.port}"})
            assert page.getresponse().status == 200
    assert [bool(each) for each in options] == [True]
