"""MCP clients of other authors in front of a namespace."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, free_port
from installing import install_python
from mcp_mqtt_agent.http_face import HTTPFaces, serve_http
from mqtt_agent import ToolClient, ToolContext, ToolServer
from mqtt_agent.adapting.bearers import Identity
from node import Node
from support import soon

from .conftest import SERVERS, MakeBridge, shows_some
from .test_identities import listening

pytestmark = pytest.mark.long

CLIENTS = Path(__file__).parent / "peers" / "node22"
OLDER = Path(__file__).parent / "peers" / "older"
FACE = [sys.executable, "-m", "mqtt_agent.cli", "mcp"]
CONFORMANCE_SERVER = [sys.executable, str(SERVERS / "conformance_server.py")]
TASK_SERVER = [sys.executable, str(SERVERS / "task_server.py")]
NOT_OFFERED = {
    "2025-11-25": {
        "tools-call-sampling",
    },
    "2026-07-28": {
        "input-required-result-basic-sampling",
        "input-required-result-basic-list-roots",
        "input-required-result-multiple-input-requests",  # one of them is sampling
        "input-required-result-capability-check",  # a client with sampling alone
        "input-required-result-non-tool-request",
        "input-required-result-basic-elicitation",  # the suite wants the key that the server has chosen
    },
}
"""The scenarios for what the bridge does not pass on, by protocol."""


@pytest.fixture(scope="session")
def clients() -> Path:
    Node.require(CLIENTS, "clients from npm")
    return CLIENTS / "node_modules"


async def run(*command: str, env: dict[str, str] | None = None) -> tuple[int | None, str]:
    """Run a program, and return its exit code and its output."""
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **(env or {})}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await soon(process.communicate(), 240)
    return process.returncode, out.decode()


def node(clients: Path) -> str:
    """The program of Node.js 22."""
    return str(clients / "node" / "bin" / "node")


@pytest.fixture
async def url(mosquitto: Broker, namespace: str) -> AsyncIterator[str]:
    """The address of the namespace as an MCP server."""
    port = free_port()

    def make_client(identity: Identity) -> ToolClient:
        return ToolClient(identity.agent_id, broker=mosquitto.url, namespace=namespace)

    faces = HTTPFaces([Identity("client")], make_client)
    serving = asyncio.create_task(serve_http(faces, "127.0.0.1", port))
    await soon(listening(port), 60)
    yield f"http://127.0.0.1:{port}/mcp"
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", list(NOT_OFFERED))
async def test_the_conformance_suite_passes_through_the_whole_chain(
    clients: Path, url: str, make_bridge: MakeBridge, client: ToolClient, tmp_path: Path, version: str
) -> None:
    await make_bridge("conformance", CONFORMANCE_SERVER, prefix="")
    await shows_some(client, "test_simple_text")

    async def check(*what: str) -> dict[str, list[str]]:
        """Run scenarios. Returns what failed in each of them."""
        suite = clients / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        options = ["--url", url, *what, "--spec-version", version, "--timeout", "120000", "-o", str(folder)]
        await run(node(clients), str(suite), "server", *options)
        results: dict[str, list[str]] = {}
        for checks in folder.glob("*/checks.json"):
            found = re.fullmatch(r"server-(.+)-\d{4}-\d\d-\d\dT.+", checks.parent.name)
            assert found is not None
            bad = [each for each in json.loads(checks.read_text()) if each["status"] == "FAILURE"]
            results[found[1]] = [f"{each['id']}: {each.get('errorMessage')}" for each in bad]
        return results

    results = await check("--suite", "all")
    assert len(results) >= 33
    for scenario in {name for name, bad in results.items() if bad} - NOT_OFFERED[version]:
        # Some scenarios wait for 500 ms only, which a busy machine cannot always keep.
        results |= await check("--scenario", scenario)
    assert {name: bad for name, bad in results.items() if bad and name not in NOT_OFFERED[version]} == {}
    assert {name for name, bad in results.items() if bad} == NOT_OFFERED[version]


TASKS = [
    *("tasks-lifecycle", "tasks-capability-negotiation", "tasks-wire-fields", "tasks-request-state-removal"),
    *("tasks-mrtr-input", "tasks-request-headers", "tasks-dispatch-and-envelope", "tasks-required-task-error"),
]
"""The scenarios of the extension for tasks. ``tasks-mrtr-composition`` is not offered: a question that a server asks
before it makes a task is asked in the task. ``tasks-status-notifications`` checks nothing yet."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("protocol", ["2025", "2026"])
async def test_the_task_scenarios_of_the_conformance_suite_pass_through_the_whole_chain(
    clients: Path, url: str, make_bridge: MakeBridge, client: ToolClient, tmp_path: Path, protocol: str
) -> None:
    await make_bridge("tasks", [*TASK_SERVER, protocol], prefix="")
    await shows_some(client, "where")
    suite = clients / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    failed: dict[str, list[str]] = {}
    for scenario in TASKS:
        options = ["--url", url, "--scenario", scenario, "--timeout", "120000", "-o", str(tmp_path / scenario)]
        await run(node(clients), str(suite), "server", *options)
        [checks] = (tmp_path / scenario).glob("*/checks.json")
        results = json.loads(checks.read_text())
        assert any(each["status"] == "SUCCESS" for each in results)
        bad = [each for each in results if each["status"] == "FAILURE"]
        failed |= {scenario: [f"{each['id']}: {each.get('errorMessage')}" for each in bad]} if bad else {}
    assert failed == {}


@pytest.fixture
async def small(mosquitto: Broker, namespace: str) -> AsyncIterator[ToolServer]:
    """A tool server with three tools, one of which adds a fourth."""
    server = ToolServer("small", broker=mosquitto.url, namespace=namespace)

    @server.tool
    async def echo(text: str, ctx: ToolContext) -> dict[str, Any]:
        """Say it again."""
        await ctx.progress(1, 1)
        return {"text": text}

    @server.tool
    async def ask(ctx: ToolContext) -> str:
        return str(await ctx.ask("Where?"))

    @server.tool
    async def grow() -> str:
        await server.add_tool("grown", lambda: 1)
        return "grown"

    async with server:
        yield server


def place(broker: Broker, namespace: str) -> dict[str, str]:
    return {"MQTT_AGENT_BROKER": broker.url, "MQTT_AGENT_NAMESPACE": namespace}


@pytest.mark.timeout(300)
async def test_the_typescript_client_lists_calls_answers_and_hears_of_changes(
    clients: Path, small: ToolServer, mosquitto: Broker, namespace: str
) -> None:
    code, out = await run(node(clients), str(CLIENTS / "client.js"), *FACE, env=place(mosquitto, namespace))
    assert code == 0
    seen = json.loads(out)
    assert set(seen["tools"]) == {"ask", "echo", "grow"}
    assert (seen["echoed"]["structuredContent"], seen["progress"]) == ({"text": "hi"}, [1])
    assert seen["asked"]["content"] == [{"type": "text", "text": "Oslo"}]
    assert "grown" in seen["grown"]


@pytest.mark.timeout(300)
async def test_the_inspector_lists_and_calls_tools_over_standard_input_and_http(
    clients: Path, small: ToolServer, url: str, mosquitto: Broker, namespace: str
) -> None:
    inspector = [str(clients / ".bin" / "mcp-inspector"), "--cli"]
    variables = [word for name, value in place(mosquitto, namespace).items() for word in ("-e", f"{name}={value}")]
    stdio = [*FACE, *variables]
    for target in (stdio, [url, "--transport", "http"]):
        target += ["--connect-timeout", "60000"]
        code, out = await run(node(clients), *inspector, *target, "--method", "tools/list")
        assert (code, {tool["name"] for tool in json.loads(out)["tools"]}) == (0, {"ask", "echo", "grow"})
        call = ["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "text=hi"]
        code, out = await run(node(clients), *inspector, *target, *call)
        assert (code, json.loads(out)["structuredContent"]) == (0, {"text": "hi"})


@pytest.mark.timeout(400)
async def test_the_mcp_adapters_of_langchain_and_autogen_list_and_call_tools(
    small: ToolServer, mosquitto: Broker, namespace: str
) -> None:
    python = await asyncio.to_thread(install_python, OLDER / "requirements.txt", OLDER / ".env")
    code, out = await run(str(python), str(OLDER / "clients.py"), *FACE, env=place(mosquitto, namespace))
    assert code == 0
    seen = json.loads(out.splitlines()[-1])
    for client in ("langchain", "autogen"):
        assert seen[client]["tools"] == ["ask", "echo", "grow"]
    assert json.loads(seen["langchain"]["echoed"][0]["text"]) == {"text": "hi"}
    assert (json.loads(seen["autogen"]["echoed"]), seen["autogen"]["is_error"]) == ({"text": "hi"}, False)
