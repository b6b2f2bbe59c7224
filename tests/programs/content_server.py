"""A server with large contents in its own process: content_server.py URL NAMESPACE REPLICA DIRECTORY.

``DIRECTORY`` keeps the contents over a restart; ``-`` keeps them in temporary files.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from mqtt_agent import ToolContext, ToolResult, ToolServer
from mqtt_agent.sync import ToolContext as SyncToolContext
from mqtt_agent.tools import ContentSettings

url, namespace, replica, directory = sys.argv[1:5]
kept = ContentSettings(directory=None if directory == "-" else directory)
server = ToolServer("export", broker=url, namespace=namespace, replica=replica, will_delay=1, contents=kept)


def numbered(mebibytes: int) -> Iterator[bytes]:
    """A mebibyte of each number, from 0 to 255 and again from 0."""
    for number in range(mebibytes):
        yield bytes((number & 0xFF,)) * (1024 * 1024)


@server.tool
def export(mebibytes: int, ctx: SyncToolContext) -> ToolResult:
    return ctx.share(numbered(mebibytes), name="export.bin")


@server.tool
async def export_file(path: str, ctx: ToolContext) -> ToolResult:
    return await ctx.share(Path(path))


@server.tool
async def peak_memory() -> int:
    """The largest memory of the process so far, in KiB."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM:"))


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


threading.Thread(target=die_with_parent, daemon=True).start()
server.run()
