"""The brokers of the peers that do not use MQTT: nats-server and Redis, each with a folder of its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import HERE, CouldNotRun, die_with_parent

__all__ = ["Started", "nats_server", "redis_server"]

STARTS_WITHIN = 20.0
STORES = HERE / ".stores"  # on a disk: the folder for temporary files may be in memory


@dataclass(frozen=True)
class Started:
    """A running broker.

    Attributes:
        url: Where clients connect.
        process: The process of the broker.
    """

    url: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def nats_server() -> Iterator[Started]:
    """A nats-server with JetStream, which keeps its streams in files."""
    program = Path(sys.executable).parent / "nats-server"
    with (
        _folder() as folder,
        _started([str(program), "-a", "127.0.0.1", "-js", "-sd", folder], "-p", "nats") as started,
    ):
        yield started


@contextlib.contextmanager
def redis_server() -> Iterator[Started]:
    """A redis-server with its default settings, in a folder of its own."""
    program = shutil.which("redis-server")
    if program is None:
        raise CouldNotRun("redis-server is not installed")
    with _folder() as folder, _started([program, "--bind", "127.0.0.1", "--dir", folder], "--port", "redis") as started:
        yield started


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    STORES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STORES, ignore_cleanup_errors=True) as folder:
        yield folder


@contextlib.contextmanager
def _started(command: Sequence[str], port_option: str, scheme: str) -> Iterator[Started]:
    from brokers import free_port

    port = free_port()
    try:
        process = subprocess.Popen(
            [*command, port_option, str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise CouldNotRun(f"{command[0]} does not start: {error}") from error
    try:
        _wait_for(port, process)
        yield Started(f"{scheme}://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise CouldNotRun(f"{process.args} does not listen on port {port}")
