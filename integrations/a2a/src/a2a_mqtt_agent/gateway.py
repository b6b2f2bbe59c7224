"""The gateway: agents of a namespace as A2A servers, for HTTP callers with identities of their own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import uvicorn
from a2a.types import a2a_pb2 as a2a
from mqtt_agent import Agent
from mqtt_agent.adapting.bearers import SPEAKS_FOR_OTHERS, Identity, is_loopback
from mqtt_agent.adapting.http_serving import listening_at, serve_until_canceled
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.agents.store import TaskStore
from mqtt_agent.wire import AgentCard
from starlette.types import ASGIApp
from typing_extensions import Self

from a2a_mqtt_agent.authentication import Authentication, KeyPlace
from a2a_mqtt_agent.callers import Caller
from a2a_mqtt_agent.cards import Addresses, a2a_card
from a2a_mqtt_agent.guard import Guard
from a2a_mqtt_agent.handler import Handler
from a2a_mqtt_agent.pushing import Pusher
from a2a_mqtt_agent.tls import ServerTLS
from a2a_mqtt_agent.web import application

if TYPE_CHECKING:
    from a2a_mqtt_agent.tokens import TokenIssuer

__all__ = ["Gateway"]

logger: logging.Logger = logger_of(__name__)


class Gateway:
    """Shows agents over MQTT as A2A 1.0 servers.

    Each caller at the HTTP side is an agent of its own at the MQTT side: it has its own connection, and its tasks have
    its agent id as their sender. The tasks are in the stores of these agents, so a gateway that was killed finds them
    again.

    Example:
        >>> gateway = Gateway([Identity("alice", "secret")], broker="mqtt://localhost")  # doctest: +SKIP
        >>> async with gateway:  # doctest: +SKIP
        ...     await gateway.serve("127.0.0.1", 8080)

    Args:
        identities: The callers. One identity without any proof stands for every caller, which is allowed at the
            loopback address only.
        peers: The agents that are shown; empty means all agents of the namespace.
        url: The address at which callers reach the gateway, for the cards; None means the address of :meth:`serve`.
        store: Where the tasks of all identities are kept, as for :class:`mqtt_agent.Agent`. None means a file for each
            identity.
        legacy: Whether the cards also show A2A 0.3, for clients that know only 0.3. Requests of 0.3 are answered in any
            case.
        allow_private_push: Whether push notifications may go to this machine and to private networks.
        key: The JWK file of the private key that signs the cards; None means cards without a signature. It needs
            ``a2a-mqtt-agent[auth]``.
        issuer: Whose tokens the callers with a ``subject`` have. It needs ``a2a-mqtt-agent[auth]``.
        api_key_in: Where callers may have their API key: ``header`` (``X-API-Key``), ``query`` (``api_key``), and
            ``cookie`` (``api_key``). A key in a query is seen by proxies and stands in their logs.
        tls_server: The TLS of the gateway; None means no TLS, for a reverse proxy that has TLS.
        connection: Further arguments of :class:`mqtt_agent.Agent`, such as ``broker``, ``namespace`` and ``tls``.

    Raises:
        ValueError: The identities cannot be told apart, or ``key`` is no private key.
        OSError: The file of ``key`` cannot be read.
    """

    def __init__(
        self,
        identities: Sequence[Identity],
        peers: Sequence[str] = (),
        *,
        url: str | None = None,
        store: TaskStore | str | None = None,
        legacy: bool = False,
        allow_private_push: bool = False,
        key: str | PathLike[str] | None = None,
        issuer: TokenIssuer | None = None,
        api_key_in: Sequence[KeyPlace] = ("header",),
        tls_server: ServerTLS | None = None,
        **connection: Any,
    ) -> None:
        self._authentication = Authentication(identities, issuer, api_key_in)
        self._tls = tls_server
        self._peers = tuple(peers)
        self._url = url
        self._legacy = legacy
        self._sign: Callable[[a2a.AgentCard], a2a.AgentCard] = lambda card: card
        if key is not None:
            from a2a_mqtt_agent.signing import card_signer

            self._sign = card_signer(key)
        self._addresses = Addresses(url or "http://127.0.0.1")
        self._pusher = Pusher(allow_private=allow_private_push)
        self._callers: dict[str, Caller] = {}
        for each in identities:
            own = {**connection, **({} if each.credentials is None else {"credentials": each.credentials})}
            if each.client_id is not None:
                own["client_id"] = each.client_id
            agent = Agent(
                each.agent_id,
                description="Speaks for A2A clients over HTTP.",
                meta={SPEAKS_FOR_OTHERS: True},
                store=store,
                **own,
            )
            self._callers[each.agent_id] = Caller(agent, self._pusher.told)
        self._finder = next(iter(self._callers.values())).agent
        self.handler: Handler = Handler(self._callers, self._card_of, self.names, self._pusher)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect each identity, and follow the tasks that an earlier gateway has left open.

        Raises:
            StoreError, TransportError: See :meth:`mqtt_agent.Agent.start`.
        """
        async with contextlib.AsyncExitStack() as started:
            for caller in self._callers.values():
                await caller.start()
                started.push_async_callback(caller.stop)
            await self._pusher.start(self._callers.values())
            started.pop_all()

    async def stop(self) -> None:
        """Disconnect. The tasks go on at their agents."""
        await self._pusher.stop()
        for caller in self._callers.values():
            await caller.stop()

    # Agents

    async def names(self) -> list[str]:
        """The ids of the agents that are shown, also of those that are offline."""
        cards = await self._finder.peers(online_only=False)
        return [card.name for card in cards if self._shows(card)]

    async def _card_of(self, name: str, extended: bool) -> a2a.AgentCard | None:
        # Anybody may ask for any name, so the gateway must not follow the name.
        cards = await self._finder.peers(online_only=False)
        card = next((each for each in cards if each.name == name and self._shows(each)), None)
        if card is None:
            return None
        made = a2a_card(card, self._addresses, extended=extended)
        return self._sign(made) if extended else made

    async def _signed_card_of(self, name: str, extended: bool) -> a2a.AgentCard | None:
        card = await self._card_of(name, extended)
        return card if card is None or extended else self._sign(card)

    def _shows(self, card: AgentCard) -> bool:
        if card.name in self._callers or (card.meta or {}).get(SPEAKS_FOR_OTHERS):
            return False
        return not self._peers or card.name in self._peers

    # HTTP

    def app(self, host: str, port: int, *, allowed: Sequence[str] = (), grpc: str | None = None) -> ASGIApp:
        """The ASGI application at an address.

        Args:
            host: The address to listen on.
            port: The port.
            allowed: Further names of this host that a request may have in its Host and Origin headers.
            grpc: The address for gRPC, for the cards.

        Raises:
            ValueError: Other machines can reach the address, and callers need no proof.
        """
        if not self._authentication.needed and not is_loopback(host):
            raise ValueError(f"other machines can reach {host}, so A2A clients need bearer tokens, or other proofs")
        scheme = "http" if self._tls is None else "https"
        shown = f"[{host}]" if ":" in host else host
        self._addresses = Addresses(
            (self._url or f"{scheme}://{shown}:{port}").rstrip("/"), grpc, self._authentication.show, self._legacy
        )
        hosts = {host, *allowed, *(["127.0.0.1", "localhost", "::1"] if is_loopback(host) else ())}
        if self._url is not None:
            hosts.add(self._url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0])
        return Guard(application(self.handler, self._signed_card_of, self.names), self._authentication, hosts)

    async def serve(
        self,
        host: str,
        port: int,
        *,
        allowed: Sequence[str] = (),
        grpc_port: int | None = None,
        on_listening: Callable[[int], object] | None = None,
    ) -> None:
        """Serve A2A clients until a signal or the cancellation of the asyncio task; see :meth:`app`.

        Args:
            host: The address to listen on.
            port: The port for HTTP; 0 lets the system choose one.
            allowed: Further names of this host.
            on_listening: Called with the port when clients can connect.
            grpc_port: The port for gRPC; None means no gRPC. It needs ``a2a-mqtt-agent[grpc]``.

        Raises:
            OSError: The address cannot be used.
            ValueError: See :meth:`app`.
        """
        grpc = None if grpc_port is None else f"{host}:{grpc_port}"
        tls: dict[str, Any] = {} if self._tls is None else self._tls.for_uvicorn()
        async with contextlib.AsyncExitStack() as stack:
            listening = stack.enter_context(listening_at(host, port))
            port = listening.getsockname()[1]
            app = self.app(host, port, allowed=allowed, grpc=grpc)
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, **tls)
            if grpc is not None:
                from a2a_mqtt_agent.grpc_face import serving_grpc

                await stack.enter_async_context(serving_grpc(self.handler, grpc, self._authentication, self._tls))
            if on_listening is not None:
                on_listening(port)
            await serve_until_canceled(uvicorn.Server(config), listening)
