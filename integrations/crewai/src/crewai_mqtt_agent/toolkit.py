"""The tools that servers offer on a broker, as CrewAI tools."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Literal

from crewai.tools import BaseTool
from crewai.utilities.string_utils import sanitize_tool_name
from mqtt_agent import TLS, Connection, Password, Token, ToolCard, ToolClient
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.sync import ToolClient as SyncToolClient
from pydantic import BaseModel
from typing_extensions import Self

from crewai_mqtt_agent.tool import make_tool

__all__ = ["MQTTToolkit"]

logger: logging.Logger = logging.getLogger(__name__)


class MQTTToolkit:
    """The tools that servers offer on a broker, for any agent, task or crew.

    All its tools share one connection, which lives on an event loop of its own: CrewAI calls tools from threads, and
    any number may. It connects on first use. Use it as a context manager, or call :meth:`close` at the end; what is
    still open when the program ends is closed then.

    Example:
        >>> with MQTTToolkit(broker="mqtt://localhost:1883", agent_id="agent-a") as toolkit:  # doctest: +SKIP
        ...     agent = Agent(role="forecaster", goal="...", backstory="...", tools=toolkit.tools())

    Args:
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        agent_id: The caller's name, told to the tools; None makes a fresh one.
        namespace: The prefix of all topics.
        tools: Names of the tools wanted; None takes all that are online.
        on_unavailable: What to do about a wanted tool that nobody serves: ``skip`` it with a warning, or ``raise``.
        timeout: Seconds that a call may take; None for no limit.
        result_schemas: For tools, by name, the pydantic model of their result: CrewAI checks it and shows it as JSON.
            Without one, a result is JSON text.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL.
    """

    def __init__(
        self,
        broker: str | None = None,
        *,
        agent_id: str | None = None,
        namespace: str = "a2a/v1",
        tools: Sequence[str] | None = None,
        on_unavailable: Literal["skip", "raise"] = "skip",
        timeout: float | None = 60.0,
        result_schemas: Mapping[str, type[BaseModel]] | None = None,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
    ) -> None:
        if isinstance(tools, str):
            raise ValueError(f"tools is a list of names: write [{tools!r}]")
        self._client = SyncToolClient(agent_id, broker=broker, namespace=namespace, credentials=credentials, tls=tls)
        self._namespace = namespace
        self._wanted = tools
        self._on_unavailable = on_unavailable
        self._timeout = timeout
        self._result_schemas = dict(result_schemas or {})

    def __repr__(self) -> str:
        return repr(self._client).replace("ToolClient", "MQTTToolkit", 1)

    @property
    def agent_id(self) -> str:
        """The caller's name."""
        return self._client.agent_id

    @property
    def connection(self) -> Connection:
        """The connection that all its tools share."""
        return self._client.connection

    def tools(self) -> list[BaseTool]:
        """The tools that can be called now. Each call looks anew.

        Raises:
            BrokerUnreachable, ConnectionRefused: There is no broker at the URL, or it refuses.
            ToolUnavailable: A wanted tool is not served by anyone, and ``on_unavailable`` is ``raise``.
        """
        return self._make_tools(self._client.run_on_loop(_find, self._wanted))

    async def atools(self) -> list[BaseTool]:
        """The same as :meth:`tools`, awaited."""
        return self._make_tools(await self._client.await_on_loop(_find, self._wanted))

    def close(self) -> None:
        """Cancel the calls that are under way, and disconnect. Using a tool connects again."""
        self._client.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _make_tools(self, found: dict[str, ToolCard | None]) -> list[BaseTool]:
        taken: set[str] = set()
        made: list[BaseTool] = []
        for name, card in found.items():
            if card is not None:
                legal = _legal_name(name, taken)
                made.append(make_tool(self._client, card, legal, self._timeout, self._result_schemas.get(name)))
                continue
            message = f"{name}: no server offers this tool now in namespace {self._namespace!r}"
            if self._on_unavailable == "raise":
                raise ToolUnavailable(message, tool=name)
            logger.warning("%s; it is left out", message)
        return made


def _legal_name(name: str, taken: set[str]) -> str:
    """The name that CrewAI tells the language model, and that no other tool has: CrewAI drops one of two."""
    legal = unique = sanitize_tool_name(name) or "tool"
    number = 1
    while unique in taken:
        number += 1
        unique = sanitize_tool_name(f"{legal}_{number}")
    taken.add(unique)
    return unique


async def _find(client: ToolClient, wanted: Sequence[str] | None) -> dict[str, ToolCard | None]:
    """The cards of the wanted tools; None for one that is not there."""
    cards = {card.tool: card for card in await client.list_tools()}
    if wanted is None:
        return dict(cards)
    found: dict[str, ToolCard | None] = {}
    for name in wanted:
        # Where a broker's rules forbid listing, a card can still be had by its name.
        card = cards.get(name) or await client.get_tool(name)
        found[name] = card if card is not None and card.status == "online" else None
    return found
