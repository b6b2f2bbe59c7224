"""Where a verb connects, and as whom: options, environment variables, and the saved contexts."""

from __future__ import annotations

import importlib
import os
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import tomli_w
from platformdirs import user_config_path

from mqtt_agent.display.suggestions import did_you_mean
from mqtt_agent.identity.files import write_whole
from mqtt_agent.transport import TLS, Bound, BrokerSettings, Credentials, Password, Token
from mqtt_agent.transport.tls import tls_context
from mqtt_agent.transport.url import BrokerURL
from mqtt_agent.wire import DEFAULT_NAMESPACE

tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

__all__ = ["CONTEXT_KEYS", "Contexts", "Settings", "UsageError", "read_secret", "usage_error"]

CONTEXT_KEYS: tuple[str, ...] = (
    "broker",
    "namespace",
    "as",
    "user",
    "password_file",
    "token_file",
    "ca",
    "certificate",
    "key",
    "client_id",
    "bound",
)
"""What a saved context may hold. Secrets are never saved, only the names of the files that hold them."""

_PASSWORD = "MQTT_AGENT_PASSWORD"
_TOKEN = "MQTT_AGENT_TOKEN"
_NAMESPACE = "MQTT_AGENT_NAMESPACE"


class UsageError(Exception):
    """The command line cannot be carried out as it was written. The message says why, and what to do next."""


def usage_error(error: Exception) -> UsageError:
    """The error of the command line that another error stands for, for example because of a file that is missing."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return UsageError(f"the file {error.filename} cannot be opened: {error.strerror}")
    return UsageError(str(error))


@dataclass(frozen=True)
class Settings:
    """Where a verb connects, as whom, and how it prints.

    Attributes:
        place: The broker, the namespace and the login.
        name: The name given with ``--as``, or None.
        client_id: The MQTT client id, for a broker that binds client ids to logins; None makes a new id.
        json: Whether the output is for machines: one JSON value in each line.
        debug: Whether an error shows its traceback.
        explicit: The options that the user gave on the command line.
    """

    place: BrokerSettings
    name: str | None = None
    json: bool = False
    debug: bool = False
    explicit: frozenset[str] = field(default_factory=frozenset[str])
    client_id: str | None = None

    @classmethod
    def of(cls, options: dict[str, Any]) -> Settings:
        """Combine the options of the command line with the context and the environment.

        An option comes before the environment, and the environment comes before the context.

        Args:
            options: The shared options of a verb, by name; see :data:`CONTEXT_KEYS`. None means not given.

        Raises:
            UsageError: A file cannot be read, a context does not exist, or a value cannot be used.
        """
        given = {name: value for name, value in options.items() if value is not None}
        saved = Contexts().read(given.get("context"))

        def setting(name: str, variable: str | None = None) -> str | None:
            value = given.get(name) or (os.environ.get(variable) if variable else None) or saved.get(name)
            return None if value is None else str(value)

        try:
            tls = _tls(setting("ca"), setting("certificate"), setting("key"))
            place = BrokerSettings(
                setting("broker", "MQTT_AGENT_BROKER"),
                setting("namespace", _NAMESPACE) or DEFAULT_NAMESPACE,
                _credentials(setting("user"), setting("password_file"), setting("token_file")),
                tls,
                cast(Bound, setting("bound") or "prefer"),
            )
        except (ValueError, OSError) as error:
            raise usage_error(error) from error
        explicit = frozenset(name for name in given if name in CONTEXT_KEYS)
        return cls(
            place, setting("as"), bool(given.get("json")), bool(given.get("debug")), explicit, setting("client_id")
        )

    def client_id_of(self, name: str) -> str:
        """The MQTT client id of a connection: the one that was given, or a new one that begins with a name."""
        return self.client_id or f"{name}~{uuid.uuid4().hex[:8]}"

    @property
    def url(self) -> str:
        """The broker's URL without a password; several URLs with commas between them."""
        return ",".join(map(str, BrokerURL.parse_all(self.place.broker)))


def _tls(ca: str | None, certificate: str | None, key: str | None) -> TLS | None:
    """The files for TLS. A file that is no good is an error of the command line, and not of the first connect."""
    paths = [each for each in (ca, certificate, key) if each is not None]
    if not paths:
        return None
    if key is not None and certificate is None:
        raise UsageError("a private key needs its certificate: add --certificate FILE")
    for path in paths:
        with open(path, "rb"):
            pass  # the errors of the TLS library do not name the file
    tls = TLS(ca, certificate, key)
    tls_context(tls)
    return tls


def _credentials(user: str | None, password_file: str | None, token_file: str | None) -> Credentials | None:
    if token_file is not None:
        path = Path(token_file)
        read_secret(path)  # a missing file is an error of the command line, and not of the first connect
        return Token(lambda: read_secret(path), user)
    if password_file is not None:
        if user is None:
            raise UsageError("a password needs a user name: add --user NAME")
        return Password(user, read_secret(Path(password_file)))
    if os.environ.get(_TOKEN):
        return Token(os.environ[_TOKEN], user)
    if user is not None and os.environ.get(_PASSWORD):
        return Password(user, os.environ[_PASSWORD])
    if user is not None:
        raise UsageError(f"user {user!r} has no password: add --password-file FILE, or set {_PASSWORD} or {_TOKEN}")
    return None


def read_secret(path: Path) -> str:
    """The text of a file that holds a password or a token, without spaces around it.

    Raises:
        UsageError: The file cannot be read.
    """
    try:
        return path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


class Contexts:
    """The saved contexts of this user: named sets of options, one of which is in use.

    Args:
        path: The TOML file; None means a file in the user's configuration folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path: Path = path or user_config_path("mqtt-agent", appauthor=False) / "contexts.toml"

    def load(self) -> tuple[str | None, dict[str, dict[str, str]]]:
        """The name of the context in use, or None, and all contexts by name.

        Raises:
            UsageError: The file cannot be read.
        """
        try:
            data: dict[str, Any] = tomllib.loads(self.path.read_text(encoding="utf-8"))
            found: dict[str, dict[str, str]] = {name: dict(each) for name, each in data.get("contexts", {}).items()}
        except FileNotFoundError:
            return None, {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{self.path} cannot be read: {error}; correct the file or remove it") from error
        return data.get("use"), found

    def save(self, use: str | None, contexts: dict[str, dict[str, str]]) -> None:
        """Write the contexts.

        Raises:
            UsageError: The file cannot be written.
        """
        data: dict[str, Any] = {"contexts": contexts}
        if use is not None:
            data = {"use": use, **data}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, tomli_w.dumps(data))
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror}") from error

    def read(self, name: str | None) -> dict[str, str]:
        """The options of one context.

        Args:
            name: The context's name; None means the context in use, if there is one.

        Raises:
            UsageError: There is no such context.
        """
        use, contexts = self.load()
        name = name or os.environ.get("MQTT_AGENT_CONTEXT") or use
        if name is None:
            return {}
        if name not in contexts:
            raise UsageError(f"there is no context {name!r}{did_you_mean(name, contexts)}: see mqtt-agent context list")
        return contexts[name]
