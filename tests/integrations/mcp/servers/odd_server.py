"""An MCP server of 2025 without the SDK, which does what no server should: python odd_server.py TOOLS_FILE.

The file holds the list of tools as JSON. The tool ``reload`` reads it again, and tells that the list has changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

QUESTION = {"message": "Which city?", "requestedSchema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]}


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    if name == "die":
        os._exit(3)
    if name == "silent":
        return None
    if name == "ask":
        say({"id": f"ask-{arguments['n']}", "method": "elicitation/create", "params": QUESTION})
        return None
    if name == "log":
        for level in ("debug", "error"):
            say({"method": "notifications/message", "params": {"level": level, "logger": "odd", "data": [level]}})
        return text("logged")
    if name == "rubbish":
        print("this is no JSON\n{]\n\n[1, 2]", flush=True)
        return text("rubbish was written")
    if name == "flood":
        sys.stderr.write("x" * 1_000_000 + "\n")
        return text("flooded")
    if name == "big":
        return text("y" * arguments["size"])
    if name == "family":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        return text(f"{os.getpid()} {child.pid}")
    if name == "reload":
        say({"method": "notifications/tools/list_changed"})
        return text("reloaded")
    if name == "fault":
        raise LookupError(arguments["code"])
    if name == "shows":
        return {**text("broken"), "isError": True, "structuredContent": {"page": 7}}
    if name == "shows_data":
        return {"content": [], "isError": True, "structuredContent": {"code": "RATE_LIMITED", "retry_after": 30}}
    if name == "data_only":
        return {"content": [], "structuredContent": {"memories": ["one"]}}
    if name == "marked":
        marks = {"audience": ["user"], "priority": 0.9, "lastModified": "2026-01-01T00:00:00Z"}
        return {"content": [{"type": "text", "text": "for people", "annotations": marks}]}
    if name == "meta":
        return {**text("with meta"), "_meta": {"ui": {"uri": "ui://a"}}}
    if name == "lies":
        return {**text("no number"), "structuredContent": {"number": "not a number"}}
    return text(json.dumps(arguments))


def page(tools: Any, cursor: str | None) -> dict[str, Any]:
    """All tools, or one page of them. With ``stuck``, the cursor of the last page leads to this page again."""
    if isinstance(tools, list):
        return {"tools": tools}
    number, last = int(cursor or 0), len(tools["pages"]) - 1
    following = number + 1 if number < last else number if tools.get("stuck") else None
    return {"tools": tools["pages"][number], "nextCursor": None if following is None else str(following)}


def main() -> None:
    tools, asking = Path(sys.argv[1]), dict[str, Any]()
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        if "method" not in message:  # the answer to a question
            given = message.get("result", message.get("error"))
            say({"id": asking.pop(message["id"]), "result": text(json.dumps(given))})
            continue
        method, params = message["method"], message.get("params", {})
        if method == "initialize":
            capabilities: dict[str, Any] = {"tools": {"listChanged": True}, "logging": {}}
            info = {"name": "odd", "version": "1"}
            result: dict[str, Any] | None = {
                "protocolVersion": "2025-06-18",
                "capabilities": capabilities,
                "serverInfo": info,
            }
            Path(f"{tools}.seen").write_text(json.dumps(params["capabilities"]))
        elif method == "tools/list":
            result = page(json.loads(tools.read_text()), params.get("cursor"))
        elif method == "logging/setLevel":
            Path(f"{tools}.level").write_text(params["level"])
            result = {}
        elif method == "tools/call":
            if params["name"] == "ask":
                asking[f"ask-{params['arguments']['n']}"] = message["id"]
            try:
                result = call(params["name"], params.get("arguments", {}))
            except LookupError as error:
                say({"id": message["id"], "error": {"code": error.args[0], "message": "a fault", "data": [1]}})
                continue
        else:
            say({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
            continue
        if result is not None:
            say({"id": message["id"], "result": result})


if __name__ == "__main__":
    main()
