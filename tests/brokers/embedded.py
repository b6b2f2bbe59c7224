"""The broker of this project."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

from mqtt_agent import EmbeddedBroker
from typing_extensions import Self

from .process import Behaviour, free_port
from .rough import through


def end_forking() -> None:
    """End the process that starts embedded brokers, if this process has started one."""
    forked = sys.modules.get(f"{__package__}.forked")
    if forked is not None:
        forked.end_forking()


class Embedded(Behaviour):
    """The embedded broker with the interface of the other brokers; it saves no data."""

    name = "embedded"
    keeps_shared_messages = False
    marks_repeats = False
    ends_sessions = False
    drops_expired = False
    expiry_stops_groups = True
    says_unheard = False

    def __init__(self) -> None:
        self._broker = EmbeddedBroker(port=free_port())
        if sys.platform == "linux":
            from .forked import ForkedBroker  # it imports iotcore, which the benchmarks do without

            self._broker._iotcore = SimpleNamespace(Broker=ForkedBroker)  # pyright: ignore[reportPrivateUsage]

    @classmethod
    def missing(cls) -> str | None:
        return None

    @property
    def url(self) -> str:
        return through(self._broker.url)

    @property
    def port(self) -> int:
        return self._broker.port

    def start(self) -> Self:
        self._broker.start()
        return self

    def stop(self) -> None:
        self._broker.stop()

    def kill(self) -> None:
        if self._broker.pid is not None:
            os.kill(self._broker.pid, signal.SIGKILL)
        self._broker.stop()

    def restart(self, *, keep_state: bool, kill: bool = False) -> None:
        assert not keep_state, "the embedded broker keeps nothing"
        (self.kill if kill else self.stop)()
        self.start()

    def close(self) -> None:
        self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: Any) -> None:
        self.close()
