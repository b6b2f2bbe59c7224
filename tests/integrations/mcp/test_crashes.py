"""SIGKILL of each process between an MCP client and an MCP server, in the middle of what the client waits for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from brokers import Mosquitto, free_port
from cli.terminal import Running, Terminal
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.session import ClientSession
from mcp_types import CallToolResult
from mqtt_agent import ToolClient
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.errors import ToolUnavailable
from support import becomes, soon, until

from .conftest import SERVERS, shows_some
from .test_tasks import ask

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

ENDS_WITHIN = 60
"""Seconds that a client may wait for the end of what a crash has interrupted. The machine may be busy."""


@dataclass(frozen=True)
class Kind:
    """A kind of MCP client: the protocol that it speaks, and how it reaches its face."""

    mode: str
    http: bool

    @property
    def modern(self) -> bool:
        return self.mode == "auto"


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


class Chain:
    """Bridges, an MCP server behind each of them, and faces, as processes of one folder with a broker."""

    def __init__(self, folder: Path, broker: Mosquitto, namespace: str) -> None:
        self.folder, self.broker, self.namespace = folder, broker, namespace
        self.terminal = Terminal(folder, broker.url, namespace)
        self.faces: list[int] = []
        self.hold = folder / "hold"

    def bridge(self, *options: str) -> Running:
        server = [sys.executable, str(SERVERS / "crash_server.py"), str(self.folder)]
        running = self.terminal.start("bridge", "--name", "crash", *options, "--", *server)
        running.says("crash serves 4 tools")
        return running

    def processes(self, what: str) -> list[psutil.Process]:
        """The living processes of this chain whose second word on the command line ends like this."""
        found = list[psutil.Process]()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if str(self.folder) in words and what in words[1] and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    @property
    def servers(self) -> list[psutil.Process]:
        return self.processes("crash_server.py")

    @asynccontextmanager
    async def client(self, kind: Kind) -> AsyncIterator[ClientSession]:
        """An MCP client with a face of its own, which sees the tools."""
        told = self.folder / f"face-{len(self.faces)}"
        command = f"echo $$ > {told}; exec {sys.executable} -m mqtt_agent.cli mcp"
        face: Any = StdioServerParameters(command="sh", args=["-c", command], env=self.terminal.environment)
        served: Running | None = None
        if kind.http:
            port = free_port()
            served = self.terminal.start("mcp", "--http", str(port))
            told.write_text(str(served.pid))
            await becomes(lambda: _listens(port), 60)
            face = f"http://127.0.0.1:{port}/mcp"
        try:
            async with Client(face, mode=kind.mode) as client:
                self.faces.append(int(told.read_text()))

                async def sees_it() -> bool:
                    return model_name("crash.job") in {tool.name for tool in (await client.list_tools()).tools}

                await becomes(sees_it, 30)
                yield client.session
        finally:
            if served is not None:
                await asyncio.to_thread(served.kill)

    async def begun(self, what: str) -> int:
        """Wait until a server has begun with this. Returns its process id."""
        path = self.folder / f"begun-{what}"
        await until(lambda: path.exists() and path.read_text(), 30)
        return int(path.read_text())

    async def nothing_is_left(self) -> None:
        await until(lambda: not self.processes("") and not any(map(psutil.pid_exists, self.faces)), 30)


@pytest.fixture
def chain(tmp_path: Path, make_mosquitto: Any, namespace: str) -> Iterator[Chain]:
    chain = Chain(tmp_path, make_mosquitto().start(), namespace)
    yield chain
    chain.terminal.close()


async def call(session: ClientSession, tool: str) -> CallToolResult:
    result = await session.call_tool(model_name(f"crash.{tool}"), {})
    assert isinstance(result, CallToolResult)
    return result


async def works(session: ClientSession, chain: Chain) -> None:
    """Calls, lists and tasks give results again, and one server runs."""

    async def does() -> bool:
        with contextlib.suppress(MCPError):
            tools = {tool.name for tool in (await soon(session.list_tools(), 30)).tools}
            assert tools  # an empty list would say that there are no tools at all
            if len(tools) == 4 and not (await soon(call(session, "work"), 30)).is_error:
                return [each.uri for each in (await soon(session.list_resources(), 30)).resources] == ["note://first"]
        return False

    await becomes(does, ENDS_WITHIN)
    done = await end_of_task(session, await begin_task(session))
    [server] = chain.servers
    assert done["content"][0]["text"] == str(server.pid)


async def begin_task(session: ClientSession) -> str:
    """Call a tool as a task, as the client's protocol has it. Returns the id of the task."""
    modern = session.protocol_version == "2026-07-28"
    asked: dict[str, Any] = {"name": model_name("crash.job"), "arguments": {}}
    made = await ask(session, "tools/call", **(asked if modern else {**asked, "task": {}}))
    return str((made if modern else made["task"])["taskId"])


async def end_of_task(session: ClientSession, task_id: str) -> dict[str, Any]:
    """Wait for the result of a task: a client of 2025 in one request, one of 2026 by looking again and again."""
    if session.protocol_version != "2026-07-28":
        asked: dict[str, Any] = {"method": "tasks/result", "params": {"taskId": task_id}}
        options: Any = {}
        session._stamp(asked, options)  # pyright: ignore[reportPrivateUsage]
        return await session._dispatcher.send_raw_request(  # pyright: ignore[reportPrivateUsage]
            "tasks/result", asked["params"], options
        )
    seen: dict[str, Any] = {}

    async def has_ended() -> bool:
        seen.update(await ask(session, "tasks/get", taskId=task_id))
        return bool(seen["status"] != "working")

    await becomes(has_ended, ENDS_WITHIN)
    return dict(seen.get("result") or seen)


async def begin(session: ClientSession, chain: Chain, moment: str) -> Sequence[asyncio.Future[Any]]:
    """Let the client wait for something that the server has begun."""
    if moment == "call":
        waiting: Sequence[Awaitable[Any]] = [call(session, "work"), call(session, "look")]
        begun = ["work", "look"]
    elif moment == "listing":
        chain.hold.touch()
        await soon(call(session, "change"), 30)  # the bridge asks for the tools again
        waiting, begun = [session.list_resources(), session.list_tools()], ["tools", "resources"]
    else:
        chain.hold.touch()
        waiting, begun = [end_of_task(session, await begin_task(session))], ["task"]
    chain.hold.touch()
    futures = [asyncio.ensure_future(each) for each in waiting]
    for what in begun:
        await chain.begun(what)
    return futures


@contextlib.contextmanager
def _may_end_with_its_face() -> Iterator[None]:
    """The SDK's client over HTTP may end as a whole, with the error of its connection."""
    try:
        yield
    except Exception as error:
        errors: list[Any] = [error]
        while groups := [each for each in errors if hasattr(each, "exceptions")]:
            errors = [each for each in errors if each not in groups] + [e for group in groups for e in group.exceptions]
        if not all(isinstance(each, httpx2.TransportError) for each in errors):
            raise


def is_told(outcome: Any) -> bool:
    """Whether the end of a request is a result, or an error with words. No list is empty: every server has entries."""
    if isinstance(outcome, BaseException):
        return isinstance(outcome, MCPError) and bool(str(outcome))
    return bool(getattr(outcome, "tools", True) and getattr(outcome, "resources", True))


KINDS = {
    f"{'http' if http else 'stdio'}-{year}": Kind(mode, http)
    for http in (False, True)
    for year, mode in (("2025", "legacy"), ("2026", "auto"))
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("moment", ["call", "listing", "task"])
@pytest.mark.parametrize("victim", ["child", "bridge", "broker", "face"])
async def test_after_a_sigkill_no_client_hangs_everything_works_again_and_no_process_is_left(
    chain: Chain, kind: Kind, victim: str, moment: str
) -> None:
    bridge = chain.bridge()
    with _may_end_with_its_face() if victim == "face" and kind.http else contextlib.nullcontext():
        bridge = await crash(chain, bridge, kind, victim, moment)
    if victim == "face":
        async with chain.client(kind) as session:
            await works(session, chain)
    assert await asyncio.to_thread(bridge.interrupt) == 130
    await chain.nothing_is_left()


async def crash(chain: Chain, bridge: Running, kind: Kind, victim: str, moment: str) -> Running:
    """Kill a process while a client waits, and see what the client is told. Returns the bridge that runs then."""
    async with chain.client(kind) as session:
        assert (session.protocol_version == "2026-07-28") is kind.modern
        waiting = await begin(session, chain, moment)
        if victim == "child":
            chain.servers[0].kill()
        elif victim == "bridge":
            bridge.kill()
        elif victim == "broker":
            chain.broker.kill()
        else:
            os.kill(chain.faces[0], signal.SIGKILL)
        chain.hold.unlink()
        if victim == "bridge":
            bridge = await asyncio.to_thread(chain.bridge)
        elif victim == "broker":
            await asyncio.to_thread(chain.broker.start)
        outcomes: list[Any] = await soon(asyncio.gather(*waiting, return_exceptions=True), ENDS_WITHIN)
        assert all(map(is_told, outcomes)), outcomes
        if (victim, moment) == ("child", "listing"):  # a bridge asks the next server for what only reads
            assert [each.uri for each in outcomes[0].resources] == ["note://first"]
        if victim != "face":
            await works(session, chain)
    return bridge


async def test_replicas_of_a_bridge_spread_the_calls_and_a_killed_one_costs_a_reading_call_only_seconds(
    chain: Chain,
) -> None:
    bridges = [chain.bridge("--replica", name) for name in ("one", "two")]
    async with ToolClient("caller", broker=chain.broker.url, namespace=chain.namespace) as client:
        await shows_some(client, "crash.look")
        servers = {str(process.pid) for process in chain.servers}

        async def both_answer() -> bool:
            return {await client.call("crash.look") for _ in range(20)} == servers

        await becomes(both_answer, 30)
        chain.hold.touch()
        reading = await soon(client.submit("crash.look"))
        busy = await chain.begun("look")
        for number, bridge in enumerate(bridges):
            if busy in {each.pid for each in psutil.Process(bridge.pid).children(recursive=True)}:
                bridges.pop(number).kill()
                break
        chain.hold.unlink()
        [other] = servers - {str(busy)}
        assert await soon(reading.result(), 20) == other
    assert await asyncio.to_thread(bridges[0].interrupt) == 130
    await chain.nothing_is_left()


@pytest.mark.timeout(900)
async def test_after_200_restarts_of_an_mcp_server_no_process_and_no_open_file_is_left(chain: Chain) -> None:
    bridge = chain.bridge()
    process = psutil.Process(bridge.pid)
    ended = set[int]()
    async with ToolClient("caller", broker=chain.broker.url, namespace=chain.namespace) as client:

        async def answers() -> bool:
            with contextlib.suppress(ToolUnavailable):
                return int(await client.call("crash.look", wait_online=True)) not in ended
            return False

        await becomes(answers, 30)
        children, files = len(process.children(recursive=True)), process.num_fds()
        for _ in range(200):
            [server] = chain.servers
            ended.add(server.pid)
            server.kill()
            await becomes(answers, 60)
        assert len(ended) == 200
        await until(lambda: len(process.children(recursive=True)) == children, 30)
        await until(lambda: process.num_fds() <= files, 30)
    assert await asyncio.to_thread(bridge.interrupt) == 130
    await chain.nothing_is_left()
