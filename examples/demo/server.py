"""A tool server that reads a folder of source code: one replica, in its own process.

    python server.py --broker mqtt://localhost:1883 --dir . --replica replica-1

Start this program as often as you like, each time with a different replica name: the broker distributes the calls.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import code_tools
from mqtt_agent import ToolContext, ToolServer
from pydantic import Field

NAME = "code"
TOOLS = frozenset(("folder_stats", "search_text", "read_lines"))


def make_server(folder: Path, broker: str | None, replica: str | None) -> ToolServer:
    """Make the server with its three tools. Names, descriptions and schemas come from the functions."""
    # In this demo, a killed replica is shown as offline after one second, and the broker then drops its queue. In
    # production, use a longer delay: a replica loses no call if its network is down for less than this delay.
    server = ToolServer(NAME, broker=broker, replica=replica, will_delay=1, session_expiry=1, max_concurrency=8)

    @server.tool(read_only=True)
    def folder_stats(path: str = ".") -> code_tools.FolderStats:
        """Count files, lines and bytes of a folder, by extension and by subfolder. Call it first."""
        return code_tools.folder_stats(folder, path)

    @server.tool(read_only=True, timeout=30)
    async def search_text(
        pattern: str,
        ctx: ToolContext,
        path: str = ".",
        ignore_case: bool = False,
        max_matches: Annotated[int, Field(ge=1, le=200)] = 50,
    ) -> code_tools.SearchResult:
        """Find the lines that match a regular expression (Python syntax) in the text files of a folder, or in one file.

        All matching lines are counted, and the files with the most of them are named.
        """
        return await code_tools.search_text(
            folder, pattern, path, ignore_case=ignore_case, max_matches=max_matches, on_progress=ctx.progress
        )

    @server.tool(read_only=True)
    def read_lines(
        path: str, start: Annotated[int, Field(ge=1)] = 1, count: Annotated[int, Field(ge=1, le=400)] = 60
    ) -> code_tools.Excerpt:
        """Read a part of a text file: 'count' lines, beginning with line 'start'."""
        return code_tools.read_lines(folder, path, start, count)

    return server


def end_with_parent() -> None:
    """End this process when its parent process has ended, because the pipe of the standard input closes then."""

    def wait_for_the_end() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description="Offer tools over a folder of source code.")
    parser.add_argument("--broker", help="URL of an MQTT 5 broker (default: $MQTT_AGENT_BROKER, or localhost)")
    parser.add_argument("--dir", type=Path, default=Path(), help="the folder (default: the current one)")
    parser.add_argument("--replica", help="this replica's name (default: a generated name)")
    parser.add_argument("--end-with-parent", action="store_true", help="end when the standard input closes")
    options = parser.parse_args()
    if options.end_with_parent:
        end_with_parent()
    make_server(options.dir, options.broker, options.replica).run()


if __name__ == "__main__":
    main()
