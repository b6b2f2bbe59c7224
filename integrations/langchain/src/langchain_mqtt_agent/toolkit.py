"""The tools that servers offer on a broker, as a LangChain toolkit."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.tools import BaseTool, BaseToolkit
from mqtt_agent import TLS, Connection, Password, Token, ToolCard, ToolClient
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.sync import ToolClient as SyncToolClient
from mqtt_agent.tools.naming import legal_name
from pydantic import ConfigDict, Field, PrivateAttr
from typing_extensions import Self

from langchain_mqtt_agent.tool import HandleToolError, make_tool

__all__ = ["MQTTToolkit"]

logger = logging.getLogger(__name__)


class MQTTToolkit(BaseToolkit):
    """The tools that servers offer on a broker, for any LangChain agent.

    All its tools share one connection, which lives on an event loop of its own: they can be used from any thread and
    from any event loop, sync and async. It connects on first use. Use it as a context manager, sync or async, or call
    :meth:`close` at the end; what is still open when the program ends is closed then.

    Example:
        >>> with MQTTToolkit(broker="mqtt://localhost:1883", agent_id="agent-a") as toolkit:  # doctest: +SKIP
        ...     agent = create_agent("openai:gpt-5", toolkit.get_tools())

    Args:
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        agent_id: The caller's name, told to the tools; None makes a fresh one.
        namespace: The prefix of all topics.
        tools: Names of the tools wanted; None takes all that are online.
        on_unavailable: What to do about a wanted tool that nobody serves: ``skip`` it with a warning, or ``raise``.
        timeout: Seconds that a call may take; None for no limit.
        handle_tool_error: What the language model is told when a call fails: True for the error's message, a text, or
            a function from the ``ToolException`` to a text. False raises the ``ToolException``, which ends the run.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)

    broker: str | None = Field(default=None, repr=False)  # it may hold a password
    agent_id: str | None = None
    namespace: str = "a2a/v1"
    tools: Sequence[str] | None = None
    on_unavailable: Literal["skip", "raise"] = "skip"
    timeout: float | None = 60.0
    handle_tool_error: HandleToolError = True
    credentials: Password | Token | None = None
    tls: ssl.SSLContext | TLS | None = None
    _client: SyncToolClient = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Check the settings that only the client can check."""
        self._client = SyncToolClient(
            self.agent_id, broker=self.broker, namespace=self.namespace, credentials=self.credentials, tls=self.tls
        )
        self.agent_id = self._client.name

    @property
    def connection(self) -> Connection:
        """The connection that all its tools share."""
        return self._client.connection

    def get_tools(self) -> list[BaseTool]:
        """The tools that can be called now. Each call looks anew.

        Raises:
            BrokerUnreachable, ConnectionRefused: There is no broker at the URL, or it refuses.
            ToolUnavailable: A wanted tool is not served by anyone, and ``on_unavailable`` is ``raise``.
        """
        return self._make_tools(self._client.run_on_loop(_find, self.tools))

    async def aget_tools(self) -> list[BaseTool]:
        """The same as :meth:`get_tools`, awaited."""
        return self._make_tools(await self._client.await_on_loop(_find, self.tools))

    def close(self) -> None:
        """Cancel the calls that are under way, and disconnect. Using a tool connects again."""
        self._client.stop()

    async def aclose(self) -> None:
        """The same as :meth:`close`, awaited."""
        await asyncio.to_thread(self._client.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def _make_tools(self, found: dict[str, ToolCard | None]) -> list[BaseTool]:
        taken: set[str] = set()
        made: list[BaseTool] = []
        for name, card in found.items():
            if card is not None:
                legal = legal_name(name, taken)
                made.append(make_tool(self._client, card, legal, self.timeout, self.handle_tool_error))
                continue
            message = f"{name}: no server offers this tool now in namespace {self.namespace!r}"
            if self.on_unavailable == "raise":
                raise ToolUnavailable(message, tool=name)
            logger.warning("%s; it is left out", message)
        return made


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
