"""A tool server in its own process: named_server.py URL NAMESPACE NAME ON_CONFLICT SCHEMA TOOL...

Each tool returns the server's name, the process id and the arguments. With SCHEMA ``old`` or ``new``, the tools take
the argument of that name, and no other. With SCHEMA ``each``, each tool has a server of its own, NAME-TOOL, and all of
them start at once when the process can read a byte.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

from mqtt_agent import ToolServer

url, namespace, name, on_conflict, schema, *tools = sys.argv[1:]
free_arguments = schema in ("any", "each")
properties = {} if free_arguments else {schema: {"type": "integer"}}


def make(name: str, tools: list[str]) -> ToolServer:
    will_delay = 20 if properties else 1  # the tests of schemas kill nobody
    server = ToolServer(name, broker=url, namespace=namespace, will_delay=will_delay, on_conflict=on_conflict)  # type: ignore[arg-type]

    async def tell(**arguments: Any) -> dict[str, Any]:
        return {"server": name, "pid": os.getpid(), "arguments": arguments}

    for tool in tools:
        input_schema = {"type": "object", "properties": properties, "required": list(properties)}
        server.add_tool(tool, tell, input_schema={**input_schema, "additionalProperties": free_arguments})
    return server


async def race() -> None:
    servers = [make(f"{name}-{tool}", [tool]) for tool in tools]
    print("ready", flush=True)
    await asyncio.to_thread(os.read, 0, 1)
    threading.Thread(target=die_with_parent, daemon=True).start()
    outcomes = await asyncio.gather(*(server.start() for server in servers), return_exceptions=True)
    print(" ".join(type(outcome).__name__ for outcome in outcomes), flush=True)
    await asyncio.Event().wait()


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


if schema == "each":
    asyncio.run(race())
threading.Thread(target=die_with_parent, daemon=True).start()
make(name, tools).run()
