"""A bad network between the brokers of a test and all their clients: it delays, splits, stops, breaks and loses bytes.

Each test that docs/guarantees.md names also runs behind each network of :data:`NETWORKS`. While a test has a bad
network, the ``url`` of every broker leads through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mqtt_agent.aio.waiting import within
from typing_extensions import Self

_T = TypeVar("_T")

PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"
_TEST = re.compile(r"`(test_\w+)`")
NAMED: frozenset[str] = frozenset(_TEST.findall(PAGE.read_text(encoding="utf-8")))
"""The tests that docs/guarantees.md names."""
_NOT_BEHIND: dict[str, dict[str, str]] = {
    "slow": {
        "test_nothing_that_returned_is_lost_when_the_database_is_killed_in_the_middle": "It has no broker.",
    },
    "breaking": {
        "test_nothing_that_returned_is_lost_when_the_database_is_killed_in_the_middle": "It has no broker.",
        "test_of_two_claims_at_once_one_is_withdrawn": "It forces an order of two messages, which a break changes.",
    },
}
"""The tests of these that do not run behind a network, each with the reason."""
QUICK: frozenset[tuple[str, str]] = frozenset(
    {
        ("test_an_unknown_tool_is_unavailable_at_once", "slow"),
        ("test_an_unknown_tool_is_unavailable_at_once", "breaking"),
    }
)
"""The tests behind a network that run in `make test`; the others take long."""


def rows() -> dict[str, list[str]]:
    """The rows of docs/guarantees.md, each with the tests that show it.

    These are the numbered rows of its first table, whose tests are in the numbered list below the table, and all rows
    of tables with the last column "shown by".
    """
    found: dict[str, list[str]] = {}
    text = PAGE.read_text(encoding="utf-8")
    for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE):
        told = re.search(rf"^{number}\. (.*?)(?=^\d+\. |^#)", text, re.MULTILINE | re.DOTALL)
        found[f"row {number}"] = _TEST.findall(told.group(1)) if told else []
    for table in re.findall(r"^\|.*\| shown by \|\n\|[-|]*\|\n((?:\|.*\n)+)", text, re.MULTILINE):
        for line in table.splitlines():
            what, *_, shown = line.strip("| ").split(" | ")
            found[what] = _TEST.findall(shown)
    return found


async def _slow(proxy: Any) -> None:
    """Bytes come late, the first ones alone, and all bytes stop again and again for up to 0.3 s."""
    proxy.delay, proxy.single = 0.001, 3
    while True:
        await asyncio.sleep(random.uniform(0.2, 2))  # seconds between two stops
        proxy.hold()
        await asyncio.sleep(random.uniform(0, 0.3))  # seconds of a stop
        proxy.release()


async def _breaking(proxy: Any) -> None:
    """After some bytes, one connection is reset within a packet, or all connections lose everything and are then reset.

    The breaks become rarer, so that every test comes to its end. A break does not wait for the next connection of a
    client that is away: otherwise each of its attempts would break.
    """
    proxy.spares_connects = True
    pause = 0.3
    while True:
        up = random.random() < 0.5
        resets = random.random() < 0.7
        (proxy.reset_after if resets else proxy.lose_after)(random.randint(1, 2000), up=up)
        with contextlib.suppress(asyncio.TimeoutError):
            await within(proxy.broken(), 3)
            if not resets:
                await asyncio.sleep(random.uniform(0, 0.3))  # seconds for which nobody notices
        proxy.find_again()
        await asyncio.sleep(pause)
        pause = min(20.0, 2 * pause)


NETWORKS: dict[str, Callable[[Any], Awaitable[None]]] = {"slow": _slow, "breaking": _breaking}
"""The bad networks, each with what it does to the connections to one broker."""


def networks_of(test: str) -> list[str]:
    """The bad networks behind which a test also runs."""
    return [name for name in NETWORKS if test in NAMED and test not in _NOT_BEHIND[name]]


class BadNetwork:
    """Proxies in a thread of their own: one for each broker, and one for each client that has a name.

    Args:
        name: One of :data:`NETWORKS`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._trouble = NETWORKS[name]
        self._proxies: dict[tuple[str, str], Any] = {}
        self._troubles: list[Any] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"{name} network", daemon=True)

    @property
    def used(self) -> bool:
        """Whether a connection went through the network."""
        return any(proxy.connections for proxy in self._proxies.values())

    def through(self, url: str, client: str = "") -> str:
        """The URL that leads through the network to ``url``; each ``client`` has a network of its own."""
        if (url, client) not in self._proxies:
            from proxy import Proxy  # which imports this package

            proxy = self._proxies[url, client] = Proxy(url)
            self._do(proxy.mend())
            self._troubles.append(asyncio.run_coroutine_threadsafe(self._make_trouble(proxy), self._loop))
        return self._proxies[url, client].url

    def around(self, url: str) -> str:
        """The URL of the broker to which ``url`` leads through the network."""
        return next((target for (target, _), proxy in self._proxies.items() if proxy.url == url), url)

    async def _make_trouble(self, proxy: Any) -> None:
        await self._trouble(proxy)

    def _do(self, what: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for trouble in self._troubles:
            trouble.cancel()
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        for proxy in self._proxies.values():
            proxy.release()
            await proxy.cut()


_current: BadNetwork | None = None


@contextlib.contextmanager
def behind(name: str) -> Iterator[BadNetwork]:
    """Put a bad network between all brokers and their clients."""
    global _current
    with BadNetwork(name) as network:
        _current = network
        try:
            yield network
        finally:
            _current = None


def through(url: str, client: str = "") -> str:
    """The URL that clients use for a broker: through the bad network of the test, if it has one.

    Args:
        url: The URL of the broker.
        client: The name of a client that has a bad network of its own; all others share one.
    """
    return url if _current is None else _current.through(url, client)


def breaks() -> bool:
    """Whether the test has a network whose connections break at any time."""
    return _current is not None and _current.name == "breaking"


def around(url: str) -> str:
    """The URL for a client that only measures what happens: around the bad network of the test."""
    return url if _current is None else _current.around(url)
