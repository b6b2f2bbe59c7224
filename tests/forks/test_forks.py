"""A process that forks: the child has endpoints of its own, and the parent goes on as if nothing had happened."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from brokers import Broker, Embedded, free_port
from databases import shared_postgres
from mqtt_agent import Agent, MemoryStore, TaskContext, ToolContext, ToolServer
from skips import inapplicable
from support import becomes, soon, until

LONG_ON = [Embedded]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")

PROGRAM = Path(__file__).parents[1] / "programs" / "forks.py"
AT_ONCE = 3.0
"""Seconds. The calls of the scenarios have timeouts of 5 s and more."""


class Program:
    """A run of programs/forks.py."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.process = process
        self._errors = errors

    async def tells(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await soon(self.process.stdout.readline(), 60)
        assert line, self._errors.read_text()
        return json.loads(line)

    async def ends(self) -> str:
        """Wait for the end of the program. Returns what it wrote to its standard error."""
        assert await soon(self.process.wait(), 20) == 0, self._errors.read_text()
        return self._errors.read_text()


Begin = Callable[..., Any]


@pytest.fixture
async def begin(broker: Broker, namespace: str, tmp_path: Path) -> AsyncIterator[Begin]:
    """Starts scenarios. A tool server and the agent ``helper`` are online, in the process of the test."""
    started: list[asyncio.subprocess.Process] = []
    server = ToolServer("here", broker=broker.url, namespace=namespace)
    helper = Agent("helper", broker=broker.url, namespace=namespace, store=MemoryStore(), drain_timeout=0)

    @server.tool
    async def whoami(context: ToolContext) -> str:
        return context.client

    callers: list[str] = []
    both_here = asyncio.Event()

    @server.tool
    async def both(context: ToolContext) -> list[str]:
        """Wait for two callers, and return their names."""
        callers.append(context.client)
        if len(callers) == 2:
            both_here.set()
        await both_here.wait()
        return callers

    @server.tool
    async def hang() -> None:
        await asyncio.Event().wait()

    @helper.on_task
    async def answer(task: TaskContext) -> str:
        if task.prompt == "wait":
            await asyncio.Event().wait()
        return f"{task.prompt} of {task.sender}"

    async def start(scenario: str) -> Program:
        errors = tmp_path / "errors"
        # Python warns about a fork in a process with threads, which is what these tests are about.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", str(PROGRAM)]
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
        with errors.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *[*command, scenario, broker.url, namespace, str(tmp_path / "stores")],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        started.append(process)
        return Program(process, errors)

    async with server, helper:
        yield start
        for process in started:
            assert process.stdin is not None
            process.stdin.close()  # ends a child that waits for it
            if process.returncode is None:
                process.kill()
            await soon(process.wait())
            assert process.stdout is not None
            await soon(process.stdout.read())  # a child that lives on has a copy of the pipe


@pytest.fixture
async def observer(broker: Broker, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("observer", broker=broker.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


def inherited(outcome: dict[str, Any]) -> bool:
    """Whether a use of an inherited endpoint failed immediately, and said what to do."""
    return (
        outcome.get("error") == "ConnectedBeforeFork"
        and "before os.fork()" in outcome["text"]
        and "in the child" in outcome["text"]
        and outcome["seconds"] < AT_ONCE
    )


def ended(outcome: dict[str, Any]) -> bool:
    """Whether a child ended as any program does. A child that hangs is killed."""
    return outcome["exit"] == 0


async def test_a_connected_client_fails_at_once_in_the_child_and_goes_on_in_the_parent(begin: Begin) -> None:
    program = await begin("connected_client")
    told = await program.tells()
    *uses, stop, new, end = told["child"]
    assert [each for each in uses if not inherited(each)] == []
    assert stop["value"] is None
    assert new["value"].startswith("client-")
    assert ended(end)
    assert (told["parent"], told["epoch"]) == ("caller", 1)
    assert await program.ends() == ""


async def test_a_connected_agent_fails_at_once_in_the_child_and_goes_on_in_the_parent(
    begin: Begin, observer: Agent
) -> None:
    seen: list[str] = []

    async def watch() -> None:
        async for change in observer.watch_peers():
            if change.name == "parent":
                seen.append(change.kind)

    watching = asyncio.create_task(watch())
    program = await begin("connected_agent")
    told = await program.tells()
    request, result, peers, stop, another, same_store, end = told["child"]
    assert [each for each in (request, result, peers) if not inherited(each)] == []
    assert stop["value"] is None
    assert another["value"] == "x of child"
    assert same_store["error"] == "StoreError"
    assert "before os.fork()" in same_store["text"]
    assert ended(end)
    assert (told["parent"], told["epoch"]) == ("x of parent", 1)
    assert await program.ends() == ""
    await until(lambda: "offline" in seen)
    watching.cancel()
    assert [each for each in seen if each != "changed"] == ["online", "offline"]


async def test_connected_async_endpoints_fail_at_once_in_the_child_and_go_on_in_the_parent(begin: Begin) -> None:
    program = await begin("connected_async")
    told = await program.tells()
    assert [each for each in told["child"] if not inherited(each)] == []
    assert [each["value"] for each in told["stopped"]] == [None, None]
    assert told["new"]["value"].startswith("client-")
    assert ended(told["end"])
    assert told["parent"][0] == "x of parent"
    assert told["epochs"] == [1, 1]
    await program.ends()


@pytest.mark.parametrize("scenario", ["lazy_client", "lazy_async"])
async def test_two_children_of_a_client_that_was_not_started_have_names_of_their_own(
    begin: Begin, scenario: str
) -> None:
    told = await (await begin(scenario)).tells()
    names = {told["parent"]}
    for child in told["children"]:
        name, agent_id, client_id, epoch = child["value"]
        assert name == agent_id
        assert client_id.startswith(f"{agent_id}~")
        assert epoch == 1  # nobody has thrown it out
        names.add(name)
    assert len(names) == 3


async def test_two_children_of_a_client_that_was_stopped_have_names_of_their_own(begin: Begin) -> None:
    told = await (await begin("stopped_client")).tells()
    assert len({told["parent"], *(child["value"] for child in told["children"])}) == 3
    assert told["again"] == told["parent"]


async def test_two_children_of_a_server_that_was_not_started_are_two_replicas(begin: Begin) -> None:
    told = await (await begin("lazy_server")).tells()
    ids = sorted(child["value"][0] for child in told["children"])
    assert len({*ids, told["parent"]}) == 3
    for child in told["children"]:
        server_id, client_id, listed = child["value"]
        assert client_id == server_id
        assert listed == ids


async def test_of_two_children_with_one_agent_id_the_first_is_told_that_another_process_has_it(begin: Begin) -> None:
    told = await (await begin("one_agent_id")).tells()
    [lost] = [child for child in told["children"] if "error" in child]
    [other] = [child for child in told["children"] if "value" in child]
    assert lost["error"] == "SessionTakenOver"
    assert "another process" in lost["text"]
    assert "an agent id of its own" in lost["text"]
    assert other["value"] == "x of one"


async def test_the_workers_of_a_pool_use_what_was_made_before_the_fork(begin: Begin) -> None:
    program = await begin("pool")
    told = await program.tells()
    workers = {agent_id: name for _, name, agent_id in told["answers"]}
    assert len(told["answers"]) == 8
    assert told["parent"] not in workers
    assert [answer for answer, _, agent_id in told["answers"]] == [
        f"{number} of {agent_id}" for number, (_, _, agent_id) in enumerate(told["answers"])
    ]
    await program.ends()


async def test_a_connected_requester_of_an_adapter_is_made_again_in_the_child(begin: Begin) -> None:
    program = await begin("connected_requester")
    told = await program.tells()
    use, new, close, again, end = told["child"]
    assert inherited(use)
    assert close["value"] is None
    assert len({told["first"], new["value"], again["value"]}) >= 2
    assert told["first"] not in (new["value"], again["value"])
    assert ended(end)
    assert told["parent"] == told["first"]
    assert await program.ends() == ""


async def test_the_name_of_a_program_belongs_to_the_parent_and_is_free_when_the_parent_ends(begin: Begin) -> None:
    program = await begin("program_identity")
    told = await program.tells()
    assert told["parent"][1]
    assert told["child"][0] != told["parent"][0]
    assert not told["child"][1]
    following = await program.tells()
    assert following["next"] == told["parent"]
    assert await program.ends() == ""


async def test_a_parent_that_is_killed_is_offline_although_its_child_lives(begin: Begin, observer: Agent) -> None:
    program = await begin("killed_parent")
    told = await program.tells()

    async def online() -> bool:
        return "parent" in {card.name for card in await observer.peers()}

    async def offline() -> bool:
        return not await online()

    await becomes(online)
    program.process.kill()
    await becomes(offline)
    os.kill(told["child"], 0)  # raises when there is no such process


async def test_a_signal_to_a_child_of_a_served_agent_ends_the_child_only(begin: Begin, observer: Agent) -> None:
    await begin("served_signals")
    for _ in range(2):
        assert await soon(observer.request("parent", "fork", wait_online=True), 20) == -15


async def test_a_child_that_ends_leaves_the_embedded_broker_to_its_parent(begin: Begin, broker: Broker) -> None:
    if not isinstance(broker, Embedded):
        inapplicable("one broker is enough")
    program = await begin("embedded_broker")
    told = await program.tells()
    assert ended(told["child"][-1])
    assert told["pid"]
    assert await program.tells() == {"connected": True}
    assert await program.ends() == ""


async def test_a_child_can_use_sqlite_although_the_parent_was_writing_at_the_fork(begin: Begin, broker: Broker) -> None:
    if isinstance(broker, Embedded):
        inapplicable("one broker is enough")
    told = await (await begin("busy_stores")).tells()
    assert [each for each in told["children"] if "x of child-" not in str(each)] == []


async def test_two_children_of_a_langchain_toolkit_have_names_of_their_own(begin: Begin) -> None:
    pytest.importorskip("langchain_mqtt_agent")
    told = await (await begin("lazy_toolkit")).tells()
    names = list[str](told["parent"])
    for child in told["children"]:
        called, agent_ids = child["value"]
        assert called == agent_ids
        names += agent_ids
    assert len(set(names)) == len(names) == 6


async def test_the_tools_of_a_langchain_toolkit_that_was_closed_before_the_fork_work_in_the_children(
    begin: Begin,
) -> None:
    pytest.importorskip("langchain_mqtt_agent")
    told = await (await begin("closed_toolkit")).tells()
    [use, end] = told["open"]
    assert "before os.fork()" in json.dumps(use)
    assert use["seconds"] < AT_ONCE
    assert ended(end)
    assert len({child["value"] for child in told["children"]}) == 2


async def test_two_children_of_an_autogen_participant_have_conversations_of_their_own(begin: Begin) -> None:
    pytest.importorskip("autogen_mqtt_agent")
    told = await (await begin("autogen_conversations")).tells()
    assert len({told["parent"], *(child["value"] for child in told["children"])}) == 3


@pytest.mark.skipif(not find_spec("gunicorn"), reason="gunicorn is not installed")
async def test_the_workers_of_gunicorn_use_a_preloaded_application(
    begin: Begin, broker: Broker, namespace: str, tmp_path: Path
) -> None:
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", "--preload", "--workers", "2"]
    with log.open("wb") as output:
        server = await asyncio.create_subprocess_exec(
            *[*command, "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "20", "preloaded:application"],
            cwd=PROGRAM.parent,
            env={**os.environ, "MQTT_AGENT_BROKER": broker.url, "NAMESPACE": namespace},
            stdout=output,
            stderr=output,
        )

    async def get(path: str) -> Any:
        def read() -> bytes:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as answer:
                return answer.read()

        return json.loads(await soon(asyncio.to_thread(read), 30))

    try:
        await until(lambda: log.read_text().count("Booting worker") == 2, 30)
        one, other = await asyncio.gather(get("lazy"), get("lazy"))
        assert one["pid"] != other["pid"]
        assert one["value"] == other["value"] == sorted({*one["value"], *other["value"]}, key=one["value"].index)
        assert len(set(one["value"])) == 2
        assert one["master"] not in one["value"]
        assert inherited(await get("connected"))
        server.terminate()
        assert await soon(server.wait(), 15) == 0
        assert "TIMEOUT" not in log.read_text()
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


@pytest.mark.long
@pytest.mark.skipif(not find_spec("gunicorn"), reason="gunicorn is not installed")
async def test_the_workers_of_gunicorn_are_one_pool_that_is_recycled_and_ends_in_order(
    broker: Broker, namespace: str, tmp_path: Path
) -> None:
    url, port, log = shared_postgres().new_database(), free_port(), tmp_path / "log"
    writer = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore())
    begun = asyncio.Event()

    @writer.on_task
    async def work(task: TaskContext) -> str:
        if task.prompt == "slow":
            begun.set()
            await asyncio.sleep(1)  # longer than the server takes to tell its workers to end
        return f"a text about {task.prompt}"

    await soon(writer.start())
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "gunicorn", "--preload", "--workers", "3"]
    command += ["--threads", "4", "--max-requests", "6", "--graceful-timeout", "20", "--bind", f"127.0.0.1:{port}"]
    with log.open("wb") as output:
        server = await asyncio.create_subprocess_exec(
            *[*command, "pool_web:application"],
            cwd=PROGRAM.parent,
            env={**os.environ, "MQTT_AGENT_BROKER": broker.url, "NAMESPACE": namespace, "DATABASE": url},
            stdout=output,
            stderr=output,
        )

    def read(path: str) -> Any:
        deadline = time.monotonic() + 40
        while True:  # a worker that is about to end may refuse a connection
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=40) as answer:
                    return json.loads(answer.read())
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def members() -> int:
        with psycopg.connect(url) as sql:
            [(count,)] = sql.execute("SELECT count(*) FROM mqtt_agent.members").fetchall()
            return count

    try:
        await until(lambda: log.read_text().count("Booting worker") == 3, 30)
        answers: list[Any] = []
        for start in range(0, 40, 8):
            some = [asyncio.to_thread(read, str(number)) for number in range(start, start + 8)]
            answers += await soon(asyncio.gather(*some), 60)
        assert [each["value"] for each in answers] == [f"a text about {number}" for number in range(40)]
        assert len({each["process"] for each in answers}) > 3
        slow = asyncio.ensure_future(asyncio.to_thread(read, "slow"))
        await soon(begun.wait(), 30)
        server.terminate()
        assert (await soon(slow, 30))["value"] == "a text about slow"
        assert await soon(server.wait(), 30) == 0
        assert await asyncio.to_thread(members) == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
        await soon(writer.stop())
