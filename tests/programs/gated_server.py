"""A tool server whose tool logs each run and waits for a file: gated_server.py URL NAMESPACE FOLDER REPLICA."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

from mqtt_agent import ToolContext, ToolServer

url, namespace, folder, replica = sys.argv[1:5]
server = ToolServer("gated", broker=url, namespace=namespace, replica=replica, will_delay=1)


@server.tool
async def work(n: int, ctx: ToolContext) -> str:
    with (Path(folder) / "log").open("a") as log:
        log.write(f"{replica} {ctx.call_id} {n}\n")
    while not (Path(folder) / "open").exists():
        await asyncio.sleep(0.01)
    return f"{n} by {replica}"


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


async def main() -> None:
    await server.start()
    (Path(folder) / f"online-{replica}").touch()
    await server.serve_forever()


threading.Thread(target=die_with_parent, daemon=True).start()
asyncio.run(main())
