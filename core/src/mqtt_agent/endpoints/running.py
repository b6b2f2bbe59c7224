"""Runs a tool server or an agent: start, serve until a signal or a failure, stop gracefully."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType

from typing_extensions import Self

from mqtt_agent.aio.contexts import NeedsAsyncWith, refuse_in_event_loop
from mqtt_agent.aio.forks import in_child
from mqtt_agent.display import end_quietly
from mqtt_agent.errors import MQTTAgentError, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import Connection

__all__ = ["Service", "only_imported"]

logger: logging.Logger = logger_of(__name__)


only_imported: contextvars.ContextVar[bool] = contextvars.ContextVar("only_imported", default=False)
"""Whether a program is only being imported by ``mqtt-agent serve``, which then serves the program's endpoint itself."""
_handled: set[signal.Signals] = set()
"""The signals that a running service handles now."""


@in_child
def _restore_signals() -> None:
    # Otherwise a signal to the child would be written into a socket of the parent's event loop, and stop the parent.
    if _handled:
        signal.set_wakeup_fd(-1)
    for number in _handled:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _handled.clear()


class Service(NeedsAsyncWith, ABC):
    """An endpoint that serves peers from :meth:`start` to :meth:`stop`: a tool server or an agent.

    It is an async context manager too: ``async with`` starts and stops it.

    Attributes:
        connection: The connection to the broker.
    """

    connection: Connection

    @abstractmethod
    async def start(self) -> None:
        """Connect and serve. A second call changes nothing."""

    @abstractmethod
    async def stop(self) -> None:
        """Finish the work that runs, publish the status ``offline``, disconnect. A second call changes nothing."""

    @abstractmethod
    def _hurry(self) -> None:
        """Let a :meth:`stop` that has begun end without waiting for the work that runs."""

    @property
    @abstractmethod
    def _label(self) -> str:
        """The endpoint's name in messages for people."""

    @abstractmethod
    def _what_it_serves(self) -> str:
        """One line for people: what the endpoint serves."""

    async def serve_forever(self, on_started: Callable[[], None] | None = None) -> None:
        """Start, and serve until the asyncio task is canceled or the connection has failed permanently.

        Args:
            on_started: Called when the endpoint serves.

        Raises:
            SessionTakenOver: Another process connected with the same client id.
            TransportError: The broker is not reachable at the start, or refuses the connection.
        """
        failed: asyncio.Future[TransportError] = asyncio.get_running_loop().create_future()

        def on_failed(error: TransportError) -> None:
            if not failed.done():
                failed.set_result(error)

        self.connection.on_failed.append(on_failed)
        try:
            await self.start()
            if on_started is not None:
                on_started()
            raise await failed
        finally:
            self.connection.on_failed.remove(on_failed)
            await self._stop_surely()

    async def _stop_surely(self) -> None:
        """Stop gracefully. When the task is canceled again meanwhile, do not wait for the work that runs."""
        stopping = asyncio.ensure_future(self.stop())
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:
                if stopping.cancelled():
                    raise
                self._hurry()

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then :meth:`stop`. This method blocks, and is meant for scripts.

        A second signal ends the endpoint without waiting for the work that runs. A line on standard error says what is
        served. When the endpoint cannot start, or its connection has failed permanently, the process exits with
        status 1 and one line that says why. While ``mqtt-agent serve`` imports a program, this method does nothing,
        because the command serves the endpoint.

        Raises:
            RuntimeError: An event loop runs in this thread, as in a notebook: use :meth:`start` or
                :meth:`serve_forever`.
        """
        if only_imported.get():
            return
        refuse_in_event_loop(
            f"run() of {self._label}", "'await start()' to serve in the background, or 'await serve_forever()'"
        )
        try:
            asyncio.run(self.serve_until_signal())
        except MQTTAgentError as error:
            sys.exit(f"{self._label}: {error}")

    async def serve_until_signal(self, on_started: Callable[[], None] | None = None) -> None:
        """Serve until SIGINT or SIGTERM, then :meth:`stop`. After a second signal, do not wait for the work that runs.

        Args:
            on_started: Called when the endpoint serves. By default, a line on standard error says what is served.
        """
        loop = asyncio.get_running_loop()
        serving = asyncio.ensure_future(self.serve_forever(on_started or self._say_what_it_serves))
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, serving.cancel)
                _handled.add(number)
            except (NotImplementedError, RuntimeError, ValueError):  # on Windows, or outside the main thread
                logger.debug("signal %s cannot be handled on this event loop", number)
        try:
            await serving
        except asyncio.CancelledError:
            logger.info("%s stopped", self._label)
        finally:
            _handled.clear()

    def _say_what_it_serves(self) -> None:
        print(f"{self._what_it_serves()}; Ctrl-C stops it", file=sys.stderr, flush=True)  # noqa: T201

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        end_quietly(error, MQTTAgentError)
        await self.stop()
