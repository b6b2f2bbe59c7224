"""Reads a large content in a process of its own, and prints what it has read and how much memory it has needed.

content_reader.py URL NAMESPACE MEBIBYTES
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path

from mqtt_agent import ToolClient


def peak_memory() -> int:
    """The largest memory of the process so far, in KiB."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM:"))


async def main(url: str, namespace: str, mebibytes: int) -> None:
    async with ToolClient("agent-a", broker=url, namespace=namespace) as client:
        await client.call("export", {"mebibytes": 1}, wait_online=True)
        before = [peak_memory(), await client.call("peak_memory")]
        content = await client.open_content(await client.call("export", {"mebibytes": mebibytes}))
        size, digest = 0, hashlib.sha256()
        async for piece in content:
            size += len(piece)
            digest.update(piece)
        after = [peak_memory(), await client.call("peak_memory")]
        print(json.dumps({"size": size, "right": digest.hexdigest() == content.sha256, "kib": [before, after]}))


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
