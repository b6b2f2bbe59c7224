"""A private PostgreSQL and a PgBouncer in front of it, in their own processes, with their own folders and ports.

The conftest of all tests imports this module, also where psycopg is not installed. So only functions import psycopg.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from brokers.process import STARTED_WITHIN, die_with_parent, find_program, free_port
from support import require
from typing_extensions import Self

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # where Debian has it


def _user() -> str | None:
    """The user for the servers: both refuse to run as root."""
    if os.geteuid() != 0:
        return None
    import pwd

    return next((name for name in ("postgres", "nobody") if name in {user.pw_name for user in pwd.getpwall()}), None)


class _Server:
    """A server process. ``close`` removes its folder."""

    name = ""
    user = "postgres"

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"mqtt-agent-{self.name}-"))
        if owner := _user():
            shutil.chown(self.folder, owner)
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> Self:
        with (self.folder / "log").open("ab") as log:
            self.process = self._begin(self.command(), log)
        deadline = time.monotonic() + STARTED_WITHIN
        while not self.answers():
            said = (self.folder / "log").read_text(errors="replace")
            assert self.process.poll() is None, f"{self.name} ended: {said}"
            assert time.monotonic() < deadline, f"{self.name} does not answer: {said}"
            time.sleep(0.02)
        return self

    def _begin(self, command: list[str], log: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=_user(),
            cwd=self.folder,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url(), connect_timeout=2).close()
            return True
        return False

    def stop(self) -> None:
        self._end(signal.SIGINT)  # PostgreSQL ends the sessions of its clients, and PgBouncer ends in order

    def kill(self) -> None:
        """End the server and all its children with SIGKILL, as a power cut would."""
        import psutil

        assert self.process is not None
        every = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for each in every:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()
        psutil.wait_procs(every, timeout=STARTED_WITHIN)
        self.process = None

    def _end(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(STARTED_WITHIN)
            self.process = None

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()


class Postgres(_Server):
    """A PostgreSQL with a new, empty cluster.

    Args:
        durable: Whether a commit waits for the disk, as it does by default. Tests that do not kill it are faster
            without.
    """

    name = "PostgreSQL"

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__()
        self._durable = durable
        self._databases = 0

    @classmethod
    def missing(cls) -> str | None:
        """The name of the missing program, or None if PostgreSQL is installed."""
        return None if cls._program("initdb") else "postgresql"

    @staticmethod
    def _program(name: str) -> str | None:
        return next((str(each / name) for each in _FOLDERS if (each / name).exists()), None) or find_program(name)

    def start(self) -> Self:
        if not (self.folder / "data").exists():
            with (self.folder / "log").open("ab") as log:
                command = [str(self._program("initdb")), "-D", "data", "-U", self.user, "-A", "trust", "-E", "UTF8"]
                assert self._begin([*command, "--no-sync", "--no-locale"], log).wait(STARTED_WITHIN) == 0
        return super().start()

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "on" if self._durable else "off",
            "shared_buffers": "32MB",
            "max_connections": "60",
            # The tests make hundreds of databases, and PostgreSQL would start a process for each of them all the time.
            "autovacuum": "on" if self._durable else "off",
            "autovacuum_naptime": "5s",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._program("postgres")), "-D", "data", "-p", str(self.port), *options]

    def new_database(self) -> str:
        """Make a database, and return its URL."""
        import psycopg

        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


class PgBouncer(_Server):
    """A pooler in transaction mode: each transaction gets one of very few sessions of the database."""

    name = "PgBouncer"

    def __init__(self, database: Postgres) -> None:
        super().__init__()
        lines = [
            "[databases]",
            f"* = host=127.0.0.1 port={database.port} user={database.user}",
            "[pgbouncer]",
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =",
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 200",
        ]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")

    @classmethod
    def missing(cls) -> str | None:
        """The name of the missing program, or None if PgBouncer is installed."""
        return None if find_program("pgbouncer") else "pgbouncer"

    def command(self) -> list[str]:
        return [str(find_program("pgbouncer")), "pgbouncer.ini"]


_shared: list[_Server] = []


@cache
def shared_postgres() -> Postgres:
    """The PostgreSQL of this test process, for tests that do not stop it. It starts when a test first needs it."""
    require(Postgres)
    database = Postgres().start()
    _shared.append(database)
    return database


@cache
def shared_pooler() -> PgBouncer:
    """A PgBouncer in front of :func:`shared_postgres`."""
    require(PgBouncer)
    pooler = PgBouncer(shared_postgres()).start()
    _shared.append(pooler)
    return pooler


def close_shared() -> None:
    """End the servers that this test process has started."""
    while _shared:
        _shared.pop().close()
