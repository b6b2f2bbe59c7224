"""CloudSignal's token service: a login is created or exchanged, refreshed before it expires, and no secret is told."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import logging
import pickle
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto, password_line
from certificates import Authority
from mqtt_agent import TLS, Connection, IssuedToken, TokenService
from mqtt_agent.errors import ConnectionRefused, MQTTAgentError, TokenNotIssued
from support import soon, until

SECRET = "hunter2"
"""A part of every secret here; it must not appear in any output."""

MakeMosquitto = Callable[..., Mosquitto]
Reply = Callable[[BaseHTTPRequestHandler], None]


def reply(status: int, body: Any = None, **headers: str) -> Reply:
    """An answer. Without a body, it repeats a secret, as a careless service does."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body or {"detail": f"{SECRET} is wrong"}).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return send


@dataclass
class Service:
    """A token service that speaks the three calls. Its logins are user-1, user-2 and so on."""

    lifetime: float = 3600.0
    """Seconds. A login of at most 1.5 s is about to expire at once."""
    replies: list[Reply] = field(default_factory=list[Reply])
    """Answers to the next requests, in the place of logins."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    issued: int = 0
    url: str = ""
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def calls(self) -> list[str]:
        return [path.rpartition("/")[2] for path, _ in self.asked]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.guard:
            self.asked.append((handler.path, asked))
            answer = self.replies.pop(0) if self.replies else None
        (answer or self.login)(handler)

    def login(self, handler: BaseHTTPRequestHandler) -> None:
        with self.guard:
            self.issued += 1
            number = self.issued
        expires = datetime.fromtimestamp(time.time() + self.lifetime, timezone.utc)
        reply(
            200,
            {
                "token_id": f"id-{number}",
                "access_token": f"{SECRET} access {number}",
                "mqtt_credentials": {"username": f"user-{number}", "password": f"{SECRET} {number}"},
                "expires_at": expires.isoformat().replace("+00:00", "Z"),
            },
        )(handler)


@contextlib.contextmanager
def serving(service: Service, context: ssl.SSLContext | None = None) -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with contextlib.suppress(OSError):  # a client that has given up
                service.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    service.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(Service()) as made:
        yield made


@pytest.fixture(autouse=True)
def nobody_logs_a_secret(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    form = logging.Formatter("%(message)s")
    for record in caplog.get_records("call"):
        assert SECRET not in form.format(record), record.name


def created(service: Service, **options: Any) -> TokenService:
    return TokenService(
        service.url, org_id="acme", secret_key=f"{SECRET} key", user_email="agent-a@acme.example", **options
    )


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# The three calls


async def test_a_login_is_created_with_the_secret_key_and_refreshed_with_the_token_before(service: Service) -> None:
    tokens = created(service)
    service.lifetime = 1
    first = await soon(tokens.issue())
    second = await soon(tokens.issue())
    assert (first.username, first.token) == ("user-1", f"{SECRET} 1")
    assert (second.username, second.token) == ("user-2", f"{SECRET} 2")
    assert isinstance(second.expires, float)
    assert second.expires == pytest.approx(time.time() + 1, abs=30)
    assert service.asked == [
        (
            "/v2/tokens/create",
            {"organization_id": "acme", "secret_key": f"{SECRET} key", "user_email": "agent-a@acme.example"},
        ),
        ("/v2/tokens/refresh", {"token_id": "id-1", "current_token_password": f"{SECRET} access 1"}),
    ]


@pytest.mark.parametrize("form", ["text", "function"])
async def test_a_token_of_another_provider_is_exchanged(form: str, service: Service) -> None:
    token = f"{SECRET} external"
    tokens = TokenService(
        service.url + "/auth/", org_id="acme", external_token=token if form == "text" else lambda: token
    )
    assert (await soon(tokens.issue())).username == "user-1"
    assert service.asked == [("/auth/v2/tokens/exchange", {"organization_id": "acme", "token": token})]


async def test_a_function_that_returns_no_token_is_told_what_to_return(service: Service) -> None:
    wrong: Any = lambda: {"token": SECRET}  # noqa: E731
    with pytest.raises(TypeError, match="external_token must return a str, and it returned the type dict"):
        await soon(TokenService(service.url, org_id="acme", external_token=wrong).issue())
    assert service.asked == []


async def test_a_login_that_is_not_about_to_expire_is_given_again_also_to_many_that_ask_at_once(
    service: Service,
) -> None:
    tokens = created(service)
    logins = await soon(asyncio.gather(*(tokens.issue() for _ in range(5))))
    assert {login.username for login in logins} == {"user-1"}
    assert service.calls == ["create"]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_login_that_cannot_be_refreshed_is_created_anew(status: int, service: Service) -> None:
    tokens = created(service)
    service.lifetime = 1
    await soon(tokens.issue())
    service.replies = [reply(status)]
    assert (await soon(tokens.issue())).username == "user-2"
    assert service.calls == ["create", "refresh", "create"]


async def test_a_login_that_the_broker_has_refused_is_not_given_again(service: Service) -> None:
    tokens = created(service)
    first = await soon(tokens.issue())
    tokens.forget(IssuedToken("another"))
    assert await soon(tokens.issue()) == first
    tokens.forget(first)
    assert (await soon(tokens.issue())).username == "user-2"
    assert service.calls == ["create", "create"]


async def test_an_answer_is_kept_although_nobody_waits_for_it_any_more(service: Service) -> None:
    go = threading.Event()

    def late(handler: BaseHTTPRequestHandler) -> None:
        go.wait()
        service.login(handler)

    service.replies = [late]
    tokens = created(service)
    asking = asyncio.ensure_future(tokens.issue())
    await until(lambda: service.asked)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go.set()
    assert (await soon(tokens.issue())).username == "user-1"
    assert service.calls == ["create"]


# Faults


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_agent.transport.token_service._ATTEMPTS", 1)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "check the URL, secret_key, user_email and org_id"),
        (401, "check secret_key, user_email and org_id"),
        (403, "check secret_key, user_email and org_id, and what the service allows"),
        (404, "check the URL and org_id"),
        (302, "redirects are not followed: give the address that it redirects to"),
    ],
)
async def test_a_refusal_is_raised_at_once_and_says_what_to_do(status: int, advice: str, service: Service) -> None:
    service.replies = [reply(status, Location="https://elsewhere.example")]
    with pytest.raises(TokenNotIssued, match=f"answered /v2/tokens/create with HTTP {status}: .*{advice}") as caught:
        await soon(created(service).issue())
    assert (caught.value.status, caught.value.refused) == (status, status != 302)
    assert SECRET not in f"{caught.value} {caught.value!r}"
    assert service.calls == ["create"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_service_that_is_busy_is_asked_again(status: int, service: Service) -> None:
    service.replies = [reply(status, Retry_After="0")]
    assert (await soon(created(service).issue())).username == "user-1"
    assert service.calls == ["create", "create"]


async def test_a_service_that_stays_away_is_told_after_three_attempts(service: Service) -> None:
    service.replies = [reply(500)] * 3
    with pytest.raises(TokenNotIssued, match="HTTP 500: look at the log of the service$"):
        await soon(created(service).issue())
    assert len(service.asked) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_service_that_asks_to_wait_long_is_not_asked_again_before(form: str, service: Service) -> None:
    date = datetime.fromtimestamp(time.time() + 60, timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    service.replies = [reply(429, Retry_After="60" if form == "seconds" else date)]
    tokens = created(service)
    for _ in range(2):
        with pytest.raises(
            TokenNotIssued, match=r"HTTP 429: too many requests.*the service asks to wait \d\d s"
        ) as caught:
            await soon(tokens.issue())
        assert caught.value.retry_after is not None
        assert 50 < caught.value.retry_after <= 60
    assert service.calls == ["create"]


@pytest.mark.usefixtures("one_attempt")
async def test_an_answer_that_arrives_byte_by_byte_is_not_waited_for_longer_than_the_timeout(service: Service) -> None:
    ended = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not ended.wait(0.02):
                handler.wfile.write(b" ")

    service.replies = [drip]
    try:
        with pytest.raises(TokenNotIssued, match=r"did not answer /v2/tokens/create within 0\.1 s; .* raise timeout="):
            await soon(created(service, timeout=0.1).issue())
    finally:
        ended.set()
    assert len(service.asked) == 1


GOOD: dict[str, Any] = {
    "token_id": "id",
    "mqtt_credentials": {"username": "user", "password": SECRET},
    "expires_at": "2100-01-01T00:00:00",
}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (f"<html>{SECRET}".encode(), "it is not JSON"),
        (b"[" * 60_000, "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b" " * 100_000 + b"{}", "it is not JSON"),
        ([SECRET], "mqtt_credentials has no username or no password"),
        ({**GOOD, "mqtt_credentials": SECRET}, "mqtt_credentials has no username or no password"),
        ({**GOOD, "mqtt_credentials": {"username": "u"}}, "mqtt_credentials has no username or no password"),
        ({**GOOD, "expires_at": None}, "expires_at is missing, or is no time"),
        ({**GOOD, "expires_at": "tomorrow"}, "expires_at is missing, or is no time"),
        ({**GOOD, "expires_at": 10**400}, "expires_at is missing, or is no time"),
        ({**GOOD, "expires_at": True}, "expires_at is missing, or is no time"),
    ],
)
async def test_an_answer_that_is_no_login_is_told(body: Any, why: str, service: Service) -> None:
    service.replies = [reply(200, body)]
    with pytest.raises(TokenNotIssued, match=f"something else than a login: {why}") as caught:
        await soon(created(service).issue())
    assert not caught.value.refused
    assert service.calls == ["create"]


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [("2100-01-01T00:00:00", 4102444800), ("2100-01-01T00:00:00.500Z", 4102444800.5), (4102444800, 4102444800)],
)
async def test_the_expiry_is_a_text_of_iso_8601_in_utc_or_a_number(
    expires: Any, seconds: float, service: Service
) -> None:
    service.replies = [reply(201, {**GOOD, "expires_at": expires})]
    assert (await soon(created(service).issue())).expires == seconds


@pytest.mark.usefixtures("one_attempt")
async def test_something_that_is_no_http_server_is_told(service: Service) -> None:
    def mumble(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(f"{SECRET}\r\n".encode())

    service.replies = [mumble]
    with pytest.raises(TokenNotIssued, match=r"does not speak HTTP \(BadStatusLine\); check the URL"):
        await soon(created(service).issue())


@pytest.mark.usefixtures("one_attempt")
async def test_a_service_that_is_not_there_is_told() -> None:
    with serving(Service()) as gone:
        tokens = created(gone)
    with pytest.raises(TokenNotIssued, match="cannot be reached: no program listens at this port; check the URL"):
        await soon(tokens.issue())


async def test_the_login_of_before_is_used_while_the_service_is_away(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_agent.transport.token_answers._MARGIN", 7200.0)  # each login is about to expire
    tokens = created(service)
    first = await soon(tokens.issue())
    service.replies = [reply(503), reply(503)]
    assert [await soon(tokens.issue()) for _ in range(2)] == [first, first]
    assert (await soon(tokens.issue())).username == "user-2"
    away, back = warnings(caplog)
    assert "HTTP 503" in away
    assert away.endswith("the login of before is used until it expires")
    assert back == f"the token service {service.url} issues logins again"


# Settings


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://auth.example", "http:// would send secrets to auth.example .*use https://"),
        ("http://10.0.0.1", "http:// would send secrets to 10.0.0.1"),
        ("http://localhost.example", "http:// would send secrets to localhost.example"),
        ("http://127.0.0.1.example", "http:// would send secrets"),
        ("http://0.0.0.0", "http:// would send secrets"),
        ("ftp://auth.example", "must be https://HOST"),
        ("auth.example", "must be https://HOST"),
        ("https://", "must be https://HOST"),
        (f"https://user:{SECRET}@auth.example", "must have no user name"),
        (f"https://auth.example?key={SECRET}", "must have no user name, no '\\?'"),
        ("https://auth.example:port", "cannot be read"),
        ("https://auth.example/a b", "must be percent-encoded"),
    ],
)
def test_a_url_that_would_tell_a_secret_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        TokenService(url, org_id="acme", external_token=SECRET)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.1.2.3", "http://[::1]:8080", "https://auth.example/x"]
)
def test_https_and_this_machine_are_accepted(url: str) -> None:
    assert TokenService(url, org_id="acme", external_token=SECRET).url == url


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"org_id": ""}, "org_id is empty"),
        ({}, "give either external_token=, or secret_key= and user_email="),
        ({"external_token": "x", "secret_key": "x", "user_email": "x"}, "give either"),
        ({"secret_key": "x"}, "belong together"),
        ({"external_token": "x", "user_email": "x"}, "belong together"),
        ({"external_token": "x", "timeout": 0}, "must be a number of seconds above 0"),
    ],
)
def test_arguments_that_do_not_fit_each_other_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TokenService("https://auth.example", **{"org_id": "acme", **options})


def test_services_are_equal_by_value_and_show_no_secret() -> None:
    one, other = (TokenService("https://auth.example", org_id="acme", external_token=SECRET) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != TokenService("https://auth.example", org_id="acme", external_token="another")
    assert SECRET not in repr(one)
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.copy(one) is copy.deepcopy(one) is one, "a copy would ask for a login of its own"


async def test_the_service_is_asked_over_tls(tmp_path: Path) -> None:
    if Authority.missing():
        pytest.skip("openssl is not installed")
    authority = Authority(tmp_path / "authority", "authority")
    server = authority.issue("service", "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    with serving(Service(), context) as service:
        assert (await soon(created(service, tls=TLS(authority.certificate)).issue())).username == "user-1"
        with pytest.raises(TokenNotIssued, match=r"certificate was not accepted .*tls=TLS\(ca=\.\.\.\)"):
            await soon(created(service).issue())
    assert service.calls == ["create"]


def test_the_token_service_of_the_documents_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSIGNAL_SECRET_KEY", SECRET)
    text = (Path(__file__).parents[2] / "docs" / "identity.md").read_text(encoding="utf-8")
    [program] = [each for each in re.findall("```python\n(.*?)```", text, re.DOTALL) if "TokenService" in each]
    made: dict[str, Any] = {}
    exec(program, made)
    assert isinstance(made["login"], TokenService)
    assert "stopped" in repr(made["server"])


# At a broker


@pytest.fixture
def guarded(make_mosquitto: MakeMosquitto) -> Mosquitto:
    """A Mosquitto that accepts the logins of the service from user-2 on."""
    lines = "".join(password_line(f"user-{number}", f"{SECRET} {number}") for number in range(2, 5))
    return make_mosquitto(
        ["password_file {folder}/passwords"],
        anonymous=False,
        files={"passwords": lines},
        credentials={"username": "user-2", "password": f"{SECRET} 2"},
    )


async def test_a_connection_renews_its_login_before_the_expiry_and_replaces_one_that_the_broker_refuses(
    service: Service, guarded: Mosquitto
) -> None:
    service.lifetime = 2.5
    connection = Connection(guarded.url, credentials=created(service))
    with pytest.raises(ConnectionRefused):
        await soon(connection.start())
    await soon(connection.start())
    try:
        epoch = connection.epoch
        service.lifetime = 3600
        await until(lambda: connection.epoch > epoch and connection.connected)
        await soon(connection.publish("t", b"x"))
        assert service.calls == ["create", "create", "refresh"]
    finally:
        await soon(connection.stop(end_session=True))


async def test_an_endpoint_does_not_start_without_a_login(service: Service, guarded: Mosquitto) -> None:
    service.replies = [reply(401)]
    with pytest.raises(TokenNotIssued, match="check secret_key"):
        await soon(Connection(guarded.url, credentials=created(service)).start())


@pytest.mark.long
async def test_a_service_that_refuses_at_a_reconnect_is_told_to_those_who_wait(
    service: Service, guarded: Mosquitto
) -> None:
    service.issued = 1
    tokens = created(service)
    connection = Connection(guarded.url, credentials=tokens)
    told: list[MQTTAgentError] = []
    connection.on_refused.append(told.append)
    await soon(connection.start())
    try:
        tokens.forget(await soon(tokens.issue()))
        service.replies = [reply(401)] * 100
        guarded.restart(keep_state=True)
        await until(lambda: told, 30)
        assert isinstance(told[0], TokenNotIssued)
        service.replies.clear()
        await until(lambda: connection.connected, 40)
    finally:
        await soon(connection.stop(end_session=True))
