"""Eclipse Mosquitto: the version of the machine, and a second one."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable

from .process import ProcessBroker


class Mosquitto(ProcessBroker):
    """Eclipse Mosquitto, with its default settings and the lines that a test adds.

    Args:
        lines: Additional lines of its configuration; ``{folder}`` stands for the broker's folder.
        anonymous: Whether clients may connect without a password.
        files: Files to put into the broker's folder, by name.
    """

    name = "mosquitto"
    program = "mosquitto"
    always: tuple[str, ...] = ()

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
            *self.always,
            *(line.format(folder=self.folder) for line in self.lines),
        ]
        if os.getuid() == 0:
            config.append("user root")
        (self.folder / "mosquitto.conf").write_text("\n".join(config) + "\n")

    def command(self) -> list[str]:
        return [self.path(), "-c", str(self.folder / "mosquitto.conf")]

    def forget(self) -> None:
        (self.folder / "mosquitto.db").unlink(missing_ok=True)


class SecondMosquitto(Mosquitto):
    """A Mosquitto of another version than the one on the PATH. Mosquitto 2.1 limits packets to 2 MB by default."""

    name = "mosquitto21"
    program = "mosquitto21"
    always = ("max_packet_size 268435455",)
    wills_come_early = 1  # the broker counts in whole seconds


def password_line(username: str, password: str) -> str:
    """A line of Mosquitto's password file, as mosquitto_passwd writes it."""
    salt, rounds = b"saltsaltsalt", 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds, 64)
    return f"{username}:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
