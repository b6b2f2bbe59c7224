"""Brokers with which nothing can work, installed from npm and PyPI, each in its own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import ProcessBroker
from installing import install_python
from node import Node
from support import require

HERE = Path(__file__).parent
PYTHON = HERE / ".env" / "bin" / "python"


class Refused(ProcessBroker):
    """A broker that speaks no MQTT 5, or too little; so a TCP connection is all that shows that it has started."""

    def answers(self) -> bool:
        return self.accepts_tcp()

    @classmethod
    def missing(cls) -> str | None:
        return None

    @staticmethod
    def install() -> None:
        """Install the broker, unless it is installed already."""


class Aedes(Refused):
    name = "aedes"

    @classmethod
    def missing(cls) -> str | None:
        return Node.missing()

    @staticmethod
    def install() -> None:
        Node.install(HERE)

    def command(self) -> list[str]:
        return Node.command(HERE / "aedes.mjs", str(self.port))


class FromPyPI(Refused):
    @staticmethod
    def install() -> None:
        install_python(HERE / "requirements.txt", HERE / ".env")


class Amqtt(FromPyPI):
    """amqtt with its default settings, as its command starts it."""

    name = "amqtt"

    def prepare(self) -> None:
        plugins = "{amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}}"
        listeners = f'{{default: {{type: tcp, bind: "127.0.0.1:{self.port}"}}}}'
        (self.folder / "amqtt.yaml").write_text(f"listeners: {listeners}\nplugins: {plugins}\n")

    def command(self) -> list[str]:
        return [str(PYTHON.parent / "amqtt"), "-c", str(self.folder / "amqtt.yaml")]


class Moat(FromPyPI):
    name = "moat-lib-mqtt"

    def command(self) -> list[str]:
        return [str(PYTHON), str(HERE / "moat_broker.py"), str(self.port)]


@pytest.fixture
def start_refused() -> Iterator[Callable[[type[Refused]], Refused]]:
    """Installs and starts brokers."""
    started: list[Refused] = []

    def start(kind: type[Refused]) -> Refused:
        require(kind)
        kind.install()
        started.append(kind())
        return started[-1].start()

    yield start
    for broker in started:
        broker.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if missing := Aedes.missing():
        terminalreporter.write_line(f"Left out: the tests with aedes, {missing} is not installed.")
