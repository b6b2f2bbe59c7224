"""Resources and prompts of a server as LangChain's blobs and messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import Embedded
from langchain_core.messages import AIMessage, HumanMessage
from langchain_mqtt_agent import MQTTToolkit
from mqtt_agent import ToolServer
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.tools import ServerRequest
from support import becomes, soon

CONTENTS = {
    "x:text": {"uri": "x:text", "text": "hello", "mimeType": "text/plain"},
    "x:bytes": {"uri": "x:bytes", "blob": "AAE="},
}
TEXT = {"type": "text", "text": "a poem"}


async def answer(request: ServerRequest) -> dict[str, Any]:
    if request.method == "resources/list":
        return {"resources": [{"uri": uri, "name": uri} for uri in CONTENTS]}
    if request.method == "resources/read":
        return {"contents": [CONTENTS[request.params["uri"]]]}
    roles = ("user", "assistant") if request.params["name"] == "poem" else ("user",)
    content = TEXT if request.params["name"] == "poem" else {"type": "image", "data": "", "mimeType": "image/png"}
    return {"messages": [{"role": role, "content": content} for role in roles]}


async def test_resources_become_blobs_and_prompts_become_messages(embedded: Embedded, namespace: str) -> None:
    server = ToolServer("books", broker=embedded.url, namespace=namespace)
    server.answer_requests(answer, {"resources": {}, "prompts": {}})
    async with server, MQTTToolkit(broker=embedded.url, namespace=namespace) as toolkit:

        async def is_there() -> bool:
            try:
                return bool(await toolkit.aget_prompt("books", "poem"))
            except ToolUnavailable:
                return False

        await becomes(is_there)
        text, data = await soon(toolkit.aget_resources("books"))
        assert (text.as_string(), text.mimetype, text.metadata["uri"]) == ("hello", "text/plain", "x:text")
        assert data.as_bytes() == b"\0\1"
        [only] = await soon(asyncio.to_thread(toolkit.get_resources, "books", "x:bytes"))
        assert only.metadata == {"uri": "x:bytes"}
        messages = await soon(asyncio.to_thread(toolkit.get_prompt, "books", "poem", {"about": "sleep"}))
        assert messages == [HumanMessage("a poem"), AIMessage("a poem")]
        with pytest.raises(ValueError, match="content of type 'image'"):
            await soon(toolkit.aget_prompt("books", "picture"))
