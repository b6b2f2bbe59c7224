"""The lists of cards that tool clients and tool servers return. Notebooks show these lists as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mqtt_agent.display import Table, arguments, coloured, escaped
from mqtt_agent.wire import ServerCard, ToolCard

__all__ = ["Entries", "ServerList", "ToolList", "sentences"]

_LONGEST, _MOST = 300, 20
"""Characters of a sentence about a server, and how many sentences there are: a stranger may write them."""


class Entries(list[dict[str, Any]]):
    """Resources, templates or prompts of servers.

    Args:
        entries: The entries.
        incomplete: What the list lacks.

    Attributes:
        incomplete: What the list lacks and why, one sentence for each reason. Empty when the list is whole.
    """

    def __init__(self, entries: Iterable[dict[str, Any]] = (), incomplete: Iterable[str] = ()) -> None:
        super().__init__(entries)
        self.incomplete: list[str] = list(incomplete)


def sentences(missing: Mapping[str, object]) -> list[str]:
    """What a list lacks, for people.

    Args:
        missing: The servers whose entries are missing, each with the reason.
    """
    said = [f"server {name}: {why}" for name, why in sorted(missing.items())]
    said = [each if len(each) <= _LONGEST else each[: _LONGEST - 3] + "..." for each in said]
    return said if len(said) <= _MOST else [*said[: _MOST - 1], f"and {len(said) - _MOST + 1} more servers"]


class ToolList(Table[ToolCard]):
    """The tool cards that :meth:`ToolClient.list_tools` and :attr:`ToolServer.tools` return."""

    _what = "tool"
    _columns = ("tool", "takes", "description", "server", "status")

    def _row(self, item: ToolCard) -> Sequence[str]:
        takes = ", ".join(
            f"{name}: {type}" + ("" if required else " (optional)")
            for name, type, required, _ in arguments(item.input_schema)
        )
        name = f"<b>{escaped(item.tool)}</b>"
        return name, escaped(takes), escaped(item.description), escaped(item.server), coloured(item.status)


class ServerList(Table[ServerCard]):
    """The server cards that :meth:`ToolClient.list_servers` returns."""

    _what = "server"
    _columns = ("server", "tools", "status", "last seen")

    def _row(self, item: ServerCard) -> Sequence[str]:
        tools = "on standby" if item.standby else ", ".join(item.tools)
        return f"<b>{escaped(item.server)}</b>", escaped(tools), coloured(item.status), escaped(item.last_seen)
