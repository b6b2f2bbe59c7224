"""ejabberd: a single node."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from .process import ProcessBroker, find_program
from .rough import through


class Ejabberd(ProcessBroker):
    """ejabberd's MQTT 5 listener, as a single Erlang node without a name, and so without epmd.

    Every client may connect, with any user name and any password, but not without them.
    """

    name = "ejabberd"
    program = "erl"
    keeps_shared_messages = False
    shared_subscriptions = False
    drops_expired = False

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
        return through(f"mqtt://tests:tests@127.0.0.1:{self.port}")

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def prepare(self) -> None:
        self.spool.mkdir(exist_ok=True)
        (self.folder / "log").unlink(missing_ok=True)
        (self.folder / "ejabberd.yml").write_text(json.dumps(self.settings()))  # JSON is valid YAML

    def settings(self) -> dict[str, Any]:
        """The content of ejabberd.yml."""
        return {
            "hosts": ["localhost"],
            "loglevel": "info",
            "listen": [{"port": self.port, "ip": "127.0.0.1", "module": "mod_mqtt"}],
            "auth_method": ["anonymous"],
            "anonymous_protocol": "login_anon",
            "allow_multiple_connections": True,
            "modules": {"mod_mqtt": {}},
        }

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
        return [self.path(), *quiet, "-noinput", "-mnesia", "dir", f'"{self.spool}"', "-s", "ejabberd"]

    def forget(self) -> None:
        shutil.rmtree(self.spool, ignore_errors=True)

    def listens(self) -> bool:
        return "Start accepting TCP connections" in self.log
