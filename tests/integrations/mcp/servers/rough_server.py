"""An MCP server without the SDK, with the faults of real servers: python rough_server.py [HTTP_PORT FORGETS].

It speaks 2024-11-05. Over HTTP, it answers at ``/mcp/`` and sends other paths there, has no stream for GET, and forgets
the session after FORGETS calls, which it says in the words of the official TypeScript SDK.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOOLS = [
    *("separators", "latin", "surrogate", "nan", "no_content", "null_content", "odd_error", "pinged", "arguments"),
    *("numbers", "null_id", "closed_code"),
]
QUERY = {"uriTemplate": "data://{id}{?format}", "name": "data", "mimeType": "text/csv"}
CONTENT = {"mimeType": "text/csv", "text": "1", "_meta": {"ui": {"csp": {"connectDomains": ["a.example"]}}}}
pongs: list[Any] = []


def raw(line: str | bytes) -> None:
    sys.stdout.buffer.write((line if isinstance(line, bytes) else line.encode()) + b"\n")
    sys.stdout.buffer.flush()


def say(**message: Any) -> None:
    raw(json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False))


def text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]}


def result_of(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        offers = {"tools": {}, "resources": {}}
        info = {"name": "rough", "version": "1"}
        return {"protocolVersion": "2024-11-05", "capabilities": offers, "serverInfo": info}
    if method == "tools/list":
        listed = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
        if len(sys.argv) > 1:
            return {"tools": listed}
        if params.get("cursor") is None:
            return {"tools": listed, "nextCursor": "1"}
        return {"tools": [], "nextCursor": str(int(params["cursor"]) + 1)}  # there is no last page
    if method == "resources/list":
        return {"resources": []}
    if method == "resources/templates/list":
        return {"resourceTemplates": [QUERY]}
    if method == "resources/read":
        return {"contents": [{"uri": params["uri"], **CONTENT}]}
    if method != "tools/call":
        return None
    name = params["name"]
    if name == "separators":
        return text("a\u2028b\u2029c\u0085d\x0be")
    if name == "numbers":
        return {**text("numbers"), "structuredContent": {"big": 2**60, "whole": 42.0, "tiny": 1e-300}}
    if name == "no_content":
        return {}
    if name == "null_content":
        return {"content": None, "structuredContent": None}
    return text(json.dumps(params.get("arguments")))


def answer_raw(name: str, id: Any) -> bool:
    """Answer a call with bytes that no JSON library writes."""
    head = f'{{"jsonrpc":"2.0","id":{json.dumps(id)},'
    if name == "latin":
        raw(f'{head}"result":{{"content":[{{"type":"text","text":"caf'.encode() + b'\xe9"}]}}')
    elif name == "surrogate":
        raw(f'{head}"result":{{"content":[{{"type":"text","text":"a\\ud800b"}}]}}}}')
    elif name == "nan":
        raw(f'{head}"result":{{"content":[],"structuredContent":{{"x":NaN}}}}}}')
    elif name == "odd_error":
        raw(f'{head}"error":"it broke"}}')
    else:
        return False
    return True


def over_stdio() -> None:
    waiting: list[Any] = []
    for line in sys.stdin:
        message = json.loads(line)
        id, method, params = message.get("id"), message.get("method"), message.get("params") or {}
        if method is None:
            for each in waiting:  # the client has answered the ping
                say(id=each, result=text("pong"))
            waiting.clear()
        elif id is None:
            continue
        elif method == "tools/call" and params["name"] == "pinged":
            waiting.append(id)
            say(id="ping-1", method="ping")
        elif method == "tools/call" and params["name"] == "null_id":
            raw('{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"who are you?"}}')
            say(method="notifications/something/new", params={"a": 1})
            say(id=id, result=text("still here"))
        elif method == "tools/call" and params["name"] == "closed_code":
            say(id=id, error={"code": -32000, "message": "quota exceeded"})
        elif method == "tools/call" and answer_raw(params["name"], id):
            continue
        else:
            result = result_of(method, params)
            if result is None:
                say(id=id, error={"code": -32601, "message": "Method not found"})
            else:
                say(id=id, result=result)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    forgets = 0
    calls = 0
    known = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/mcp/":
            self.send_response(307)
            self.send_header("Location", "/mcp/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if body.get("method") == "initialize":
            Handler.known, Handler.calls = True, 0
        elif not Handler.known and body.get("method") != "server/discover":
            error = {"code": -32000, "message": "Bad Request: Server not initialized"}
            self.reply(400, {"jsonrpc": "2.0", "error": error, "id": None})
            return
        if "id" not in body:
            self.reply(202, None)
            return
        if body["method"] == "tools/call":
            Handler.calls += 1
            if Handler.calls >= Handler.forgets:
                Handler.known = False
        result = result_of(body["method"], body.get("params") or {})
        answer = {"error": {"code": -32601, "message": "Method not found"}} if result is None else {"result": result}
        self.reply(200, {"jsonrpc": "2.0", "id": body["id"], **answer})

    def do_GET(self) -> None:
        self.reply(404, {"error": "no such page"})

    def reply(self, status: int, value: Any) -> None:
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Handler.forgets = int(sys.argv[2])
        ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    else:
        over_stdio()
