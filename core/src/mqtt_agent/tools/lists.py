"""The lists of cards that tool clients and tool servers return. Notebooks show these lists as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mqtt_agent.display import Table, arguments, coloured, escaped
from mqtt_agent.wire import ServerCard, ToolCard

__all__ = ["Entries", "ServerList", "ToolList"]


class Entries(list[dict[str, Any]]):
    """Resources, templates or prompts of servers.

    Args:
        entries: The entries.
        incomplete: What the list lacks.
        missing: The servers whose entries the list lacks, each with the reason.

    Attributes:
        incomplete: What the list lacks and why, one sentence for each reason. Empty when the list is whole.
        missing: The servers whose entries the list lacks, by name, each with the reason.
    """

    def __init__(
        self,
        entries: Iterable[dict[str, Any]] = (),
        incomplete: Iterable[str] = (),
        missing: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(entries)
        self.incomplete: list[str] = list(incomplete)
        self.missing: dict[str, str] = dict(missing or {})


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
