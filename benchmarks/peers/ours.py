"""MQTT.Agent at each of its layers, with default settings.

python -m peers.ours serve|serve-signed|client|client-signed|facade|structured|ainvoke|invoke mqtt://host:port
python -m peers.ours serve-uvloop|client-uvloop mqtt://host:port
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator

from mqtt_agent import ToolClient, ToolServer
from mqtt_agent import sync as blocking
from mqtt_agent.identity import Identity

from peers import load
from peers.keys import identity_of

SERVES, CALLS = "bench", "bench-client"


def serve(url: str, identity: Identity | None = None) -> None:
    server = ToolServer(SERVES, broker=url, identity=identity)

    @server.tool
    async def echo(text: str) -> dict:
        return {"text": text}

    async def main() -> None:
        async with server:
            load.ready()
            await asyncio.to_thread(load.wait_for_the_end)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def client(url: str, identity: Identity | None = None) -> AsyncIterator[load.AsyncCall]:
    async with ToolClient(CALLS, broker=url, identity=identity) as tools:

        async def call(text: str) -> str:
            return (await tools.call("echo", {"text": text}))["text"]

        yield call


@contextlib.contextmanager
def facade(url: str) -> Iterator[load.SyncCall]:
    with blocking.ToolClient("bench-facade", broker=url) as tools:
        yield lambda text: tools.call("echo", {"text": text})["text"]


@contextlib.asynccontextmanager
async def structured(url: str) -> AsyncIterator[load.AsyncCall]:
    """The cost of LangChain alone: a plain LangChain tool that only makes the call, on the caller's event loop."""
    from langchain_core.tools import StructuredTool

    async with ToolClient("bench-structured", broker=url) as tools:

        async def call_echo(text: str) -> tuple[str, dict]:
            result = await tools.call("echo", {"text": text})
            return result["text"], result

        echo = StructuredTool(
            name="echo",
            description="echo",
            args_schema={"type": "object", "properties": {"text": {"type": "string"}}},
            coroutine=call_echo,
            response_format="content_and_artifact",
        )

        async def call(text: str) -> str:
            message = await echo.ainvoke({"type": "tool_call", "id": "1", "name": "echo", "args": {"text": text}})
            return message.artifact["text"]

        yield call


@contextlib.asynccontextmanager
async def ainvoke(url: str) -> AsyncIterator[load.AsyncCall]:
    from langchain_mqtt_agent import MQTTToolkit

    async with MQTTToolkit(broker=url, agent_id="bench-ainvoke") as toolkit:
        [echo] = await toolkit.aget_tools()

        async def call(text: str) -> str:
            message = await echo.ainvoke({"type": "tool_call", "id": "1", "name": "echo", "args": {"text": text}})
            return message.artifact["structured_content"]["text"]

        yield call


@contextlib.contextmanager
def invoke(url: str) -> Iterator[load.SyncCall]:
    from langchain_mqtt_agent import MQTTToolkit

    with MQTTToolkit(broker=url, agent_id="bench-invoke") as toolkit:
        [echo] = toolkit.get_tools()

        def call(text: str) -> str:
            message = echo.invoke({"type": "tool_call", "id": "1", "name": "echo", "args": {"text": text}})
            return message.artifact["structured_content"]["text"]

        yield call


if __name__ == "__main__":
    role, url = sys.argv[1:3]
    if role.endswith("-uvloop"):
        import uvloop

        uvloop.install()
        role = role.removesuffix("-uvloop")
    if role == "serve":
        serve(url)
    elif role == "serve-signed":
        serve(url, identity_of(SERVES, trusts=CALLS))
    elif role == "client-signed":
        load.run_async(client(url, identity_of(CALLS, trusts=SERVES)))
    elif role in ("client", "structured", "ainvoke"):
        load.run_async({"client": client, "structured": structured, "ainvoke": ainvoke}[role](url))
    else:
        load.run_threads({"facade": facade, "invoke": invoke}[role](url))
