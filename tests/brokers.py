"""Real brokers for the tests, each in its own process on a free loopback port."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import json
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
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from mqtt_agent import EmbeddedBroker
from paho.mqtt.enums import CallbackAPIVersion
from typing_extensions import Self

STARTED_WITHIN = 20.0


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


class ProcessBroker(ABC):
    """A broker process with its own folder and port.

    ``start`` waits until the broker answers. ``stop`` ends it in an orderly way, and ``kill`` ends it with SIGKILL.
    Both keep the folder and the port, so that another ``start`` finds the saved data. ``close`` removes everything.
    """

    name = ""
    program = ""
    keeps_shared_messages = True
    shared_subscriptions = True

    def __init__(self) -> None:
        self.credentials: dict[str, str] = {}
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"mqtt-agent-{self.name}-"))
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        """The name of the missing program, or None if the broker is installed."""
        return None if find_program(cls.program) else cls.program

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

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
        while not (self.listens() and answers_mqtt(self.port, **self.credentials)):
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


class Mosquitto(ProcessBroker):
    """Eclipse Mosquitto, with its default settings and the lines that a test adds.

    Args:
        lines: Additional lines of its configuration; ``{folder}`` stands for the broker's folder.
        anonymous: Whether clients may connect without a password.
        files: Files to put into the broker's folder, by name.
    """

    name = "mosquitto"
    program = "mosquitto"

    def __init__(
        self,
        lines: Iterable[str] = (),
        *,
        anonymous: bool = True,
        files: dict[str, str] | None = None,
        credentials: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.lines = list(lines)
        self.anonymous = anonymous
        self.files = files or {}
        self.credentials = credentials or {}

    def prepare(self) -> None:
        for name, text in self.files.items():
            path = self.folder / name
            path.write_text(text)
            path.chmod(0o600)
        config = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {str(self.anonymous).lower()}",
            f"persistence_location {self.folder}/",
            *(line.format(folder=self.folder) for line in self.lines),
        ]
        if os.getuid() == 0:
            config.append("user root")
        (self.folder / "mosquitto.conf").write_text("\n".join(config) + "\n")

    def command(self) -> list[str]:
        return [find_program("mosquitto") or "mosquitto", "-c", str(self.folder / "mosquitto.conf")]

    def forget(self) -> None:
        (self.folder / "mosquitto.db").unlink(missing_ok=True)


def password_line(username: str, password: str) -> str:
    """A line of Mosquitto's password file, as mosquitto_passwd writes it."""
    salt, rounds = b"saltsaltsalt", 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds, 64)
    return f"{username}:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


class Ejabberd(ProcessBroker):
    """ejabberd's MQTT 5 listener, as a single Erlang node without a name, and so without epmd.

    Every client may connect, with any user name and any password, but not without them.
    """

    name = "ejabberd"
    program = "erl"
    keeps_shared_messages = False
    shared_subscriptions = False

    def __init__(self) -> None:
        super().__init__()
        self.credentials = {"username": "tests", "password": "tests"}

    @classmethod
    def missing(cls) -> str | None:
        return None if find_program(cls.program) and cls._library() else cls.name

    @staticmethod
    def _library() -> Path | None:
        return next(Path("/usr/lib").glob("*/ejabberd-*/ebin"), None)

    @property
    def url(self) -> str:
        return f"mqtt://tests:tests@127.0.0.1:{self.port}"

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def prepare(self) -> None:
        self.spool.mkdir(exist_ok=True)
        (self.folder / "log").unlink(missing_ok=True)
        config = {
            "hosts": ["localhost"],
            "loglevel": "info",
            "listen": [{"port": self.port, "ip": "127.0.0.1", "module": "mod_mqtt"}],
            "auth_method": ["anonymous"],
            "anonymous_protocol": "login_anon",
            "allow_multiple_connections": True,
            "modules": {"mod_mqtt": {}},
        }
        (self.folder / "ejabberd.yml").write_text(json.dumps(config))  # JSON is valid YAML

    def environment(self) -> dict[str, str]:
        library = self._library()
        assert library is not None
        return {
            **os.environ,
            "HOME": str(self.folder),  # Erlang stores its cookie there
            "ERL_LIBS": str(library.parents[1]),
            "ERL_CRASH_DUMP": str(self.folder / "crash"),
            "EJABBERD_CONFIG_PATH": str(self.folder / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": str(self.folder / "ejabberd.log"),
        }

    def command(self) -> list[str]:
        quiet = ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]  # idle threads use no CPU time
        erl = find_program(self.program) or self.program
        return [erl, *quiet, "-noinput", "-mnesia", "dir", f'"{self.spool}"', "-s", "ejabberd"]

    def forget(self) -> None:
        shutil.rmtree(self.spool, ignore_errors=True)

    def listens(self) -> bool:
        return "Start accepting TCP connections" in self.log


class Embedded:
    """The embedded broker with the interface of the other brokers; it saves no data."""

    name = "embedded"
    keeps_shared_messages = False
    """Whether an unanswered call stays in the session when its server dies."""
    shared_subscriptions = True
    """Whether the broker distributes the calls of a tool over its replicas."""

    def __init__(self) -> None:
        self._broker = EmbeddedBroker(port=free_port())

    @classmethod
    def missing(cls) -> str | None:
        return None

    @property
    def url(self) -> str:
        return self._broker.url

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


Broker = Embedded | Mosquitto | Ejabberd
BROKERS: list[type[Broker]] = [Embedded, Mosquitto]
"""The brokers on which every test with the fixture ``broker`` runs."""
ALL_BROKERS: list[type[Broker]] = [*BROKERS, Ejabberd]
"""Also the broker without shared subscriptions, for test modules that set ``RUN_ON = ALL_BROKERS``."""
