"""Brokers behind a network that delays, splits and stops the bytes of all clients, or breaks within packets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

from .process import free_port

_T = TypeVar("_T")


async def _split(proxy: Any) -> None:
    """Bytes come late and in small pieces, many of them alone."""
    proxy.delay, proxy.piece = 0.002, 200


async def _stop(proxy: Any) -> None:
    """All bytes stop again and again, for up to half a second."""
    while True:
        await asyncio.sleep(random.uniform(0.05, 1))  # seconds between two stops
        proxy.hold()
        await asyncio.sleep(random.uniform(0.05, 0.5))  # seconds of a stop
        proxy.release()


async def _reset(proxy: Any) -> None:
    """Connections are reset in the middle of a packet, one after the other."""
    while True:
        await asyncio.sleep(random.uniform(0.2, 2))  # seconds between two resets
        proxy.reset_after(random.randint(1, 2000), up=random.random() < 0.5)


NETWORKS: dict[str, Callable[[Any], Awaitable[None]]] = {"split": _split, "stop": _stop, "reset": _reset}
"""The networks, each with what it does to the connections through it."""


class _Network:
    """A proxy in a thread, because brokers start and stop without an event loop."""

    def __init__(self, target: str, port: int, trouble: Callable[[Any], Awaitable[None]]) -> None:
        from proxy import Proxy  # which imports this package

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._proxy = Proxy(target)
        self._proxy.port = port
        self._do(self._proxy.mend())
        self._trouble = asyncio.run_coroutine_threadsafe(self._make(trouble), self._loop)

    async def _make(self, trouble: Callable[[Any], Awaitable[None]]) -> None:
        await trouble(self._proxy)

    def _do(self, what: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def close(self) -> None:
        self._trouble.cancel()
        self._proxy.release()
        self._do(self._proxy.cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@cache
def behind(kind: Any, network: str) -> Any:
    """A kind of broker whose ``url`` leads through a network of :data:`NETWORKS`."""

    class Rough(kind):
        network_port: int
        _network: _Network | None = None

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.network_port = free_port()

        @property
        def url(self) -> str:
            where, _, _ = super().url.rpartition(":")
            return f"{where}:{self.network_port}"

        def start(self) -> Any:
            super().start()
            if self._network is None:
                self._network = _Network(super().url, self.network_port, NETWORKS[network])
            return self

        def close(self) -> None:
            network, self._network = self._network, None
            with contextlib.ExitStack() as ends:
                ends.callback(super().close)
                if network is not None:
                    network.close()

    Rough.__name__ = Rough.__qualname__ = f"{kind.__name__}Behind{network.capitalize()}"
    return Rough
