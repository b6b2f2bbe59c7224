"""What all parts of one tool client share: the caller's id, the topics, the connection and the payload limit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mqtt_agent.endpoints.dialect import Dialect
from mqtt_agent.transport import Connection
from mqtt_agent.wire import Topics

__all__ = ["Scope"]


@dataclass(frozen=True)
class Scope:
    """The values that all parts of one tool client share.

    Attributes:
        agent_id: The caller's id.
        topics: The topics of the client's namespace.
        connection: The client's connection to the broker.
        max_payload: The size of the largest response or partial result that the client reads, in bytes.
        dialect: Which topics the client uses.
    """

    agent_id: str
    topics: Topics
    connection: Connection
    max_payload: int
    dialect: Dialect

    @cached_property
    def inbox(self) -> str:
        """The topic on which the client receives the responses to its calls on plain topics."""
        return self.topics.client_responses(self.agent_id)

    @cached_property
    def bound_inbox(self) -> str:
        """The topic filter by which the client receives the responses to its calls on sender-bound topics."""
        return self.topics.bound.responses(self.agent_id)
