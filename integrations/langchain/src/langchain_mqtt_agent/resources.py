"""Resources and prompts of servers in the forms that LangChain knows, as langchain-mcp-adapters gives them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.documents.base import Blob
from langchain_core.messages import AIMessage, HumanMessage
from mqtt_agent import Agent, ToolClient
from mqtt_agent.adapting.calling import tool_client_of

__all__ = ["load_prompt", "load_resources"]


async def load_resources(endpoint: Agent | ToolClient, server: str, uris: Sequence[str] | str | None) -> list[Blob]:
    """Read resources of a server; see :meth:`MQTTToolkit.get_resources`."""
    client = tool_client_of(endpoint)
    if uris is None:
        uris = [resource["uri"] for resource in await client.list_resources(server)]
    wanted = [uris] if isinstance(uris, str) else uris
    return [_blob(content, uri) for uri in wanted for content in await client.read_resource(server, uri)]


async def load_prompt(
    endpoint: Agent | ToolClient, server: str, name: str, arguments: Mapping[str, str] | None
) -> list[HumanMessage | AIMessage]:
    """Get a prompt of a server; see :meth:`MQTTToolkit.get_prompt`."""
    prompt = await tool_client_of(endpoint).get_prompt(server, name, arguments)
    return [_message(message) for message in prompt.get("messages") or ()]


def _blob(content: Mapping[str, Any], uri: str) -> Blob:
    data = base64.b64decode(content["blob"]) if "blob" in content else str(content.get("text", ""))
    return Blob.from_data(data=data, mime_type=content.get("mimeType"), metadata={"uri": content.get("uri", uri)})


def _message(message: Mapping[str, Any]) -> HumanMessage | AIMessage:
    content: Any = message.get("content")
    if not isinstance(content, Mapping) or content.get("type") != "text":
        kind = content.get("type") if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"a prompt has content of type {kind!r}, and only text becomes a message")
    kind = AIMessage if message.get("role") == "assistant" else HumanMessage
    return kind(content=content["text"])
