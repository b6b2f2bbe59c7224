"""The lists of cards that tool clients and tool servers return. Notebooks show these lists as tables."""

from __future__ import annotations

from collections.abc import Sequence

from mqtt_agent.display import Table, arguments, coloured, escaped
from mqtt_agent.wire import ServerCard, ToolCard

__all__ = ["ServerList", "ToolList"]


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
