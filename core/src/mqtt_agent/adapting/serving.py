"""The ``serve_*`` functions of the adapters: one blocks for scripts, its twin ``aserve_*`` is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mqtt_agent.deprecation import warn_renamed

__all__ = ["OnStarted", "Servable", "serve"]

OnStarted = Callable[[], None]


class Servable(Protocol):
    """What can be served: an agent, a tool server, or a framework's own host."""

    async def serve_forever(self, on_started: OnStarted | None = None) -> None:
        """Serve until the task is canceled or the connection is lost for good."""

    async def serve_until_signal(self, on_started: OnStarted | None = None) -> None:
        """Serve until SIGINT or SIGTERM."""

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, and block."""


def serve(service: Servable, name: str, on_started: OnStarted | None = None) -> None:
    """Serve until SIGINT or SIGTERM, and block.

    In version 0.1, the adapters' functions ``serve_*`` were awaited. For one version they still can be, with a
    ``DeprecationWarning``.

    Args:
        service: What to serve.
        name: The name of the function that is called by the user.
        on_started: Called when the service runs. By default, a line on the standard error says what is served.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        if on_started is None:
            service.run()
        else:
            asyncio.run(service.serve_until_signal(on_started))
        return _Served(name)  # type: ignore[return-value]
    warn_renamed(f"await {name}(...)", f"await a{name}(...)")
    return service.serve_forever(on_started)  # type: ignore[return-value]


class _Served(Coroutine[Any, Any, None]):
    """Lets ``asyncio.run(serve_graph(...))`` end without an error: the work is done by the time that it runs."""

    def __init__(self, name: str) -> None:
        self._name = name

    def send(self, value: Any, /) -> Any:
        warn_renamed(f"asyncio.run({self._name}(...))", f"{self._name}(...)")
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        raise StopIteration

    def close(self) -> None:
        pass

    def __await__(self) -> Any:
        return iter(())
