"""A connection with the URLs of several brokers: which one it uses, and when it goes to the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from brokers import Mosquitto, password_line
from mqtt_agent import Connection
from mqtt_agent.errors import BrokerUnreachable, ConnectionRefused
from proxy import Proxy
from support import soon, until

from .test_connection import Inbox, connected

MakeMosquitto = Callable[..., Mosquitto]


async def test_a_connection_whose_broker_is_killed_goes_on_at_the_next_broker(
    mosquitto: Mosquitto, make_mosquitto: MakeMosquitto, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, inbox, sessions = make_mosquitto(), Inbox(), list[bool]()

    async def note(session_present: bool) -> None:
        sessions.append(session_present)

    async with connected(f"{first.url},{mosquitto.url}") as connection:
        assert str(connection.url) == first.url
        connection.on_reconnected.append(note)
        await connection.subscribe(f"{namespace}/t", inbox)
        await asyncio.to_thread(first.kill)
        await until(lambda: not connection.connected)
        await soon(connection.publish(f"{namespace}/t", b"after"))
        await inbox.have(1)
        assert str(connection.url) == mosquitto.url
        await until(lambda: sessions)
    assert inbox.payloads == [b"after"]
    assert sessions == [False]
    assert f"connected to {mosquitto.url} in place of {first.url} after" in caplog.text


async def test_a_connection_that_broke_for_a_moment_finds_its_session_at_the_same_broker(
    mosquitto: Mosquitto, make_mosquitto: MakeMosquitto, namespace: str
) -> None:
    other = make_mosquitto()
    async with Proxy(mosquitto.url) as proxy, connected(f"{proxy.url},{other.url}") as connection:
        epoch = connection.epoch
        proxy.drop()
        await until(lambda: connection.epoch > epoch and connection.connected)
        assert (str(connection.url), connection.session_present) == (proxy.url, True)


async def test_after_the_last_broker_of_the_list_comes_the_first(
    mosquitto: Mosquitto, make_mosquitto: MakeMosquitto
) -> None:
    second = make_mosquitto()
    async with Proxy(mosquitto.url) as proxy, connected(f"{proxy.url},{second.url}") as connection:
        await proxy.cut()
        await until(lambda: connection.connected and str(connection.url) == second.url)
        await proxy.mend()
        await asyncio.to_thread(second.kill)
        await until(lambda: connection.connected and str(connection.url) == proxy.url)
        assert connection.session_present


async def test_the_first_broker_that_lets_the_client_in_is_used_with_the_login_of_its_url(
    url_of_nobody: str, make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    closed = make_mosquitto(
        ["password_file {folder}/passwords"],
        anonymous=False,
        files={"passwords": password_line("user", "right")},
        credentials={"username": "user", "password": "right"},
    )
    where = closed.url.partition("//")[2]
    urls = [url_of_nobody, f"mqtt://user:wrong@{where}", f"mqtt://user:right@{where}"]
    async with connected(",".join(urls)) as connection:
        assert connection.url.password == "right"
    assert caplog.text.count(f"; trying mqtt://{where}") == 2
    assert "wrong" not in caplog.text


async def test_when_no_broker_can_be_used_the_error_is_that_of_the_broker_that_answers(
    url_of_nobody: str, make_mosquitto: MakeMosquitto
) -> None:
    closed = make_mosquitto(
        ["password_file {folder}/passwords"],
        anonymous=False,
        files={"passwords": password_line("user", "right")},
        credentials={"username": "user", "password": "right"},
    )
    for urls in ([closed.url, url_of_nobody], [url_of_nobody, closed.url]):
        with pytest.raises(ConnectionRefused, match=closed.url):
            await soon(Connection(urls).start())
    with pytest.raises(BrokerUnreachable, match=url_of_nobody):
        await soon(Connection([url_of_nobody, url_of_nobody]).start())
