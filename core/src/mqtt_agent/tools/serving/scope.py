"""What all parts of one tool server share: its names and ids, the topics, the connection and the payload limit."""

from __future__ import annotations

from dataclasses import dataclass

from mqtt_agent.endpoints.dialect import Dialect
from mqtt_agent.transport import Connection
from mqtt_agent.wire import Topics

__all__ = ["Scope"]


@dataclass(frozen=True)
class Scope:
    """The values that all parts of one replica of a tool server share.

    Attributes:
        name: The server's name, the same for all its replicas.
        replica: The name of this replica.
        server_id: The id of this replica: ``name:replica``.
        generated: Whether the replica's name was made for this process, so that no later process will have it.
        namespace: The namespace as the user gave it, for the cards.
        topics: The topics of the namespace.
        connection: The replica's connection to the broker.
        agent: The id of the agent whose connection this is; None when the server has a connection of its own.
        max_payload: The size of the largest message that the server reads, in bytes.
        dialect: Which topics the server uses.
    """

    name: str
    replica: str
    server_id: str
    generated: bool
    namespace: str
    topics: Topics
    connection: Connection
    agent: str | None
    max_payload: int
    dialect: Dialect
