"""The subjects of the comparison, and the commands that start the server and the client of each.

To add a subject, add to ``peers/`` a server and a client that executes the commands of ``peers/load.py``, and add an
entry to ``SUBJECTS``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from processes import HERE, CouldNotRun, Mosquitto
from servers import Started, nats_server, redis_server

__all__ = ["FLOOR", "OURS", "SUBJECTS", "Subject"]

REFERENCE = HERE / "peers" / "reference"
INSTALLED_WITHIN = 120.0


AT_ONCE = (1, 64)
WITH_32 = (1, 32, 64)
"""The goal for MCP is one for 32 calls at once."""


@dataclass(frozen=True)
class Subject:
    """A program that can call the tool ``echo``, or give ``echo`` as a task.

    Attributes:
        key: The short name, for the command line and the JSON.
        title: The description, for the table.
        serve: The command of the server; the URL is appended.
        call: The command of the client; the URL is appended.
        broker: Starts the broker that client and server use. None means that the server itself listens at the URL.
        lacks: What the program does not do with a call or a task, as a list in words; empty when it does all of it.
        prepare: Installs the packages that the subject needs; raises :class:`CouldNotRun`.
        at_once: How many calls are in progress at the same time, in turns of their own.
    """

    key: str
    title: str
    serve: tuple[str, ...]
    call: tuple[str, ...]
    broker: Callable[[], AbstractContextManager[Mosquitto | Started]] | None = Mosquitto
    lacks: str = ""
    prepare: Callable[[], None] = lambda: None
    at_once: tuple[int, ...] = AT_ONCE


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"peers.{module}", *arguments)


def _needs(*packages: str) -> Callable[[], None]:
    def prepare() -> None:
        for package in packages:
            if importlib.util.find_spec(package) is None:
                raise CouldNotRun(f"the Python package {package} is not installed")

    return prepare


def _node() -> str:
    from node import _programs

    programs = _programs()
    return programs[0][0] if programs else "node"


def _install_reference() -> None:
    from node import _programs

    programs = _programs()
    if programs is None:
        raise CouldNotRun("Node.js 18 or newer with npm is not installed")
    modules, packages = REFERENCE / "node_modules", REFERENCE / "package.json"
    mark, wanted = modules / ".installed", hashlib.sha256(packages.read_bytes()).hexdigest()
    if mark.is_file() and mark.read_text() == wanted:
        return
    shutil.rmtree(modules, ignore_errors=True)
    command = [*programs[1], "install", "--no-audit", "--no-fund", "--silent", "--no-package-lock", "--install-links"]
    try:
        subprocess.run(command, cwd=REFERENCE, check=True, timeout=INSTALLED_WITHIN, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise CouldNotRun(f"npm could not install the reference SDK: {error}") from error
    mark.write_text(wanted)


_SERVE = _python("ours", "serve")

FLOOR = Subject(
    "floor",
    "floor: bare paho-mqtt, NODELAY and QUICKACK",
    _python("paho_threads", "serve", "floor"),
    _python("paho_threads", "call", "floor"),
    lacks="validate, deduplicate, survive",
)
OURS = Subject("client", "ours: `ToolClient.call`", _SERVE, _python("ours", "client"))
SUBJECTS = [
    FLOOR,
    Subject(
        "paho",
        "bare paho-mqtt, default settings",
        _python("paho_threads", "serve", "plain"),
        _python("paho_threads", "call", "plain"),
        lacks="validate, deduplicate, survive",
    ),
    Subject(
        "aiomqtt",
        "aiomqtt, default settings",
        _python("aiomqtt_plain", "serve"),
        _python("aiomqtt_plain", "call"),
        lacks="validate, deduplicate, survive (a message is acknowledged before its work)",
        prepare=_needs("aiomqtt"),
    ),
    Subject(
        "reference",
        "reference Node SDK on mqtt.js",
        (_node(), "peers/reference/server.mjs"),
        (_node(), "peers/reference/client.mjs"),
        lacks="deduplicate, survive (a message is acknowledged before its work)",
        prepare=_install_reference,
    ),
    Subject(
        "mcp",
        "MCP streamable HTTP, official SDK",
        _python("mcp_http", "serve"),
        _python("mcp_http", "call"),
        broker=None,
        lacks="acknowledge, deduplicate, survive",
        prepare=_needs("mcp"),
        at_once=WITH_32,
    ),
    Subject(
        "mcp-direct",
        "MCP over standard input, official SDK",
        _python("mcp_stdio", "nothing"),
        _python("mcp_stdio", "direct"),
        broker=None,
        prepare=_needs("mcp"),
        at_once=WITH_32,
    ),
    Subject(
        "mcp-bridge",
        "ours: this MCP server behind `mqtt-agent bridge`",
        _python("mcp_stdio", "bridge"),
        _python("mcp_stdio", "call"),
        prepare=_needs("mcp_mqtt_agent"),
        at_once=WITH_32,
    ),
    Subject(
        "nats",
        "nats-py request-reply",
        _python("nats_core", "serve"),
        _python("nats_core", "call"),
        broker=nats_server,
        lacks="acknowledge (a message for a server that is away is dropped), validate, deduplicate, survive",
        prepare=_needs("nats"),
    ),
    Subject(
        "grpc",
        "grpc.aio, unary",
        _python("grpc_calls", "serve"),
        _python("grpc_calls", "call"),
        broker=None,
        lacks="acknowledge (there is no broker), deduplicate, survive; it validates types, and no JSON Schema",
        prepare=_needs("grpc", "google.protobuf"),
    ),
    OURS,
    Subject(
        "signed",
        "ours: signed `ToolClient.call`",
        _python("ours", "serve-signed"),
        _python("ours", "client-signed"),
        prepare=_needs("nacl"),
    ),
    Subject(
        "uvloop",
        "ours: `ToolClient.call` on uvloop",
        _python("ours", "serve-uvloop"),
        _python("ours", "client-uvloop"),
        prepare=_needs("uvloop"),
    ),
    Subject("facade", "ours: `sync.ToolClient.call`", _SERVE, _python("ours", "facade")),
    Subject(
        "structured",
        "LangChain's floor: `StructuredTool` around `ToolClient.call`",
        _SERVE,
        _python("ours", "structured"),
    ),
    Subject("ainvoke", "ours: LangChain `ainvoke`", _SERVE, _python("ours", "ainvoke")),
    Subject("invoke", "ours: LangChain `invoke`", _SERVE, _python("ours", "invoke")),
    Subject(
        "a2a",
        "task: a2a-over-mqtt, default settings",
        _python("a2a_mqtt", "serve"),
        _python("a2a_mqtt", "call"),
        lacks="deduplicate, survive",
        prepare=_needs("a2a_over_mqtt"),
    ),
    Subject(
        "request",
        "task, ours: `Agent.request`",
        _python("agents", "serve"),
        _python("agents", "request"),
    ),
    Subject("delegate", "task, ours: durable `delegate`", _python("agents", "serve"), _python("agents", "delegate")),
    Subject(
        "signed-delegate",
        "task, ours: signed durable `delegate`",
        _python("agents", "serve-signed"),
        _python("agents", "delegate-signed"),
        prepare=_needs("nacl"),
    ),
    Subject(
        "a2a-gateway",
        "task, ours: A2A over HTTP through `mqtt-agent a2a serve`",
        _python("a2a_http", "gateway"),
        _python("a2a_http", "call-gateway"),
        prepare=_needs("a2a_mqtt_agent"),
    ),
    Subject(
        "a2a-sdk",
        "task: A2A over HTTP, a2a-sdk alone with its store in SQLite",
        _python("a2a_http", "sdk"),
        _python("a2a_http", "call"),
        broker=None,
        lacks="acknowledge (there is no broker), deduplicate, survive (a task that was begun is not gone on with)",
        prepare=_needs("a2a", "sqlalchemy", "aiosqlite"),
    ),
    Subject(
        "jetstream",
        "task: NATS JetStream work queue",
        _python("nats_tasks", "serve"),
        _python("nats_tasks", "call"),
        broker=nats_server,
        lacks="validate, deduplicate (only messages within two minutes), survive a power failure within two minutes "
        "(the files are synced at that interval); results are a stream of the application",
        prepare=_needs("nats"),
    ),
    Subject(
        "dbos-direct",
        "task: DBOS on SQLite, started directly",
        _python("dbos_tasks", "idle", "default"),
        _python("dbos_tasks", "direct", "default"),
        broker=None,
        lacks="run at another process; validate",
        prepare=_needs("dbos"),
    ),
    Subject(
        "dbos",
        "task: DBOS on SQLite, through a queue",
        _python("dbos_tasks", "serve", "default"),
        _python("dbos_tasks", "call", "default"),
        broker=None,
        lacks="validate",
        prepare=_needs("dbos"),
    ),
    Subject(
        "celery",
        "task: Celery with Redis",
        _python("celery_tasks", "serve", "threads"),
        _python("celery_tasks", "call", "threads"),
        broker=redis_server,
        lacks="validate, deduplicate, survive (Redis saves its data at intervals)",
        prepare=_needs("celery", "redis"),
    ),
]
