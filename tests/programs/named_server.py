"""A tool server in its own process: named_server.py URL NAMESPACE NAME ON_CONFLICT SCHEMA TOOL...

Each tool returns the server's name, the process id and the arguments. With SCHEMA ``old`` or ``new``, the tools take
the argument of that name, and no other. The process ends with 3 when another server has a tool's name.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from mqtt_agent import ToolServer
from mqtt_agent.errors import ToolNameTaken

url, namespace, name, on_conflict, schema, *tools = sys.argv[1:]
server = ToolServer(name, broker=url, namespace=namespace, will_delay=1, on_conflict=on_conflict)  # type: ignore[arg-type]


async def tell(**arguments: Any) -> dict[str, Any]:
    return {"server": name, "pid": os.getpid(), "arguments": arguments}


properties = {} if schema == "any" else {schema: {"type": "integer"}}
for tool in tools:
    input_schema = {"type": "object", "properties": properties, "required": list(properties)}
    server.add_tool(tool, tell, input_schema={**input_schema, "additionalProperties": schema == "any"})


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


threading.Thread(target=die_with_parent, daemon=True).start()
try:
    server.run()
except ToolNameTaken:
    os._exit(3)
