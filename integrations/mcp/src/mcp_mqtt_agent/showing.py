"""Which tools of a namespace an MCP client is shown: those of all servers, or those of some servers."""

from __future__ import annotations

from mqtt_agent.adapting.lacking import SERVER, sentences
from mqtt_agent.tools import ToolClient, ToolList

from mcp_mqtt_agent.incomplete import Lacks

__all__ = ["offline_servers", "shown_tools"]

_OFFLINE = "the server is not online"


async def shown_tools(client: ToolClient, lacks: Lacks, *, online_only: bool, wait_lost: bool) -> ToolList:
    """The tools that are shown.

    Args:
        client: Finds the tools.
        lacks: The servers that are shown.
        online_only: See :meth:`mqtt_agent.ToolClient.list_tools`.
        wait_lost: See :meth:`mqtt_agent.ToolClient.list_tools`.

    Raises:
        MQTTAgentError: See :meth:`mqtt_agent.ToolClient.list_tools`.
    """
    if lacks.servers is None:
        return await client.list_tools(online_only=online_only, wait_lost=wait_lost)
    lists = [await client.list_tools(name, online_only, wait_lost=wait_lost) for name in lacks.servers]
    missing = await offline_servers(client, lacks) if online_only else {}
    for listed in lists:
        missing |= listed.missing
    about_servers = {each for listed in lists for each in sentences(SERVER, listed.missing)}
    others = dict.fromkeys(each for listed in lists for each in listed.incomplete if each not in about_servers)
    tools = {card.tool: card for listed in lists for card in listed}
    return ToolList([tools[name] for name in sorted(tools)], [*others, *sentences(SERVER, missing)], missing)


async def offline_servers(client: ToolClient, lacks: Lacks) -> dict[str, str]:
    """The servers of those that were named that are not online, each with the reason."""
    if not lacks.servers:
        return {}
    listed = await client.list_servers()
    online = {name for card in listed for name in (card.shared_name, card.server)}
    return {name: listed.missing.get(name, _OFFLINE) for name in lacks.servers if name not in online}
