"""An MCP server of 2025 whose answers wait as long as a file exists, without the SDK: python crash_server.py FOLDER.

While ``FOLDER/hold`` exists, calls, lists and tasks do not end. Each of them first writes ``FOLDER/begun-WHAT``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
TIMES = {"createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z", "ttl": 60_000}
TOOLS: list[dict[str, Any]] = [
    {"name": "work", "inputSchema": {"type": "object"}},
    {"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
    {"name": "job", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "optional"}},
    {"name": "change", "inputSchema": {"type": "object"}},
]
writing = threading.Lock()


def say(message: dict[str, Any]) -> None:
    with writing:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def held(what: str, result: dict[str, Any]) -> dict[str, Any]:
    """The result, after nothing holds it any more."""
    if (FOLDER / "hold").exists():
        (FOLDER / f"begun-{what}").write_text(str(os.getpid()))
    while (FOLDER / "hold").exists():
        time.sleep(0.01)
    return result


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    me = {"content": [{"type": "text", "text": str(os.getpid())}]}
    task = {"taskId": "the-task", "pollInterval": 100, **TIMES}
    if method == "initialize":
        tasks = {"cancel": {}, "requests": {"tools": {"call": {}}}}
        able: dict[str, Any] = {"tools": {"listChanged": True}, "resources": {}, "tasks": tasks}
        info = {"name": "crash", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": able, "serverInfo": info}
    if method == "tools/list":
        return held("tools", {"tools": TOOLS})
    if method == "resources/list":
        return held("resources", {"resources": [{"uri": "note://first", "name": "first"}]})
    if method == "tools/call" and params["name"] == "change":
        say({"method": "notifications/tools/list_changed"})
        return me
    if method == "tools/call" and "task" in params:
        return {"task": {**task, "status": "working"}}
    if method == "tools/call":
        return held(params["name"], me)
    if method == "tasks/result":
        return held("task", {**me, "_meta": {"io.modelcontextprotocol/related-task": {"taskId": "the-task"}}})
    if method in ("tasks/get", "tasks/cancel"):
        return {**task, "status": "working" if (FOLDER / "hold").exists() else "completed"}
    raise LookupError(method)


def respond(message: dict[str, Any]) -> None:
    try:
        say({"id": message["id"], "result": answer(message["method"], message.get("params") or {})})
    except LookupError:
        say({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            threading.Thread(target=respond, args=(message,), daemon=True).start()


if __name__ == "__main__":
    main()
