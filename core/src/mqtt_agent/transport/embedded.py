"""EmbeddedBroker: a real MQTT 5 broker in a child process, for tests, notebooks and first steps."""

from __future__ import annotations

import os
import socket
import tempfile
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from mqtt_agent.errors import BrokerUnreachable

__all__ = ["EmbeddedBroker"]

_CONFIG = """\
id = 0
[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200000
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "mqtt-5"
listen = "{host}:{port}"
next_connection_delay_ms = 0
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {max_payload_size}
max_inflight_count = 100
dynamic_filters = true
"""


class EmbeddedBroker:
    """An MQTT 5 broker on this machine's loopback interface, with nothing to install or configure.

    The broker is rumqttd, from the package ``iotcore``. It runs in a child process that ends with this process. It
    keeps everything in memory, so sessions and retained messages are lost when it stops. rumqttd identifies a share
    group by the group's name alone, so two namespaces that have a tool of the same name need two brokers. For
    production, use Mosquitto, EMQX, HiveMQ or another broker.

    Example:
        >>> with EmbeddedBroker() as broker:  # doctest: +SKIP
        ...     client = ToolClient("agent-a", broker=broker.url)

    Args:
        port: The TCP port. 0 chooses a free port at the first start, and keeps it after that.
        max_payload_size: Bytes of the largest message that the broker takes.

    Attributes:
        host: The address of the loopback interface.

    Raises:
        ImportError: The package ``iotcore`` is missing; the message says what to install.
    """

    host: str = "127.0.0.1"

    def __init__(self, port: int = 0, *, max_payload_size: int = 16 * 1024 * 1024) -> None:
        try:
            self._iotcore: Any = import_module("iotcore")
        except ImportError as error:
            raise ImportError("EmbeddedBroker needs the package iotcore: pip install 'mqtt-agent[broker]'") from error
        self._port = port
        self._max_payload_size = max_payload_size
        self._broker: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """The broker's URL, for example ``mqtt://127.0.0.1:41234``.

        Raises:
            RuntimeError: ``port`` was 0, and the broker has never been started, so it has no port yet.
        """
        if not self._port:
            raise RuntimeError("the embedded broker has no URL before its first start: call start(), or use 'with'")
        return f"mqtt://{self.host}:{self._port}"

    @property
    def port(self) -> int:
        """The TCP port. Before the first start, it is 0 if a free port will be chosen."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The process id of the broker; None while it is stopped."""
        process = getattr(self._broker, "_process", None)
        return process.pid if process is not None else None

    def start(self) -> EmbeddedBroker:
        """Start the broker, and wait until it accepts connections. A second call changes nothing.

        Returns:
            The broker itself.

        Raises:
            BrokerUnreachable: The broker did not start, for example because the port is in use.
        """
        if self._broker is not None:
            return self
        attempts = 1 if self._port else 10  # another process may take the chosen port before the broker does
        for attempt in range(1, attempts + 1):
            port = self._port or _free_port(self.host)
            folder = tempfile.TemporaryDirectory(prefix="mqtt-agent-broker-")
            config = Path(folder.name, "rumqttd.toml")
            config.write_text(_CONFIG.format(host=self.host, port=port, max_payload_size=self._max_payload_size))
            broker = self._iotcore.Broker(config_path=os.fspath(config))
            try:
                broker.start()
            except (OSError, RuntimeError) as error:
                folder.cleanup()
                if attempt == attempts:
                    raise BrokerUnreachable(f"the embedded broker did not start on port {port}: {error}") from error
                continue
            self._broker, self._port, self._folder = broker, port, folder
            break
        return self

    def stop(self) -> None:
        """Stop the broker. A second call changes nothing."""
        broker, self._broker = self._broker, None
        if broker is not None:
            broker.stop()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def __enter__(self) -> EmbeddedBroker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<EmbeddedBroker {self.url if self._broker is not None else 'stopped'}>"


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
