"""The names under which a bridge offers the tools of its MCP server."""

from __future__ import annotations

import hashlib

from mqtt_agent.wire import is_identifier

__all__ = ["mqtt_name"]

_LONGEST = 200
"""Bytes of UTF-8. MQTT.Agent allows 255, and replicas and streams need some of them."""


def mqtt_name(prefix: str, name: str) -> str:
    """The name of a tool in topics. Characters that no topic level can hold become ``_``, with a digest at the end.

    Args:
        prefix: The text before the names of all tools of the server, such as ``files.``.
        name: The tool's name at its MCP server, any text.
    """
    # A name may begin with any character but one, so each character is tried behind another.
    plain = "".join(each if is_identifier(f"x{each}") else "_" for each in prefix + name)
    plain = "_" + plain[1:] if plain.startswith("$") else plain
    size = len(plain.encode())
    if plain == prefix + name and 0 < size <= _LONGEST:
        return plain
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    return plain.encode()[: _LONGEST - 9].decode(errors="ignore") + "-" + digest
