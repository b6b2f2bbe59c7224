"""Which topics an agent uses with each peer: sender-bound topics or plain topics."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from mqtt_agent.endpoints.dialect import Dialect
from mqtt_agent.transport import Bound

__all__ = ["AgentDialect"]


class AgentDialect(Dialect):
    """Which topics an agent uses in one of its lives.

    Args:
        setting: The setting of the agent.
        agent_id: The id of the agent, for the log.

    Attributes:
        says_bound: Whether the card of a peer says that the peer speaks sender-bound topics; None when the peer's card
            is not known.
        on_given_up: Functions to call when the agent uses only plain topics from now on.
    """

    def __init__(self, setting: Bound, agent_id: str) -> None:
        super().__init__(setting, f"agent {agent_id}")
        self.says_bound: Callable[[str], bool | None] = lambda peer: None
        self.on_given_up: list[Callable[[], None]] = []

    def bound_with(self, peer: str, before: bool = False) -> bool:
        """Whether a message to a peer goes to a sender-bound topic.

        Args:
            peer: The id of the peer.
            before: Whether earlier messages about the same task went to sender-bound topics. This counts while the
                peer's card is not known, such as just after a start.
        """
        if self.required or not self.bound:
            return self.required
        says = self.says_bound(peer)
        return before if says is None else says

    @override
    def give_up(self, why: object) -> None:
        was_bound = self.bound
        super().give_up(why)
        if was_bound:
            for listener in self.on_given_up:
                listener()
