"""A remote A2A agent as an agent over MQTT."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import httpx
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.types import a2a_pb2 as a2a
from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH
from mqtt_agent import Agent, AgentSkill, TaskContext
from mqtt_agent.adapting.logs import logger_of
from typing_extensions import Self

from a2a_mqtt_agent.bounds import ask_plainly, bound
from a2a_mqtt_agent.forwarding import Forwarded
from a2a_mqtt_agent.pinning import Pinning
from a2a_mqtt_agent.proving import Login, LoginAuth
from a2a_mqtt_agent.pushing import public_address
from a2a_mqtt_agent.trouble import Trouble

__all__ = ["RemoteAgent"]

logger: logging.Logger = logger_of(__name__)

_AT_ONCE = 64
"""How many tasks are followed at once. The remote agent does the work."""
_CONNECT, _READ = 10.0, 60.0
"""Seconds until a connection counts as lost. A2A servers send something every 15 s."""
_ANSWER = 600.0
"""Seconds that a remote agent may take for the first answer to a message: some answer only when their work is done."""


class RemoteAgent:
    """Does MQTT tasks at a remote A2A agent. Make it with :meth:`at`, which reads the card of the remote agent.

    Tasks wait while the remote agent cannot be reached. A process that was killed finds the tasks again at the remote
    agent.

    Example:
        >>> remote = await RemoteAgent.at("https://agent.example", "helper")  # doctest: +SKIP
        >>> async with remote:  # doctest: +SKIP
        ...     await asyncio.sleep(3600)

    Args:
        card: The card of the remote agent.
        url: The address of the remote agent, for errors.
        agent_id: The agent's id at the MQTT side.
        http: The HTTP client; it is closed with this object.
        answer_timeout: How many seconds the remote agent may take for its first answer to a message. Then the task
            fails, unless the remote agent lists the task.
        options: Further arguments of :class:`mqtt_agent.Agent`, such as ``broker`` and ``store``.

    Attributes:
        agent: The agent at the MQTT side.
        card: The card of the remote agent.

    Raises:
        ValueError: The remote agent speaks no transport that is known here.
    """

    def __init__(
        self,
        card: a2a.AgentCard,
        url: str,
        agent_id: str,
        http: httpx.AsyncClient,
        *,
        answer_timeout: float = _ANSWER,
        **options: Any,
    ) -> None:
        self.card: a2a.AgentCard = card
        self._url = url
        self._http = http
        self._answer_timeout = answer_timeout
        self._trouble = Trouble(url)
        config = ClientConfig(httpx_client=http, supported_protocol_bindings=["JSONRPC", "HTTP+JSON"])
        self._client: Client = ClientFactory(config).create(card)
        shown: dict[str, Any] = {
            "description": card.description,
            "skills": [_skill(each) for each in card.skills],
            "input_modes": list(card.default_input_modes),
            "output_modes": list(card.default_output_modes),
            "max_concurrency": _AT_ONCE,
            "meta": {"a2a": {"name": card.name, "version": card.version}},
        }
        self.agent: Agent = Agent(agent_id, **{**shown, **options})
        self.agent.on_task(self._do)

    @classmethod
    async def at(
        cls,
        url: str,
        agent_id: str,
        *,
        headers: Mapping[str, str] | None = None,
        login: Login | None = None,
        trust: Sequence[str | PathLike[str]] = (),
        **options: Any,
    ) -> Self:
        """Read the card of a remote agent.

        Args:
            url: The address of the agent, or of its card.
            agent_id: The agent's id at the MQTT side.
            headers: HTTP headers for the remote agent, such as ``Authorization``.
            login: What proves to the remote agent who speaks; None for nothing but the headers.
            trust: JWK or JWKS files. The card needs a signature of one of these public keys; empty means that no
                signature is needed. It needs ``a2a-mqtt-agent[auth]``.
            options: ``answer_timeout``, see :class:`RemoteAgent`, and further arguments of :class:`mqtt_agent.Agent`.

        Raises:
            ConnectionError: The agent has no readable card at this address, or no trusted key has signed the card.
            ValueError: The remote agent speaks no transport that is known here, or a file of ``trust`` has no key.
            OSError: A file of ``trust`` or of ``login`` cannot be read.
        """
        verify = None
        if trust:
            from a2a_mqtt_agent.signing import card_verifier

            verify = card_verifier(trust)
        timeout = httpx.Timeout(_CONNECT, read=_READ)
        base = url.removesuffix("/").removesuffix(AGENT_CARD_WELL_KNOWN_PATH)
        pinning, place = Pinning(), httpx.URL(base)
        asking = [ask_plainly, _headers_for(place, dict(headers or {})), pinning.pin]
        hooks = {"request": asking, "response": [bound]}
        login = login or Login()
        http = httpx.AsyncClient(timeout=timeout, follow_redirects=False, event_hooks=hooks, verify=login.verify())
        try:
            card = await A2ACardResolver(http, base).get_agent_card(signature_verifier=verify)
            await check_places(card, place)
            await pinning.begin(place)
            http.auth = LoginAuth(login, card, place)
            return cls(card, base, agent_id, http, **options)
        except (A2AClientError, httpx.HTTPError) as error:
            await http.aclose()
            raise ConnectionError(f"{url} has no readable A2A card: {error}") from error
        except (ValueError, ConnectionError):
            await http.aclose()
            raise

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Take tasks at the MQTT side, and go on with the tasks of an earlier process.

        Raises:
            StoreError, TransportError: See :meth:`mqtt_agent.Agent.start`.
        """
        await self.agent.start()

    async def stop(self) -> None:
        """Stop taking tasks. The tasks go on at the remote agent, and the next start finds them."""
        await self.agent.stop()
        await self._client.close()
        await self._http.aclose()

    async def run(self, started: Callable[[], object] = lambda: None) -> None:
        """Take tasks until the asyncio task is canceled.

        Args:
            started: Called once tasks are taken.
        """
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self)
            started()
            await asyncio.Event().wait()

    async def _do(self, task: TaskContext) -> Any:
        streaming = bool(self.card.capabilities.streaming)
        forwarded = Forwarded(
            self._client,
            task,
            self._url,
            streaming=streaming,
            answer_timeout=self._answer_timeout,
            trouble=self._trouble,
        )
        return await forwarded.run()


async def check_places(card: a2a.AgentCard, base: httpx.URL) -> None:
    """Check that the card of a public host names no host of a private network, which would get the tasks.

    Args:
        card: The card.
        base: Where the card was found.

    Raises:
        ConnectionError: The card names such a host.
    """
    for each in card.supported_interfaces:
        try:
            place = httpx.URL(each.url)
            if place.host == base.host or await public_address(place.host, place.port or 443) is not None:
                continue
            is_public = await public_address(base.host, base.port or 443) is not None
        except (httpx.InvalidURL, OSError, UnicodeError):
            continue  # no address, or a name without one: nothing is sent there
        if is_public:
            raise ConnectionError(f"the card at {base} names {place.host}, which is no public host: ask its owner")


def _skill(skill: a2a.AgentSkill) -> AgentSkill:
    return AgentSkill(
        id=skill.id,
        name=skill.name,
        description=skill.description,
        tags=list(skill.tags),
        examples=list(skill.examples) or None,
    )


def _headers_for(base: httpx.URL, headers: dict[str, str]) -> Callable[[httpx.Request], Awaitable[None]]:
    """Add headers to the requests to one host. A card may name any address, and another host must not get the token."""

    async def add(request: httpx.Request) -> None:
        there = request.url
        if (there.scheme, there.host, there.port) == (base.scheme, base.host, base.port):
            request.headers.update(headers)
        elif headers:
            own, other = f"{base.scheme}://{base.host}", f"{there.scheme}://{there.host}"
            logger.warning("%s gets no headers: they are for %s, which names this address on its card", other, own)

    return add
