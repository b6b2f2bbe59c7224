"""BrokerURL: reads a broker URL or several, or takes the default URL."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

__all__ = ["DEFAULT_BROKER", "ENVIRONMENT_VARIABLE", "BrokerURL"]

ENVIRONMENT_VARIABLE: str = "MQTT_AGENT_BROKER"
"""The environment variable with the URL of the broker, or with several. It is used when a program gives no URL."""
DEFAULT_BROKER: str = "mqtt://localhost:1883"
"""The URL when neither the program nor the environment gives a URL."""

_BETWEEN_URLS = re.compile(r"\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")
"""A comma that begins another URL. A comma in a password does not."""
_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}

_SCHEMES = {
    "mqtt": "mqtt",
    "tcp": "mqtt",
    "http": "ws",
    "ssl": "mqtts",
    "tls": "mqtts",
    "tcps": "mqtts",
    "https": "wss",
}
"""For each scheme, the scheme of a broker URL that the user probably means."""


@dataclass(frozen=True)
class BrokerURL:
    """A parsed broker URL. ``str()`` of it has no user and no password.

    Attributes:
        scheme: ``mqtt``, ``mqtts``, ``ws`` or ``wss``.
        host: The host name or address.
        port: The TCP port.
        path: The path of a WebSocket URL, ``/mqtt`` by default.
        username: The user in ``user:password@``, percent-decoded.
        password: The password in ``user:password@``, percent-decoded.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str | None) -> BrokerURL:
        """Read a URL.

        Args:
            text: The URL. None means the environment variable ``MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.

        Raises:
            ValueError: ``text`` is not a broker URL, or is several URLs. The error message never contains a user or
                password.
        """
        first, *more = cls.parse_all(text)
        if more:
            raise ValueError("the broker URL is several URLs, and only one can be used here: name one of them")
        return first

    @classmethod
    def parse_all(cls, broker: str | BrokerURL | Sequence[str] | None) -> tuple[BrokerURL, ...]:
        """Read the URLs of one broker or of several.

        Args:
            broker: A URL, several URLs with commas between them, or a sequence of URLs. None means the environment
                variable ``MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.

        Returns:
            At least one URL, in the order given.

        Raises:
            ValueError: One of them is not a broker URL, or the sequence is empty. The error message never contains a
                user or password.
        """
        if isinstance(broker, BrokerURL):
            return (broker,)
        if broker is not None and not isinstance(broker, str):
            if not broker:
                raise ValueError("the list of broker URLs is empty: name at least one broker URL")
            return tuple(url for text in broker for url in cls.parse_all(text))
        text = broker or os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_BROKER
        return tuple(cls._parse(each) for each in _BETWEEN_URLS.split(text.strip()))

    @classmethod
    def _parse(cls, text: str) -> BrokerURL:
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError(
                "the broker URL cannot be read: use mqtt://host:port with a port up to 65535, and write characters "
                "such as / and # in a password as %2F and %23"
            ) from None
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(_advice(text))
        if "," in parts.hostname:
            raise ValueError(
                "the broker URL has a comma in its host: give each URL of a list its scheme, as in mqtt://a,mqtt://b"
            )
        return cls(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port or _DEFAULT_PORTS[parts.scheme],
            path=(parts.path or "/mqtt") if parts.scheme in ("ws", "wss") else "",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password is not None else None,
        )

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("mqtts", "wss")

    @property
    def websocket(self) -> bool:
        """Whether MQTT travels inside a WebSocket."""
        return self.scheme in ("ws", "wss")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def _advice(text: str) -> str:
    """Says what is wrong with a URL, and suggests a URL. The advice never contains the URL's user or password."""
    scheme, colons, rest = text.strip().partition("://")
    if not colons or not scheme.replace("+", "").isalnum():
        scheme, rest = "", text.strip().lstrip("/")
    scheme = scheme.lower()
    wanted = scheme if scheme in _DEFAULT_PORTS else _SCHEMES.get(scheme, "mqtt")
    try:
        parts = urlsplit(f"{wanted}://{rest}")
        # An @ after the host belongs to a password with a slash. Then the host is a part of the user and password.
        host, port = "" if "@" in rest and "@" not in parts.netloc else parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    usual = next(
        (name for name, number in _DEFAULT_PORTS.items() if number == port and name.startswith("mqtt")), wanted
    )
    host = f"[{host}]" if ":" in host else host
    login = "USER:PASSWORD@" if "@" in rest else ""
    suggested = f"{usual}://{login}{host}{f':{port}' if port else ''}"
    if scheme in _DEFAULT_PORTS:
        what = f"the broker URL names no host after {scheme}://"
    elif scheme:
        what = f"the scheme {scheme:.20}:// is not a scheme of a broker URL"
    else:
        what = "the broker URL has no scheme"
    schemes = "use mqtt:// or, with TLS, mqtts://, and for MQTT over WebSockets ws:// or wss://"
    return f"{what}: {schemes}; did you mean {suggested if host else DEFAULT_BROKER:.200}?"
