"""Recognizes retained messages that still say online although a later Last Will, which was not retained, said offline.

A broker publishes a Last Will and retains it. Some brokers publish it without retaining it. Then each further
subscription brings the message from before the Last Will again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from typing_extensions import Self

from mqtt_agent.aio.seen import Seen
from mqtt_agent.wire import AgentStatus, ServerCard, Status

__all__ = ["Outlived", "identify_card", "identify_status"]

_MOST = 1000


class _Presence(Protocol):
    @property
    def status(self) -> Status: ...

    def speaks_before(self, other: Self, /) -> bool: ...


P = TypeVar("P", bound=_Presence)


class Outlived(Generic[P]):
    """The cards or statuses of others that said online before a Last Will or an orderly stop was heard.

    Only the same message again is doubted. Whatever a live process publishes after that is believed, so a stranger who
    publishes an offline card in the name of a live server takes nothing from the server.

    Args:
        identify: Returns what no two messages of one writer have in common, such as the time of the message.
    """

    def __init__(self, identify: Callable[[P], Hashable]) -> None:
        self._identify = identify
        self._gone = Seen(_MOST)

    def is_over(self, new: P, before: P | None, *, retained: bool) -> bool:
        """Whether a message says online, but is from before an offline message that was heard.

        Args:
            new: The message that has arrived.
            before: The latest message of the same writer that is known; None when there is none.
            retained: Whether the broker has sent the new message because of a subscription.
        """
        if new.status == "online":
            return retained and self._gone.has(self._identify(new))
        if before is not None and not retained and not new.speaks_before(before):
            self._gone.add(self._identify(before))
        return False


def identify_card(card: ServerCard) -> Hashable:
    """What no two cards of one server have in common."""
    return card.server, card.started, card.epoch, card.last_seen


def identify_status(status: AgentStatus) -> Hashable:
    """What no two statuses of one agent have in common."""
    return status.name, status.started, status.epoch, status.timestamp
