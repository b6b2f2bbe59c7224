"""The retained cards of tools and tool servers: what a tool takes, and which server offers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from mqtt_agent.display import arguments, card, escaped, table
from mqtt_agent.wire.messages import Message, utc_now

__all__ = ["FEATURES", "ServerCard", "Status", "ToolAnnotations", "ToolCard", "VersionInfo"]

Status = Literal["online", "offline"]
"""Whether a server or an agent is connected (spec)."""

FEATURES: tuple[str, ...] = ("cancel", "progress", "query", "replay")
"""The optional parts of the protocol that this implementation's tool servers support (ours)."""


class VersionInfo(Message):
    """Versions of the software that a card describes (spec).

    Attributes:
        sdk: The version of the SDK.
        tool: The version of the tool's implementation.
    """

    sdk: str | None = None
    tool: str | None = None


class ToolAnnotations(Message):
    """Hints about the behaviour of a tool, with MCP's field names (ours).

    Attributes:
        title: A name for people.
        readOnlyHint: Whether the tool changes nothing.
        destructiveHint: Whether the tool may delete or overwrite something.
        idempotentHint: Whether running the tool twice has the same effect as running it once.
        openWorldHint: Whether the tool reaches other systems, such as the web.
    """

    title: str | None = None
    readOnlyHint: bool | None = None
    destructiveHint: bool | None = None
    idempotentHint: bool | None = None
    openWorldHint: bool | None = None


LISTED: str = "listed"
"""The feature of a server card whose server names itself in ``replicas`` of its tool cards (ours)."""
OFFLINE_CARD_EXPIRY: int = 24 * 3600
"""Seconds that the broker keeps the offline card of a replica with a generated name, which nobody uses again (ours)."""
MAX_LISTED: int = 64
"""How many replicas a tool card lists at most. A card that lists so many may leave out others (ours)."""


class ToolCard(Message):
    """Describes one tool: its name, its arguments, hints for its use (spec).

    Attributes:
        version: The version of the card format.
        tool: The tool's name, unique in its namespace.
        server: The name of the tool server that published the card.
        namespace: The namespace, as it was given to the server.
        description: For the person or the model that chooses a tool.
        input_schema: JSON Schema of the arguments.
        output_schema: JSON Schema of the result, if the tool promises one.
        supports_streaming: Whether the tool may send partial results before its result.
        requires_auth: A hint only: the broker decides about access.
        allowed_callers: Whose calls the server runs when they arrive on sender-bound topics. For calls on plain topics,
            it is a hint for people and no protection, because such callers choose their own names.
        version_info: Versions of the server's SDK and of the tool.
        status: A hint only: the tool is available when the card of an online server lists it.
        last_seen: When the card was published, ISO 8601 UTC.
        title: A name for people (ours).
        annotations: Hints about the tool's behaviour (ours).
        features: The optional parts of the protocol that the server supports (ours).
        icons: Icons, as in MCP (ours).
        meta: Any other information from the author of the tool (ours).
        mcp_name: The tool's name at its MCP server, when a bridge offers the tool under another name (ours).
        task_support: Whether the tool can run as an MCP task: ``forbidden``, ``optional`` or ``required`` (ours).
        replicas: The ids of the replicas of the server, so that a caller can follow their server cards by the exact
            topics. Some of these replicas may be gone. None when the server does not tell them (ours).
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
    mcp_name: str | None = None
    task_support: str | None = None
    replicas: list[str] | None = None
    _also_offered_by: tuple[str, ...] = PrivateAttr(default=())

    @property
    def also_offered_by(self) -> list[str]:
        """The names of other servers that take calls of this tool too, although ``server`` has the name.

        A call of such a tool may reach any of these servers. :meth:`ToolClient.list_tools` finds them out. They are not
        part of the message.
        """
        return list(self._also_offered_by)

    def with_others(self, servers: Sequence[str]) -> ToolCard:
        """Set :attr:`also_offered_by`, and return this card."""
        self._also_offered_by = tuple(servers)
        return self

    @property
    def read_only(self) -> bool:
        """Whether the card says that the tool changes nothing."""
        return bool(self.annotations and self.annotations.readOnlyHint)

    @property
    def idempotent(self) -> bool:
        """Whether the card says that running the tool twice has the same effect as running it once."""
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
            *([f"also offered by {escaped(', '.join(self.also_offered_by))}"] if self.also_offered_by else []),
        ]
        return card(self.title or self.tool, self.status, self.description, hints, takes)


class ServerCard(Message):
    """The tools that one running tool server offers. The server's Last Will is this card with status offline (spec).

    Attributes:
        version: The version of the card format.
        server: The id of this running server, unique per replica.
        namespace: The namespace, as it was given to the server.
        tools: The names of the server's tools.
        version_info: The version of the server's SDK.
        status: Whether the server is online.
        last_seen: When the card was published, ISO 8601 UTC.
        name: The name that all replicas of this server share (ours).
        replica: The name of this replica among them (ours).
        agent: The agent whose connection the server uses, if any. The server counts as offline while this agent is
            offline (ours).
        started: When this process began to serve, ISO 8601 UTC (ours).
        since: When this replica joined the queue of replicas that may serve, ISO 8601 UTC. None when the broker spreads
            the calls over all replicas (ours).
        epoch: The number of the connection that the card belongs to, 1 for the process's first connection (ours).
        session_present: Whether the broker still had the server's session, with the calls that wait in it, when that
            connection was opened (ours).
        standby: Whether this replica is on standby: another replica serves, and this replica waits to take its place.
            ``tools`` is empty then. None when the broker spreads the calls over all replicas (ours).
        claims: The names of tools that the server wants to offer. The server finds out whether a server of another name
            has these names. Otherwise the server takes the calls of these tools, and then lists them in ``tools``
            (ours).
        refused: The names of tools that the server does not offer, because a server of another name has these names.
            The server takes over such a name when the other server is gone (ours).
        schemas: A digest of the input schemas of all the server's tools. Replicas with the same digest take the same
            arguments (ours).
        features: The optional parts of the protocol that the server supports (ours).
        capabilities: What the server has besides tools, with MCP's names, such as ``{"resources": {}, "prompts": {}}``.
            It answers requests for them (ours).
        instructions: How to use the server, for a language model (ours).
        unavailable: Why the server does not serve what it has, although nobody has stopped it. Its Last Will says this,
            and so does the card of a bridge whose MCP server is gone. None when the server serves what it has, or was
            stopped (ours).
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
    claims: list[str] | None = None
    refused: list[str] | None = None
    schemas: str | None = None
    features: list[str] | None = None
    capabilities: dict[str, Any] | None = None
    instructions: str | None = None
    unavailable: str | None = None

    @property
    def shared_name(self) -> str:
        """The name that all replicas of this server share. A card without ``name`` is of a server with one replica.

        A ``name`` with which the server's id does not begin is that of another server, and does not count.
        """
        name = self.name
        return name if name and (name == self.server or self.server.startswith(f"{name}:")) else self.server

    def speaks_before(self, other: ServerCard) -> bool:
        """Whether this card is from an earlier connection than ``other``. Then it is an outdated Last Will."""
        if not (self.started and self.epoch and other.started and other.epoch):
            return False
        return (self.started, self.epoch) < (other.started, other.epoch)

    def _repr_html_(self) -> str:
        tools = f"serves {escaped(', '.join(self.tools))}" if self.tools else "serves nothing"
        refused = [f"on standby for {escaped(', '.join(self.refused))}"] if self.refused else []
        hints = [tools, *(["on standby"] if self.standby else []), *refused, f"last seen {escaped(self.last_seen)}"]
        return card(self.server, self.status, "", hints)
