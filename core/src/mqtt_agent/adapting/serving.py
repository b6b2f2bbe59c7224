"""The ``serve_*`` functions of the adapters block, for scripts. The ``aserve_*`` functions are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.endpoints.running import only_imported

__all__ = ["OnStarted", "Servable", "serve"]

OnStarted = Callable[[], None]


class Servable(Protocol):
    """An object that can be served: an agent, a tool server, or a framework's own host."""

    async def serve_forever(self, on_started: OnStarted | None = None) -> None:
        """Serve until the asyncio task is canceled or the connection has failed permanently."""

    async def serve_until_signal(self, on_started: OnStarted | None = None) -> None:
        """Serve until SIGINT or SIGTERM."""

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, and block."""


def serve(service: Servable, name: str, on_started: OnStarted | None = None) -> None:
    """Serve until SIGINT or SIGTERM, and block.

    In version 0.1, the adapters' functions ``serve_*`` were awaited. For one more version they can still be
    awaited, with a ``DeprecationWarning``. While ``mqtt-agent serve`` imports a program, this function does nothing,
    because the command serves what the program has made.

    Args:
        service: What to serve.
        name: The name of the ``serve_*`` function that the user called.
        on_started: Called when the service runs. By default, a line on standard error says what is served.
    """
    if only_imported.get():
        return _Served(name)  # type: ignore[return-value]
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
    """Lets ``asyncio.run(serve_graph(...))`` end without an error. The service has ended before ``run`` is called."""

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
