"""Retained cards: what a tool takes, and who serves it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mqtt_agent.display import arguments, card, escaped, table
from mqtt_agent.wire.messages import Message, utc_now

__all__ = ["FEATURES", "ServerCard", "Status", "ToolAnnotations", "ToolCard", "VersionInfo"]

Status = Literal["online", "offline"]

FEATURES = ("cancel", "progress", "query", "replay")
"""The additive abilities that this implementation's tool servers speak (ours)."""


class VersionInfo(Message):
    """Versions of the SDK and of the tool's own implementation (spec)."""

    sdk: str | None = None
    tool: str | None = None


class ToolAnnotations(Message):
    """Hints about a tool's behaviour, under their names in MCP (ours)."""

    title: str | None = None
    readOnlyHint: bool | None = None
    destructiveHint: bool | None = None
    idempotentHint: bool | None = None
    openWorldHint: bool | None = None


class ToolCard(Message):
    """What a tool is called, what it takes, and how to treat it (spec).

    Attributes:
        version: Version of the card's own format.
        tool: The tool's name, unique in its namespace.
        server: The name of the tool server that published the card.
        namespace: The namespace as its server was given it.
        description: For the person or the model that chooses a tool.
        input_schema: JSON Schema of the arguments.
        output_schema: JSON Schema of the result, if the tool promises one.
        supports_streaming: Whether partials may come before the result.
        requires_auth: A hint; the broker decides.
        allowed_callers: A hint for people; a name that a caller gives itself is no security.
        status: A hint; the tool is available when an online server card lists it.
        last_seen: When the card was published, ISO 8601 UTC.
        title: A name for people (ours).
        annotations: Hints in MCP's words (ours).
        features: The additive abilities of the server that wrote the card (ours).
        icons: Icons as in MCP (ours).
        meta: Anything else its author wants to tell (ours).
    """

    version: str = "1"
    tool: str
    server: str
    namespace: str = ""
    description: str = ""
    input_schema: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    output_schema: dict[str, Any] | None = None
    supports_streaming: bool = False
    requires_auth: bool = True
    allowed_callers: list[str] | None = None
    version_info: VersionInfo | None = None
    status: Status = "online"
    last_seen: str = Field(default_factory=utc_now)
    title: str | None = None
    annotations: ToolAnnotations | None = None
    features: list[str] | None = None
    icons: list[dict[str, Any]] | None = None
    meta: dict[str, Any] | None = None

    @property
    def read_only(self) -> bool:
        """Whether the tool says that it changes nothing."""
        return bool(self.annotations and self.annotations.readOnlyHint)

    @property
    def idempotent(self) -> bool:
        """Whether the tool says that running it twice is the same as once."""
        return bool(self.annotations and self.annotations.idempotentHint)

    def _repr_html_(self) -> str:
        rows = [
            (f"<code>{escaped(name)}</code>", escaped(type), "yes" if required else "", escaped(description))
            for name, type, required, description in arguments(self.input_schema)
        ]
        takes = table(("argument", "type", "required", "description"), rows) if rows else "takes no arguments"
        hints = [
            f"server {escaped(self.server)}",
            *(["read-only"] if self.read_only else []),
            *(["idempotent"] if self.idempotent else []),
            *(["streams"] if self.supports_streaming else []),
        ]
        return card(self.title or self.tool, self.status, self.description, hints, takes)


class ServerCard(Message):
    """Which tools one running tool server offers; its will is the same card with status offline (spec).

    Attributes:
        version: Version of the card's own format.
        server: The id of this running server, unique per replica.
        namespace: The namespace as the server was given it.
        tools: The names of its tools.
        version_info: Version of its SDK.
        status: Whether it is online.
        last_seen: When the card was published, ISO 8601 UTC.
        name: The name that all replicas of this server share (ours).
        replica: Which of them this one is (ours).
        agent: The agent whose connection serves it, whose status then counts as well (ours).
        started: When this process began to serve, ISO 8601 UTC (ours).
        since: When this replica took its place in the line of those that may serve, ISO 8601 UTC; None where the broker
            spreads calls over all replicas (ours).
        epoch: Which of its connections the card speaks for, 1 for the first (ours).
        session_present: Whether the broker had kept its session, with the calls in it, for that connection (ours).
        standby: Whether another replica serves, and this one waits to take its place; then ``tools`` is empty. None
            where the broker spreads calls over all replicas (ours).
        features: The additive abilities of this server (ours).
    """

    version: str = "1"
    server: str
    namespace: str = ""
    tools: list[str] = Field(default_factory=list)
    version_info: VersionInfo | None = None
    status: Status = "online"
    last_seen: str = Field(default_factory=utc_now)
    name: str | None = None
    replica: str | None = None
    agent: str | None = None
    started: str | None = None
    since: str | None = None
    epoch: int | None = None
    session_present: bool | None = None
    standby: bool | None = None
    features: list[str] | None = None

    def speaks_before(self, other: ServerCard) -> bool:
        """Whether it is of an earlier connection than ``other``: then it is a late will, and not news."""
        if not (self.started and self.epoch and other.started and other.epoch):
            return False
        return (self.started, self.epoch) < (other.started, other.epoch)

    def _repr_html_(self) -> str:
        tools = f"serves {escaped(', '.join(self.tools))}" if self.tools else "serves nothing"
        hints = [tools, *(["stands by"] if self.standby else []), f"last seen {escaped(self.last_seen)}"]
        return card(self.server, self.status, "", hints)
