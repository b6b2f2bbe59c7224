"""The brokers of one connection: which of them is in use, and which is tried next."""

from __future__ import annotations

from collections.abc import Sequence

from mqtt_agent.errors import BrokerUnreachable
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Brokers", "most_telling"]


class Brokers:
    """The brokers that a connection may use, and the one that it uses. ``str()`` gives the URL of the latter.

    Args:
        urls: The URLs, the first choice first.
    """

    def __init__(self, urls: Sequence[BrokerURL]) -> None:
        self.urls: tuple[BrokerURL, ...] = tuple(urls)
        self._at = 0

    @property
    def current(self) -> BrokerURL:
        """The broker that is in use, or is tried at the moment."""
        return self.urls[self._at]

    def advance(self) -> None:
        """Use the next broker. After the last of them comes the first."""
        self._at = (self._at + 1) % len(self.urls)

    def __len__(self) -> int:
        return len(self.urls)

    def __str__(self) -> str:
        return str(self.current)


def most_telling(errors: Sequence[Exception]) -> Exception:
    """Of the errors of all brokers, the one to tell: a refusal tells more than a broker that does not answer.

    Args:
        errors: The error of each broker.
    """
    return next((each for each in errors if not isinstance(each, BrokerUnreachable)), errors[-1])
