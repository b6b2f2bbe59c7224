"""A broker in its own process, with its own folder and port."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from typing_extensions import Self

from .rough import through

STARTED_WITHIN = 60.0
NAMED = dict(each.split("=", 1) for each in os.environ.get("MQTT_AGENT_TEST_BROKERS", "").split(",") if each)
"""The programs of brokers that the environment names, by the broker's name."""


def free_port() -> int:
    """A TCP port that is free, and that nobody else gets before a broker listens on it.

    The system gives ports from its own range to outgoing connections at any moment, also while a broker restarts.
    So the port is below that range. A process does not get the same port twice.
    """
    above = _first_port_of_the_system()
    while True:
        port = random.SystemRandom().randrange(max(1024, above - 20_000), above)
        if port in _given_ports:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given_ports.add(port)
            return port


_given_ports: set[int] = set()


def _first_port_of_the_system() -> int:
    """The lowest port that the system gives to outgoing connections."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return 32_768


def find_program(name: str) -> str | None:
    """The path of a program, also searched in folders that are only on root's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


def die_with_parent() -> None:
    """In a child process on Linux: ask the kernel to send SIGKILL when the test process has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def answers_mqtt(port: int, **credentials: str) -> bool:
    """Whether a broker on this port accepts an MQTT 5 connection."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    if credentials:
        client.username_pw_set(credentials["username"], credentials["password"])
    answers: list[bool] = []
    client.on_connect = lambda *args: answers.append(not args[3].is_failure)
    with contextlib.suppress(OSError):
        client.connect("127.0.0.1", port)
        deadline = time.monotonic() + 1
        while not answers and time.monotonic() < deadline:
            client.loop(0.05)
        client.disconnect()
        client.loop(0.05)
    return answers == [True]


class Behaviour:
    """What the tests expect of a broker. A class of a broker that does not keep to MQTT 5 says so."""

    name = ""
    keeps_shared_messages = True
    """Whether an unanswered call stays in the session when its server dies."""
    shared_subscriptions = True
    """Whether the broker distributes the calls of a tool over its replicas."""
    marks_repeats = True
    """Whether a message that is sent again has the DUP flag."""
    repeats_in_order = True
    """Whether the messages that are sent again after a reconnect come in their order."""
    frees_groups = True
    """Whether a client whose session has ended gets no share of the messages of its groups any more."""
    ends_sessions = True
    """Whether a session ends with its Session Expiry Interval."""
    says_unheard = True
    """Whether a PUBACK says that nobody is subscribed (0x10). MQTT 5 leaves that to the broker (3.4.2.1)."""
    keeps_wrong_response_topics = True
    """Whether a Response Topic with a wildcard is passed on or refused. Otherwise the message arrives without it."""
    takes_unknown_logins = True
    """Whether a client may give a user name that the broker does not know."""
    wills_come_early = 0
    """Seconds by which a Last Will may come before its delay is over."""
    drops_expired = True
    """Whether a message that waits in a session is dropped when its Message Expiry Interval is over."""
    expiry_stops_groups = False
    """Whether a message that expires ends the delivery to its share group, so that messages have no expiry there."""
    most_waiting_bytes: int | None = None
    """Bytes that may wait for one client: further messages are dropped after a PUBACK without an error. None: more."""
    queues_beyond_window = True
    """Whether more messages than the client's Receive Maximum wait in its session."""
    longest_life: int | None = None
    """Seconds that the broker gives to messages without a Message Expiry Interval; None for no limit."""

    def takes_user_properties(self, properties: list[tuple[str, str]]) -> bool:
        """Whether a message may have these user properties."""
        return True


class ProcessBroker(Behaviour, ABC):
    """A broker process with its own folder and port.

    ``start`` waits until the broker answers. ``stop`` ends it in an orderly way, and ``kill`` ends it with SIGKILL.
    Both keep the folder and the port, so that another ``start`` finds the saved data. ``close`` removes everything.
    """

    program = ""

    def __init__(self) -> None:
        self.credentials: dict[str, str] = {}
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"mqtt-agent-{self.name}-"))
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        """The name of the missing program, or None if the broker is installed."""
        return None if find_program(NAMED.get(cls.name, cls.program)) else cls.program

    @classmethod
    def path(cls) -> str:
        """The path of the program."""
        return find_program(NAMED.get(cls.name, cls.program)) or cls.program

    @property
    def url(self) -> str:
        return through(f"mqtt://127.0.0.1:{self.port}")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @abstractmethod
    def command(self) -> list[str]:
        """The command that starts the broker."""

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def prepare(self) -> None:
        """Write the files that the process reads when it starts."""

    def forget(self) -> None:
        """Remove the data that the broker has saved."""

    def listens(self) -> bool:
        """Whether a connection attempt makes sense: a connect to a free local port may itself be given that port."""
        return True

    def answers(self) -> bool:
        """Whether the broker accepts connections."""
        return answers_mqtt(self.port, **self.credentials)

    def accepts_tcp(self) -> bool:
        """Whether a program listens on the port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start(self) -> Self:
        if self.process is not None:
            return self
        self.prepare()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                preexec_fn=die_with_parent,
                start_new_session=True,
            )
        deadline = time.monotonic() + STARTED_WITHIN
        while not (self.listens() and self.answers()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.01)
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} did not start:\n{self.log}")
        return self

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def restart(self, *, keep_state: bool, kill: bool = False) -> None:
        """Stop or kill the broker, and start it again on the same port, with its saved data or without any."""
        (self.kill if kill else self.stop)()
        if not keep_state:
            self.forget()
        self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
