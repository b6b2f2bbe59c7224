"""Passwords, tokens that are renewed, TLS and WebSockets. No log message or error contains a secret."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import logging
import math
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto, free_port, password_line
from certificates import Authority, Certificate
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent import Agent, IssuedToken, MemoryStore, TaskContext, ToolClient, ToolServer
from mqtt_agent.errors import BrokerUnreachable, ConnectionLost, ConnectionRefused
from mqtt_agent.transport import TLS, BrokerURL, Connection, Credentials, InboundMessage, Password, Token
from mqtt_agent.transport import tls as tls_files
from mqtt_agent.transport.renewal import renewal_delay, token_expiry
from mqtt_agent.wire import ServerCard, decode
from proxy import Proxy
from support import soon, until

SECRET = "hunter2"
"""A part of every password and token here; it must not appear in any output."""

MakeMosquitto = Callable[..., Mosquitto]


@pytest.fixture(autouse=True)
def nobody_logs_a_secret(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    form = logging.Formatter("%(message)s")
    for record in caplog.get_records("call"):
        assert SECRET not in form.format(record), record.name


def assert_no_secret(*things: object) -> None:
    for thing in things:
        assert SECRET not in f"{thing} {thing!r}"


@contextlib.asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Connection]:
    connection = Connection(url, **options)
    await soon(connection.start())
    try:
        assert_no_secret(connection, connection.url)
        yield connection
    finally:
        await soon(connection.stop(end_session=True))


@contextlib.asynccontextmanager
async def calling(server: ToolServer, client: ToolClient) -> AsyncIterator[None]:
    await soon(server.start())
    try:
        await soon(client.start())
        assert_no_secret(server, client, server.connection, client.connection)
        yield
    finally:
        await soon(client.stop())
        await soon(server.stop())


def add_echo(server: ToolServer) -> None:
    server.add_tool("echo", lambda arguments: arguments["value"], input_schema={"type": "object"})


# Passwords


@pytest.fixture
def guarded(make_mosquitto: MakeMosquitto) -> Mosquitto:
    """A Mosquitto that accepts ``user`` with the password ``hunter2@:/%``."""
    return make_mosquitto(
        ["password_file {folder}/passwords"],
        anonymous=False,
        files={"passwords": password_line("user", GOOD)},
        credentials={"username": "user", "password": GOOD},
    )


GOOD = f"{SECRET}@:/%"
GOOD_IN_URL = f"{SECRET}%40%3A%2F%25"


@pytest.mark.parametrize(
    ("login", "credentials", "advice"),
    [
        ("", None, r"give credentials=Password\(\.\.\.\) or Token\(\.\.\.\), or put user:password@"),
        ("", Password("user", f"{SECRET} wrong"), "check the user name and the password or token"),
        ("", Password("nobody", GOOD), "check the user name and the password or token"),
        ("", Token(f"{SECRET} wrong"), "check the user name and the password or token"),
        (f"user:{SECRET}@", None, "check the user name and the password or token"),
    ],
)
async def test_a_refusal_says_what_to_do(
    login: str, credentials: Credentials | None, advice: str, guarded: Mosquitto
) -> None:
    connection = Connection(guarded.url.replace("//", f"//{login}"), credentials=credentials)
    with pytest.raises(ConnectionRefused, match=advice) as caught:
        await soon(connection.start())
    assert caught.value.reason_code in (0x86, 0x87)
    assert guarded.url in str(caught.value)
    assert_no_secret(caught.value, connection, credentials, connection.url)
    with pytest.raises(ConnectionLost) as caught_later:
        await connection.publish("t", b"")
    assert_no_secret(caught_later.value)


async def test_the_url_carries_any_password_and_given_credentials_win_over_it(guarded: Mosquitto) -> None:
    async with connected(guarded.url.replace("//", f"//user:{GOOD_IN_URL}@")) as connection:
        assert connection.connected
    async with connected(guarded.url.replace("//", f"//user:{SECRET}@"), credentials=Password("user", GOOD)):
        pass
    with pytest.raises(ConnectionRefused):
        await soon(Connection(guarded.url.replace("//", f"//user:{GOOD_IN_URL}@"), credentials=Token(SECRET)).start())


async def test_a_url_from_the_environment_may_carry_the_password(
    guarded: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_AGENT_BROKER", guarded.url.replace("//", f"//user:{GOOD_IN_URL}@"))
    server = ToolServer("server")
    add_echo(server)
    client = ToolClient("client")
    async with calling(server, client):
        assert await soon(client.call("echo", {"value": 1})) == 1
    assert_no_secret(BrokerURL.parse(None))


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_token_is_asked_for_again_before_each_connect(kind: str, guarded: Mosquitto) -> None:
    tokens = itertools.chain([GOOD], itertools.repeat(f"{SECRET} expired", 2), itertools.repeat(GOOD))
    asked = 0

    def plain() -> str:
        nonlocal asked
        asked += 1
        return next(tokens)

    async def asynchronous() -> str:
        return plain()

    credentials = Token(plain if kind == "plain" else asynchronous, "user")
    async with Proxy(guarded.url) as proxy, connected(proxy.url, credentials=credentials) as connection:
        assert_no_secret(credentials)
        assert asked == 1
        proxy.drop()
        await until(lambda: asked == 4 and connection.connected)
        assert proxy.connections == 4
        await soon(connection.publish("t", b""))


async def test_a_token_that_cannot_be_had_at_the_start_is_an_error_of_its_function(url_of_nobody: str) -> None:
    def fails() -> str:
        raise LookupError("no token today")

    connection = Connection(url_of_nobody, credentials=Token(fails))
    with pytest.raises(LookupError, match="no token today"):
        await soon(connection.start())
    assert not connection.started


async def test_a_token_that_cannot_be_had_for_a_reconnect_is_told_once_and_asked_for_again(
    guarded: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        if 2 <= asked <= 4:
            raise LookupError("no token today")
        return GOOD

    async with Proxy(guarded.url) as proxy, connected(proxy.url, credentials=Token(token, "user")) as connection:
        proxy.drop()
        await until(lambda: asked == 5 and connection.connected)
    assert len([record for record in caplog.records if record.exc_info]) == 1


# TLS and WebSockets


@dataclass(frozen=True)
class Certificates:
    """Our certificate authority, and one that must not be trusted."""

    authority: Path
    other_authority: Path
    server: Certificate
    elsewhere: Certificate
    client: Certificate
    encrypted_client: Certificate
    stranger: Certificate

    @property
    def trusting(self) -> TLS:
        return TLS(ca=self.authority)

    def presenting(self, certificate: Certificate, key_password: str | None = None) -> TLS:
        return TLS(self.authority, certificate.certificate, certificate.key, key_password)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if Authority.missing():
        pytest.skip(f"{Authority.missing()} is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    ours, others = Authority(folder / "ours", "our authority"), Authority(folder / "others", "another authority")
    client = ours.issue("client")
    return Certificates(
        authority=ours.certificate,
        other_authority=others.certificate,
        server=ours.issue("server", "IP:127.0.0.1, DNS:localhost"),
        elsewhere=ours.issue("elsewhere", "DNS:elsewhere.example"),
        client=client,
        encrypted_client=ours.encrypt(client, SECRET),
        stranger=others.issue("stranger"),
    )


@dataclass(frozen=True)
class Listener:
    """The URLs of a Mosquitto: one with the transport of the test, and one with plain TCP."""

    url: str
    plain_url: str


MakeListener = Callable[..., Listener]


@pytest.fixture
def listening(make_mosquitto: MakeMosquitto, certificates: Certificates) -> MakeListener:
    """Makes a Mosquitto that listens with the transport of the URL scheme."""

    def make(scheme: str, *lines: str, certificate: Certificate | None = None) -> Listener:
        port = free_port()
        configuration = [f"listener {port} 127.0.0.1"]
        if scheme in ("ws", "wss"):
            configuration.append("protocol websockets")
        if scheme in ("mqtts", "wss"):
            files = certificate or certificates.server
            configuration += [
                f"cafile {certificates.authority}",
                f"certfile {files.certificate}",
                f"keyfile {files.key}",
            ]
        broker = make_mosquitto([*configuration, *lines])
        return Listener(f"{scheme}://127.0.0.1:{port}", broker.url)

    return make


@pytest.mark.parametrize(
    ("scheme", "asks"),
    [
        ("mqtts", "any client"),
        ("mqtts", "clients with certificates"),
        ("ws", "any client"),
        ("wss", "any client"),
        ("wss", "clients with certificates"),
    ],
)
async def test_tools_are_called_over_tls_and_websockets(
    scheme: str, asks: str, listening: MakeListener, certificates: Certificates
) -> None:
    if asks == "any client":
        url, tls = listening(scheme).url, certificates.trusting
    else:
        url = listening(scheme, "require_certificate true", "use_identity_as_username true").url
        tls = certificates.presenting(certificates.encrypted_client, SECRET)
    assert_no_secret(tls)
    options: dict[str, Any] = {"broker": url, "tls": tls, "credentials": Password("user", SECRET)}
    server, client = ToolServer("server", **options), ToolClient("client", **options)
    add_echo(server)
    async with calling(server, client):
        values = [{"n": n, "text": "größe " * (n % 50)} for n in range(200)]
        answers = await soon(asyncio.gather(*(client.call("echo", {"value": value}) for value in values)), 30)
        assert answers == values


SIZES = (0, 1, 125, 126, 16_384, 65_535, 65_536, 300_000, 3_000_000)


@pytest.mark.parametrize("scheme", ["mqtts", "ws", "wss"])
async def test_large_messages_pass_tls_and_websockets(
    scheme: str, listening: MakeListener, certificates: Certificates
) -> None:
    listener = listening(scheme)
    here: list[bytes] = []
    there: list[bytes] = []
    outgoing = [bytes([65 + n]) * size for n, size in enumerate(SIZES)]
    # Mosquitto sends 40 kB/s at most over a WebSocket, see https://github.com/eclipse-mosquitto/mosquitto/issues/1390.
    incoming = outgoing if scheme == "mqtts" else outgoing[:5]
    async with connected(listener.url, tls=certificates.trusting) as one, connected(listener.plain_url) as other:
        await one.subscribe("here", lambda message: here.append(message.payload))
        await other.subscribe("there", lambda message: there.append(message.payload))
        await soon(asyncio.gather(*(one.publish("there", payload) for payload in outgoing)), 30)
        await soon(asyncio.gather(*(other.publish("here", payload) for payload in incoming)), 30)
        await until(lambda: len(there) == len(outgoing) and len(here) == len(incoming), 30)
    assert there == outgoing
    assert here == incoming


@pytest.mark.parametrize("scheme", ["mqtts", "ws", "wss"])
async def test_a_broken_connection_over_tls_and_websockets_is_made_again(
    scheme: str, listening: MakeListener, certificates: Certificates
) -> None:
    url = listening(scheme).url
    received: list[bytes] = []
    async with Proxy(url) as proxy:
        async with connected(proxy.url, tls=certificates.trusting) as connection:
            await connection.subscribe("t", lambda message: received.append(message.payload))
            await proxy.cut()
            sending = asyncio.gather(*(connection.publish("t", b"%d" % n) for n in range(20)))
            await until(lambda: not connection.connected)
            await proxy.mend()
            await soon(sending)
            await until(lambda: len(received) == 20)


async def test_a_ping_of_the_websocket_holds_nothing_up(certificates: Certificates) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = request.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
        accepted = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + accepted + b"\r\n\r\n")
        await reader.read(65536)
        ping, connack = b"\x89\x00", b"\x20\x03\x00\x00\x00"
        writer.write(ping + b"\x82" + bytes([len(connack)]) + connack)  # in one TLS record
        await reader.read()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as broker:
        url = f"wss://127.0.0.1:{broker.sockets[0].getsockname()[1]}"
        async with connected(url, tls=certificates.trusting, connect_timeout=2) as connection:
            assert connection.connected


@pytest.fixture
def renewed(certificates: Certificates, tmp_path: Path) -> tuple[TLS, Callable[[Certificate], None]]:
    """Files of a client's certificate, behind a link as in Kubernetes, and what replaces them."""
    link, numbers = tmp_path / "now", itertools.count()

    def put(certificate: Certificate) -> None:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        shutil.copy(certificate.certificate, folder / "tls.crt")
        shutil.copy(certificate.key, folder / "tls.key")
        fresh = tmp_path / "fresh"
        fresh.symlink_to(folder)
        fresh.replace(link)

    put(certificates.client)
    return TLS(certificates.authority, link / "tls.crt", link / "tls.key"), put


async def test_a_certificate_that_was_renewed_is_shown_when_the_connection_is_made_again(
    listening: MakeListener,
    certificates: Certificates,
    renewed: tuple[TLS, Callable[[Certificate], None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tls, put = renewed
    listener = listening("mqtts", "require_certificate true", "use_identity_as_username true")
    async with Proxy(listener.url) as proxy, connected(proxy.url, tls=tls) as connection:
        put(certificates.stranger)  # the broker refuses it
        await proxy.cut()
        await proxy.mend()
        await until(lambda: "failed and will be tried again" in caplog.text, 20)
        assert not connection.connected
        put(certificates.client)
        await soon(connection.publish("t", b"again"), 20)


def test_certificates_that_cannot_be_used_do_not_take_the_place_of_earlier_ones(
    certificates: Certificates,
    renewed: tuple[TLS, Callable[[Certificate], None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tls, put = renewed
    followed = tls_files.Certificates(tls)
    first = followed.context()
    assert followed.context() is first
    put(Certificate(certificates.client.certificate, certificates.stranger.key))  # in the middle of a renewal
    assert followed.context() is first
    assert followed.context() is first
    [message] = caplog.messages
    assert "the earlier ones are used: TLS(certificate=" in message
    put(certificates.client)
    assert followed.context() is not first
    own = ssl.create_default_context()
    assert tls_files.Certificates(own).context() is own


async def test_an_ssl_context_of_ones_own_is_used(listening: MakeListener, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.authority)
    async with connected(listening("mqtts").url, tls=context) as connection:
        await soon(connection.publish("t", b""))


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
async def test_a_broker_that_is_not_trusted_is_one_error_that_says_so(
    scheme: str, listening: MakeListener, certificates: Certificates
) -> None:
    url = listening(scheme).url
    for tls in (None, TLS(ca=certificates.other_authority)):
        with pytest.raises(BrokerUnreachable, match=r"certificate was not accepted.*TLS\(ca=\.\.\.\)") as caught:
            await soon(Connection(url, tls=tls, credentials=Password("user", SECRET)).start())
        assert url in str(caught.value)
        assert_no_secret(caught.value)


async def test_a_certificate_for_another_host_is_one_error_that_names_ours(
    listening: MakeListener, certificates: Certificates
) -> None:
    url = listening("mqtts", certificate=certificates.elsewhere).url
    with pytest.raises(BrokerUnreachable, match=r"certificate is not valid for '127\.0\.0\.1'"):
        await soon(Connection(url, tls=certificates.trusting).start())


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
async def test_a_missing_client_certificate_is_one_error_that_asks_for_it(
    scheme: str, listening: MakeListener, certificates: Certificates
) -> None:
    url = listening(scheme, "require_certificate true").url
    with pytest.raises(BrokerUnreachable, match=r"asks for a client certificate.*TLS\(certificate=") as caught:
        await soon(Connection(url, tls=certificates.trusting).start())
    assert url in str(caught.value)


async def test_a_client_certificate_that_the_broker_does_not_trust_is_one_error(
    listening: MakeListener, certificates: Certificates
) -> None:
    url = listening("mqtts", "require_certificate true").url
    with pytest.raises(BrokerUnreachable, match="did not accept the client certificate"):
        await soon(Connection(url, tls=certificates.presenting(certificates.stranger)).start())


@pytest.mark.parametrize(
    ("spoken", "expected"),
    [*itertools.permutations(("mqtt", "mqtts", "ws", "wss"), 2)],
)
async def test_the_port_of_another_scheme_is_one_error_that_asks_about_it(
    spoken: str, expected: str, listening: MakeListener, certificates: Certificates
) -> None:
    url = listening(expected).url.replace(f"{expected}://", f"{spoken}://")
    with pytest.raises(
        BrokerUnreachable, match="this port may need another scheme: mqtt://, mqtts://, ws:// or wss://"
    ):
        await soon(Connection(url, tls=certificates.trusting, connect_timeout=2).start())


def test_files_that_are_no_certificates_are_named(certificates: Certificates, tmp_path: Path) -> None:
    def open_with(tls: TLS) -> None:
        Connection("mqtts://localhost", tls=tls)

    missing = tmp_path / "missing.pem"
    with pytest.raises(FileNotFoundError, match="missing.pem"):
        open_with(TLS(ca=missing))
    with pytest.raises(FileNotFoundError, match="missing.pem"):
        open_with(TLS(certificate=missing))
    with pytest.raises(OSError, match=r"client\.key.*not a certificate"):
        open_with(TLS(ca=certificates.client.key))
    with pytest.raises(OSError, match=r"client\.pem.*stranger\.key.*not a certificate and its key"):
        open_with(TLS(certificate=certificates.client.certificate, key=certificates.stranger.key))


@pytest.mark.parametrize("password", [None, "", f"{SECRET} wrong"])
def test_a_key_without_its_password_is_an_error_and_not_a_question_on_the_terminal(
    password: str | None, certificates: Certificates
) -> None:
    with pytest.raises(OSError, match="key_password is wrong or missing") as caught:
        Connection("mqtts://localhost", tls=certificates.presenting(certificates.encrypted_client, password))
    assert_no_secret(caught.value)


# Tokens that expire


def jwt(**payload: Any) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(payload)}.{SECRET}"


class Issuer:
    """Returns tokens that are valid for a given number of seconds, and counts them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.issued = 0

    async def __call__(self) -> str:
        self.issued += 1
        return jwt(sub="agent", exp=time.time() + self.seconds)


@pytest.mark.parametrize(
    ("token", "expires"),
    [
        (jwt(exp=1_700_000_000), 1_700_000_000.0),
        (jwt(exp=1_700_000_000.5, sub="größe ~~~???"), 1_700_000_000.5),
        (jwt(), None),
        (jwt(exp=None), None),
        (jwt(exp=[1]), None),
        (jwt(exp="tomorrow"), None),
        (jwt(exp=10**400), None),
        (jwt(exp=math.inf), None),
        (jwt(exp=math.nan), None),
        ("", None),
        (SECRET, None),
        ("a.b.c", None),
        ("a.ä.c", None),
        (f"e30.{base64.urlsafe_b64encode(b'[1]').decode()}.s", None),
        (f"e30.{base64.urlsafe_b64encode(b'[' * 50_000).decode()}.s", None),
        (f"{jwt(exp=1)}.two.more", None),
    ],
)
def test_the_end_of_a_jwt_is_read_where_there_is_one(token: str, expires: float | None) -> None:
    assert token_expiry(token) == expires


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda b: f"h.{base64.urlsafe_b64encode(b).decode()}.s"))
def test_any_text_can_be_asked_for_its_end(token: str) -> None:
    expires = token_expiry(token)
    assert expires is None or math.isfinite(expires)


@given(st.floats(min_value=0, max_value=1e12))
def test_a_token_is_renewed_in_its_last_fifth_a_second_before_its_end_and_never_in_a_rush(remaining: float) -> None:
    delay = renewal_delay(remaining)
    assert 1 <= delay <= max(1, min(0.9 * remaining, remaining - 1))
    assert delay >= min(0.8 * remaining, remaining - 1)


@pytest.mark.parametrize("who", ["the server", "the client", "both"])
async def test_calls_go_on_while_tokens_are_renewed(
    who: str, make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make_mosquitto()
    issuer = Issuer(2.5)
    renewed: dict[str, Any] = {"credentials": Token(issuer)}
    # If a renewal looked like a crash, a will without a delay would be published at once.
    server = ToolServer("server", broker=broker.url, will_delay=0, **(renewed if who != "the client" else {}))
    client = ToolClient("client", broker=broker.url, **(renewed if who != "the server" else {}))
    renewing = [*([server.connection] if who != "the client" else []), *([client.connection] * (who != "the server"))]
    ran: list[int] = []
    seen: list[str] = []

    @server.tool
    async def count(n: int) -> int:
        ran.append(n)
        return n

    def on_card(message: InboundMessage) -> None:
        seen.append(decode(ServerCard, message.payload).status)

    async with connected(broker.url) as watcher, calling(server, client):
        await watcher.subscribe(f"a2a/v1/mcp/servers/{server.server_id}/card", on_card, snapshot=True)
        changes = client.watch_tools()
        before = [connection.epoch for connection in renewing]

        def all_renewed() -> bool:
            return all(now.epoch >= was + 3 for now, was in zip(renewing, before, strict=True))

        async def call_one_after_the_other(first: int) -> int:
            for n in itertools.count(first, 4):
                assert await client.call("count", {"n": n}) == n
                if all_renewed():
                    return n
            raise AssertionError

        lasts = await soon(asyncio.gather(*(call_one_after_the_other(first) for first in range(4))), 30)
        assert all(connection.connected for connection in renewing)
        assert set(seen) == {"online"}
        with contextlib.suppress(asyncio.TimeoutError):
            while True:
                change = await asyncio.wait_for(changes.__anext__(), 0.05)
                assert change.kind != "offline"
    assert len(ran) > 100
    assert sorted(ran) == sorted(n for first, last in enumerate(lasts) for n in range(first, last + 1, 4))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_call_that_outlives_its_servers_token_runs_once(make_mosquitto: MakeMosquitto) -> None:
    broker = make_mosquitto()
    server = ToolServer("server", broker=broker.url, credentials=Token(Issuer(2.2)))
    client = ToolClient("client", broker=broker.url)
    runs = 0

    @server.tool
    async def long() -> int:
        nonlocal runs
        runs += 1
        until_epoch = server.connection.epoch + 2
        await until(lambda: server.connection.epoch >= until_epoch and server.connection.connected)
        return runs

    async with calling(server, client):
        assert await soon(asyncio.gather(*(client.call("long") for _ in range(3))), 20) == [3, 3, 3]
    assert runs == 3


async def test_long_calls_hold_up_no_others_after_a_renewal(make_mosquitto: MakeMosquitto) -> None:
    broker = make_mosquitto()
    # Some brokers send at most 20 unacknowledged messages, whatever limit the client sets.
    connection = Connection(broker.url, credentials=Token(Issuer(2.2)), receive_maximum=20)
    server = ToolServer("server", connection=connection)
    client = ToolClient("client", broker=broker.url)
    running = 0
    done = asyncio.Event()

    @server.tool
    async def long() -> None:
        nonlocal running
        running += 1
        await done.wait()

    async with calling(server, client):
        calls = [asyncio.ensure_future(client.call("long")) for _ in range(24)]
        await until(lambda: running == 24)
        await until(lambda: server.connection.epoch == 2)
        calls += [asyncio.ensure_future(client.call("long")) for _ in range(24)]
        try:
            await until(lambda: running == 48)
        finally:
            done.set()
        await soon(asyncio.gather(*calls))
    assert running == 48


async def test_what_is_sent_at_any_time_around_a_renewal_arrives_once(make_mosquitto: MakeMosquitto) -> None:
    broker = make_mosquitto()
    received: list[bytes] = []
    credentials = Token(Issuer(2.2))
    async with connected(broker.url) as receiver, connected(broker.url, credentials=credentials) as sender:
        await receiver.subscribe("t", lambda message: received.append(message.payload))
        before = sender.epoch
        sent = 0
        while sender.epoch < before + 2:
            await soon(asyncio.gather(*(sender.publish("t", b"%d" % n) for n in range(sent, sent + 50))))
            sent += 50
        await until(lambda: len(received) >= sent)
    assert received == [b"%d" % n for n in range(sent)]


@pytest.mark.parametrize(
    "token", [SECRET, jwt(), jwt(exp="soon"), jwt(exp=1)], ids=["opaque", "no exp", "unreadable", "expired"]
)
async def test_a_token_without_a_readable_end_is_not_renewed(token: str, make_mosquitto: MakeMosquitto) -> None:
    asked = 0

    def ask() -> str:
        nonlocal asked
        asked += 1
        return token

    async with connected(make_mosquitto().url, credentials=Token(ask)) as connection:
        await until(lambda: not renewal_tasks())
        assert connection.connected
        assert (connection.epoch, asked) == (1, 1)


async def test_a_token_that_is_no_function_is_not_renewed(make_mosquitto: MakeMosquitto) -> None:
    async with connected(make_mosquitto().url, credentials=Token(jwt(exp=time.time() + 60))) as connection:
        await until(lambda: not renewal_tasks())
        assert connection.connected


def renewal_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "mqtt-agent renew"]


async def test_a_stopped_connection_renews_nothing(make_mosquitto: MakeMosquitto) -> None:
    async with connected(make_mosquitto().url, credentials=Token(Issuer(60))):
        await until(renewal_tasks)
    await until(lambda: not renewal_tasks())


async def test_a_renewal_that_fails_is_told_once_and_tried_again_while_the_connection_goes_on(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer(2.2)
    failed = 0

    async def token() -> str:
        nonlocal failed
        if issuer.issued == 1 and failed < 3:
            failed += 1
            raise LookupError("no token today")
        return await issuer()

    async with connected(make_mosquitto().url, credentials=Token(token)) as connection:
        await until(lambda: failed == 3)
        assert connection.connected
        assert connection.epoch == 1
        await until(lambda: connection.epoch == 2 and connection.connected)
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_the_same_token_again_is_no_reason_to_reconnect(make_mosquitto: MakeMosquitto) -> None:
    cached = jwt(exp=time.time() + 2)
    asked = 0

    def token() -> str:
        nonlocal asked
        asked += 1
        return cached if asked < 4 else jwt(exp=time.time() + 60)

    async with connected(make_mosquitto().url, credentials=Token(token)) as connection:
        await until(lambda: asked == 3)
        assert connection.epoch == 1
        await until(lambda: connection.epoch == 2 and connection.connected)
    assert asked == 4, "the token that was fetched is the one that the connection is made with"


async def test_a_server_that_is_stopped_during_a_renewal_still_says_offline(make_mosquitto: MakeMosquitto) -> None:
    broker = make_mosquitto()
    statuses: list[str] = []
    async with connected(broker.url) as watcher, Proxy(broker.url) as proxy:
        server = ToolServer("server", broker=proxy.url, credentials=Token(Issuer(2)))
        add_echo(server)
        await soon(server.start())
        await watcher.subscribe(
            f"a2a/v1/mcp/servers/{server.server_id}/card",
            lambda message: statuses.append(decode(ServerCard, message.payload).status),
        )
        await until(lambda: proxy.connections == 1 and server.connection.epoch == 1)
        proxy.hold()
        stopping = None
        try:
            await until(lambda: server.connection.epoch == 2)
            stopping = asyncio.ensure_future(server.stop())
            await until(lambda: proxy.connections == 2)
        finally:
            proxy.release()
        await soon(stopping)
        await until(lambda: statuses and statuses[-1] == "offline")


async def test_a_renewed_token_that_is_refused_is_told_and_asked_for_again(
    guarded: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    expiring = jwt(exp=time.time() + 2)
    (guarded.folder / "passwords").write_text(password_line("user", expiring) + password_line("test", GOOD))
    guarded.files["passwords"] = password_line("user", expiring) + password_line("test", GOOD)
    guarded.credentials = {"username": "test", "password": GOOD}
    guarded.restart(keep_state=True)
    tokens = itertools.chain([expiring], [f"{SECRET} for another broker"], itertools.repeat(expiring))
    async with connected(guarded.url, credentials=Token(lambda: next(tokens), "user")) as connection:
        await until(lambda: connection.epoch == 3 and connection.connected)
        await until(lambda: "again after" in caplog.text)
    *refusals, back = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert back.startswith(f"connected to {guarded.url} again after ")
    assert len(refusals) == 1
    assert "check the user name and the password or token" in refusals[0]


# Token services


def opaque(number: int) -> str:
    return f"{SECRET} number {number}"


@pytest.mark.parametrize("form", ["seconds", "datetime"])
async def test_a_token_service_may_say_another_user_name_and_when_an_opaque_token_expires(
    guarded: Mosquitto, form: str
) -> None:
    lines = "".join(password_line(f"user-{n}", opaque(n)) for n in range(1, 4)) + password_line("test", GOOD)
    guarded.files["passwords"] = lines
    guarded.credentials = {"username": "test", "password": GOOD}
    guarded.restart(keep_state=True)
    issued = 0

    async def issue() -> IssuedToken:
        nonlocal issued
        issued += 1
        expires = time.time() + (2.2 if issued < 3 else 3600)
        when = expires if form == "seconds" else datetime.fromtimestamp(expires, timezone.utc)
        return IssuedToken(opaque(issued), f"user-{issued}", when)

    async with connected(guarded.url, credentials=Token(issue)) as connection:
        await until(lambda: connection.epoch == 3 and connection.connected)
        await soon(connection.publish("t", b"x"))
    assert issued == 3
    assert_no_secret(IssuedToken(opaque(1)))


def test_the_end_of_a_token_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match="expires has no time zone"):
        IssuedToken("x", expires=datetime(2026, 1, 1))


async def test_a_token_function_that_returns_something_else_is_told_what_to_return(guarded: Mosquitto) -> None:
    wrong: Any = lambda: {"password": SECRET}  # noqa: E731
    with pytest.raises(TypeError, match="must return a str or an IssuedToken, and it returned the type dict"):
        await soon(Connection(guarded.url, credentials=Token(wrong)).start())


async def test_a_login_that_is_refused_at_a_reconnect_is_raised_to_those_who_wait(
    guarded: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    both = password_line("user", GOOD) + password_line("test", GOOD)
    guarded.files["passwords"] = both
    guarded.credentials = {"username": "test", "password": GOOD}
    guarded.restart(keep_state=True)
    as_user: dict[str, Any] = {"broker": guarded.url, "credentials": Password("user", GOOD)}
    as_test: dict[str, Any] = {"broker": guarded.url, "credentials": Password("test", GOOD)}
    server, client = ToolServer("server", **as_test), ToolClient("client", **as_user)
    worker, boss = Agent("worker", store=MemoryStore(), **as_test), Agent("boss", store=MemoryStore(), **as_user)
    go = asyncio.Event()

    @server.tool
    async def wait() -> str:
        await go.wait()
        return "waited"

    @worker.on_task
    async def work(task: TaskContext) -> str:
        await go.wait()
        return "worked"

    async with worker, boss, calling(server, client):
        try:
            calls = [asyncio.ensure_future(client.call("wait", timeout=None)) for _ in range(2)]
            handle = await soon(boss.delegate("worker", "go"))
            guarded.files["passwords"] = password_line("test", GOOD)
            guarded.restart(keep_state=True)
            for call in calls:
                with pytest.raises(ConnectionRefused, match="check the user name and the password or token"):
                    await soon(call, 30)
            with pytest.raises(ConnectionRefused, match=r"task .* goes on: resume\(\) it"):
                await soon(handle.result(), 30)
            assert not client.connection.connected
            guarded.files["passwords"] = both
            guarded.restart(keep_state=True)
            go.set()
            assert await soon((await boss.resume(handle.task_id)).result(), 60) == "worked"
            assert await soon(client.call("wait", wait_online=True, timeout=60), 60) == "waited"
        finally:
            go.set()
