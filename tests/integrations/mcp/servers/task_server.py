"""An MCP server whose calls become tasks, without the SDK: python task_server.py 2025|2026.

It has the tools that MCP's conformance suite asks for, and ``where``, which tells whether a call has become a task.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

MODERN = sys.argv[1:] == ["2026"]
RELATED = "io.modelcontextprotocol/related-task"
ANYTHING = {"type": "object"}
SUPPORT = {
    "greet": None,
    "slow_compute": "optional",
    "failing_job": "required",
    "protocol_error_job": "optional",
    "confirm_delete": "optional",
    "multi_input": "required",
    "test_tool_with_task": "required",
    "where": "required",
}
FORM = {"type": "object", "properties": {"confirm": {"type": "boolean"}}}
tasks = dict[str, "Task"]()
writing = threading.Lock()
waiting = dict[str, Any]()
"""What the client answers to requests of this server, by their ids."""
arrived = threading.Condition()


def say(message: dict[str, Any]) -> None:
    with writing:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}], **more}


class Task:
    """A call that goes on in a thread of its own."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.id = f"task-{len(tasks)}"
        tasks[self.id] = self
        self.status, self.message = "working", "begun"
        self.result: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.asked = dict[str, Any]()
        self.given = dict[str, Any]()
        self.over = threading.Event()
        self.changed = threading.Condition()
        threading.Thread(target=self.run, args=(name, arguments), daemon=True).start()

    def run(self, name: str, arguments: dict[str, Any]) -> None:
        try:
            result = self.work(name, arguments)
            if self.status != "cancelled":
                self.result, self.status = result, "completed"
        except LookupError as error:
            self.error, self.status = {"code": -32050, "message": str(error), "data": [1]}, "failed"
        self.over.set()

    def work(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if name == "slow_compute":
            if not self.over.wait(0.2):
                self.message = "half done"
                self.over.wait(float(arguments.get("seconds", 0)))
            return text("computed")
        if name == "failing_job":
            self.over.wait(0.3)
            return text("it failed", isError=True)
        if name == "protocol_error_job":
            raise LookupError("a fault")
        if name == "confirm_delete":
            return text(json.dumps(self.ask("confirm")["confirm"]))
        if name in ("multi_input", "test_tool_with_task"):
            return text(json.dumps(self.ask("user_name", "second")))
        return text(self.id)

    def ask(self, *keys: str) -> dict[str, Any]:
        """Ask for a form for each key, and wait for the answers."""
        params = {"mode": "form", "message": "Sure?", "requestedSchema": FORM}
        with self.changed:
            self.asked = {key: {"method": "elicitation/create", "params": params} for key in keys}
            self.status = "input_required"
            while self.asked and self.status != "cancelled":
                self.changed.wait(0.1)
        self.status = "working" if self.status != "cancelled" else self.status
        return self.given

    def answer(self, answers: dict[str, Any]) -> None:
        with self.changed:
            for key in answers.keys() & self.asked.keys():
                self.given[key] = answers[key]
                del self.asked[key]
            self.changed.notify_all()

    def cancel(self) -> None:
        if not self.over.is_set():
            self.status = "cancelled"
            self.over.set()

    @property
    def view(self) -> dict[str, Any]:
        times = {"createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z"}
        view = {"taskId": self.id, "status": self.status, "statusMessage": self.message, **times}
        if not MODERN:
            return view | {"ttl": 60_000, "pollInterval": 100}
        more = {"inputRequests": dict(self.asked)} if self.status == "input_required" else {}
        more |= {"result": self.result} if self.status == "completed" else {}
        more |= {"error": self.error} if self.status == "failed" else {}
        return view | more | {"ttlMs": 60_000, "pollIntervalMs": 100}


def wait_for(task: Task) -> dict[str, Any]:
    """The result of a task of 2025. What the task asks, the client is asked meanwhile."""
    asked = set[str]()
    while not task.over.wait(0.02):
        for key, request in dict(task.asked).items():
            if key not in asked:
                asked.add(key)
                threading.Thread(target=ask_client, args=(task, key, request), daemon=True).start()
    if task.error is not None:
        raise LookupError(task.error)
    if task.result is None:
        raise LookupError({"code": -32603, "message": "the task was canceled"})
    return {**task.result, "_meta": {RELATED: {"taskId": task.id}}}


def ask_client(task: Task, key: str, request: dict[str, Any]) -> None:
    request_id = f"{task.id}-{key}"
    say({"id": request_id, **request, "params": {**request["params"], "_meta": {RELATED: {"taskId": task.id}}}})
    with arrived:
        while request_id not in waiting and not task.over.is_set():
            arrived.wait(0.1)
    task.answer({key: waiting.pop(request_id, None)})


def call(params: dict[str, Any]) -> dict[str, Any]:
    name, arguments = params["name"], params.get("arguments") or {}
    if SUPPORT[name] is None:
        return text(f"Hello, {arguments.get('name')}!")
    if MODERN:
        declared = params["_meta"]["io.modelcontextprotocol/clientCapabilities"].get("extensions", {})
        if "io.modelcontextprotocol/tasks" not in declared:
            raise LookupError({"code": -32021, "message": "no tasks"})
        return {**Task(name, arguments).view, "resultType": "task"}
    if "task" in params:
        task = Task(name, arguments)
        token = params.get("_meta", {}).get("progressToken")
        say(
            {
                "method": "notifications/progress",
                "params": {"progressToken": token, "progress": 1, "message": "half done"},
            }
        )
        return {"task": task.view}
    if SUPPORT[name] == "required":
        raise LookupError({"code": -32601, "message": "this tool is only for tasks"})
    return wait_for(Task(name, arguments))


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    info = {"name": "tasks", "version": "1"}
    if method == "initialize" and not MODERN:
        requests = {"tools": {"call": {}}}
        capabilities: dict[str, Any] = {"tools": {}, "tasks": {"cancel": {}, "requests": requests}}
        return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
    if method == "server/discover" and MODERN:
        capabilities = {"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}
        return {"supportedVersions": ["2026-07-28"], "capabilities": capabilities, "serverInfo": info}
    if method == "tools/list":
        shown = [{"name": each, "inputSchema": ANYTHING} for each in SUPPORT]
        return {
            "tools": [
                each | {"execution": {"taskSupport": support}}
                for each, support in zip(shown, SUPPORT.values(), strict=True)
            ]
        }
    if method == "tools/call":
        return call(params)
    task = tasks.get(params.get("taskId", ""))
    if task is None:
        raise LookupError({"code": -32601, "message": "Method not found"})
    if method == "tasks/cancel":
        task.cancel()
    elif method == "tasks/update" and MODERN:
        threading.Timer(0.3, task.answer, [params["inputResponses"]]).start()  # until then, the task asks again
    elif method == "tasks/result" and not MODERN:
        return wait_for(task)
    return task.view if method == "tasks/get" or not MODERN else {}


def respond(message: dict[str, Any]) -> None:
    try:
        result = answer(message["method"], message.get("params") or {})
    except LookupError as error:
        say({"id": message["id"], "error": error.args[0]})
        return
    if MODERN:
        result = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **result}
    say({"id": message["id"], "result": result})


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            threading.Thread(target=respond, args=(message,), daemon=True).start()
        elif "id" in message:
            with arrived:
                waiting[message["id"]] = message.get("result", {"action": "cancel"})
                arrived.notify_all()


if __name__ == "__main__":
    main()
