"""BrokerURL: reads a broker URL, or takes the default URL."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

__all__ = ["DEFAULT_BROKER", "ENVIRONMENT_VARIABLE", "BrokerURL"]

ENVIRONMENT_VARIABLE: str = "MQTT_AGENT_BROKER"
"""The environment variable with the URL of the broker. It is used when a program gives no URL."""
DEFAULT_BROKER: str = "mqtt://localhost:1883"
"""The URL when neither the program nor the environment gives a URL."""

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
            ValueError: ``text`` is not a broker URL. The error message never contains its user or password.
        """
        text = text or os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_BROKER
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
