"""TokenService: gets MQTT logins from CloudSignal's token service, and renews them."""

from __future__ import annotations

import asyncio
import http.client
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, Union

from mqtt_agent.aio.backoff import Backoff
from mqtt_agent.aio.daemon_threads import DaemonThreads
from mqtt_agent.aio.forks import in_child
from mqtt_agent.errors import TokenNotIssued
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.connect_errors import explain
from mqtt_agent.transport.credentials import IssuedToken, Token, TokenSource
from mqtt_agent.transport.http_post import Answer, Server
from mqtt_agent.transport.tls import TLS, tls_context
from mqtt_agent.transport.token_answers import HeldLogin, read_login

__all__ = ["TokenService"]

logger: logging.Logger = logger_of(__name__)

T = TypeVar("T")

_ATTEMPTS = 3
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 2.0  # seconds before another attempt
_PATIENCE = 5.0  # seconds; a service that asks to wait longer is not waited for, and the error is raised
_LONGEST_HOLD = 600.0  # seconds; a service that asks to wait longer is asked again after this time
_CREATE, _EXCHANGE, _REFRESH = "/v2/tokens/create", "/v2/tokens/exchange", "/v2/tokens/refresh"


@dataclass(frozen=True)
class TokenService(Token):
    """CloudSignal's token service, which issues a user name and a password that expire.

    The service is asked before the first connect. A login that is about to expire is refreshed, and the connection is
    made again with the next login before the expiry, so no call is lost. When the service refuses to refresh, or the
    broker refuses the login, a login is created or exchanged anew. Endpoints to which the same object is given share
    one login.

    Example:
        >>> service = TokenService(
        ...     "https://auth.example", org_id="acme", secret_key="secret", user_email="agent-a@acme.example"
        ... )
        >>> service
        TokenService(url='https://auth.example', org_id='acme', user_email='agent-a@acme.example', timeout=10.0)

    Args:
        url: The URL of the service, with ``https://``. ``http://`` is accepted for this machine only.
        org_id: The id of the organization.
        external_token: A token of another identity provider, which is exchanged for a login. Or a plain function that
            returns the token; it is called in a thread for each exchange, so it may block. Give this or ``secret_key``.
        secret_key: The secret key of the organization, with which a login is created for ``user_email``.
        user_email: Whose login is created. The service may end an earlier login of the same user, so each program has
            a user of its own.
        timeout: Seconds to wait for each answer of the service.
        tls: The certificates for the connection to the service. None trusts the authorities of the operating system.

    Raises:
        ValueError: The URL cannot be used, or the arguments do not fit each other.
        OSError: A file that ``tls`` names cannot be used.
    """

    token: TokenSource = field(init=False, repr=False, compare=False)
    username: Union[str, None] = field(default=None, init=False, repr=False, compare=False)
    url: str
    org_id: str = field(kw_only=True)
    external_token: Union[str, Callable[[], str], None] = field(default=None, kw_only=True, repr=False)
    secret_key: Union[str, None] = field(default=None, kw_only=True, repr=False)
    user_email: Union[str, None] = field(default=None, kw_only=True)
    timeout: float = field(default=10.0, kw_only=True)
    tls: Union[ssl.SSLContext, TLS, None] = field(default=None, kw_only=True, repr=False)
    _desk: _Desk = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.org_id:
            raise ValueError("org_id is empty: give the id of the organization")
        if (self.external_token is None) == (self.secret_key is None):
            raise ValueError("give either external_token=, or secret_key= and user_email=")
        if (self.secret_key is None) != (self.user_email is None):
            raise ValueError("secret_key= and user_email= belong together: the service creates a login for this user")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout={self.timeout!r} must be a number of seconds above 0")
        server = Server.parse(self.url)
        context = tls_context(self.tls) if server.secure else None
        object.__setattr__(self, "_desk", _Desk(self, server, context))
        object.__setattr__(self, "token", self._login)

    def __copy__(self) -> TokenService:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TokenService:
        return self  # a second object would ask for a second login

    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: getattr(self, name) for name in ("org_id", "external_token", "secret_key", "user_email")}
        return _remake, (self.url, {**values, "timeout": self.timeout, "tls": self.tls})

    async def issue(self) -> IssuedToken:
        """The login to connect with now.

        A service that is busy or away is asked three times. While a login of before has not expired, the service is
        asked once, and this login is used if the service gives no other.

        Raises:
            TokenNotIssued: The service gives no login.
        """
        return await super().issue()

    async def _login(self) -> IssuedToken:
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        for attempts in range(_ATTEMPTS, 0, -1):
            try:
                return await _in_thread(self._desk.issue)
            except TokenNotIssued as error:
                usable = self._desk.usable(error)
                if usable is not None:
                    return usable
                wait = error.retry_after or 0.0
                if not _passes(error) or attempts == 1 or wait > _PATIENCE:
                    raise
                await asyncio.sleep(max(wait, backoff.next_wait()))
        raise AssertionError("the last attempt returns or raises")

    def forget(self, issued: IssuedToken) -> None:
        """Do not give this login again, because the broker has refused it."""
        self._desk.forget(issued)


def _remake(url: str, values: dict[str, Any]) -> TokenService:
    return TokenService(url, **values)


class _Desk:
    """Asks the service, one request after the other, and keeps the login. Its methods may be called in any thread."""

    def __init__(self, service: TokenService, server: Server, context: ssl.SSLContext | None) -> None:
        self._service = service
        self._server = server
        self._context = context
        self._reset()
        in_child(self._reset)

    def _reset(self) -> None:
        # A forked process must not refresh the login of its parent: the parent's login could end.
        self._turn = threading.Lock()
        self._held: HeldLogin | None = None
        self._hold_until = -math.inf  # monotonic time
        self._hold: TokenNotIssued | None = None
        self._told = ""

    def issue(self) -> IssuedToken:
        """The login that is held, or the next one when it is about to expire. This blocks."""
        with self._turn:
            held = self._held
            if held is not None and time.time() < held.renew_at:
                return held.issued
            if self._hold is not None and time.monotonic() < self._hold_until:
                raise TokenNotIssued(str(self._hold), status=self._hold.status, retry_after=self._hold.retry_after)
            taken = self._next(held)
            self._held = taken
            if self._told:
                logger.warning("the token service %s issues logins again", self._service.url)
                self._told = ""
            return taken.issued

    def usable(self, error: TokenNotIssued) -> IssuedToken | None:
        """The login of before, if it has not expired. The error is logged, unless it was the last that was logged."""
        held = self._held
        if held is None or held.expires <= time.time():
            return None
        if str(error) != self._told:
            self._told = str(error)
            logger.warning("%s; the login of before is used until it expires", error)
        return held.issued

    def forget(self, issued: IssuedToken) -> None:
        """Do not give this login again."""
        held = self._held
        if held is not None and held.issued == issued:
            self._held = None

    def _next(self, held: HeldLogin | None) -> HeldLogin:
        if held is not None and held.token_id is not None:
            try:
                return self._ask(_REFRESH, {"token_id": held.token_id, "current_token_password": held.proof})
            except TokenNotIssued as error:
                if not error.refused:
                    raise
        service = self._service
        if service.secret_key is not None and service.user_email is not None:
            values = {"secret_key": service.secret_key, "user_email": service.user_email}
            return self._ask(_CREATE, {"organization_id": service.org_id, **values})
        token = service.external_token() if callable(service.external_token) else service.external_token
        if not isinstance(token, str):
            kind = type(token).__name__
            raise TypeError(f"the function external_token must return a str, and it returned the type {kind}")
        return self._ask(_EXCHANGE, {"organization_id": service.org_id, "token": token})

    def _ask(self, path: str, values: dict[str, str]) -> HeldLogin:
        where = f"the token service {self._service.url}"
        try:
            answer = self._server.post(path, values, self._service.timeout, self._context)
        except TimeoutError:
            why = f"did not answer {path} within {self._service.timeout:g} s"
            raise TokenNotIssued(f"{where} {why}; check whether the service is up, or raise timeout=") from None
        except OSError as error:
            raise TokenNotIssued(f"{where} cannot be reached: {_why(error)}") from error
        except (http.client.HTTPException, ValueError) as error:  # its text may quote the answer
            kind = type(error).__name__
            raise TokenNotIssued(f"{where} does not speak HTTP ({kind}); check the URL") from None
        if answer.status not in (200, 201):
            raise self._refusal(where, path, answer)
        try:
            return read_login(answer.body)
        except ValueError as error:
            text = f"{where} answered {path} with something else than a login: {error}; check the URL"
            raise TokenNotIssued(text, status=answer.status) from None

    def _refusal(self, where: str, path: str, answer: Answer) -> TokenNotIssued:
        """The error for an answer without a login. The body is not quoted, because it may repeat a secret."""
        status = answer.status
        given = "external_token and" if path == _EXCHANGE else "secret_key, user_email and"
        advice = {
            401: f"check {given} org_id",
            403: f"check {given} org_id, and what the service allows",
            404: "check the URL and org_id",
            429: "too many requests; they will be allowed again later",
        }.get(status)
        if advice is None and 300 <= status < 400:
            advice = "the service redirects, and redirects are not followed: give the address that it redirects to"
        if advice is None:
            advice = "look at the log of the service" if status >= 500 else f"check the URL, {given} org_id"
        wait = answer.retry_after
        asked = "" if wait is None else f"; the service asks to wait {wait:,.0f} s"
        error = TokenNotIssued(f"{where} answered {path} with HTTP {status}: {advice}{asked}", status=status)
        error.retry_after = wait
        if wait is not None and _passes(error):
            self._hold, self._hold_until = error, time.monotonic() + min(wait, _LONGEST_HOLD)
        return error


def _passes(error: TokenNotIssued) -> bool:
    """Whether the same request may succeed a little later."""
    return error.status is None or error.status in (408, 429) or error.status >= 500


def _why(error: OSError) -> str:
    if isinstance(error, (ssl.SSLCertVerificationError, socket.gaierror)):
        return explain(error)
    if isinstance(error, ConnectionRefusedError):
        return "no program listens at this port; check the URL"
    return error.strerror or type(error).__name__


async def _in_thread(function: Callable[[], T]) -> T:
    """Run a function in a thread that is completed even when this is canceled, and that no exit waits for.

    An answer that nobody waits for any more is kept: the service may have ended the login of before.
    """
    threads = DaemonThreads(1, "mqtt-agent-token-service")
    future = threads.submit(function)
    threads.shutdown()
    return await asyncio.wrap_future(future)
