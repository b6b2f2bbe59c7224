"""Each process between an A2A client and an agent is killed, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Thread
from typing import Any

import httpx
import pytest
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import InvalidParamsError
from brokers import Broker, die_with_parent, free_port
from cli.terminal import Running, Terminal
from databases import shared_postgres
from google.protobuf.json_format import MessageToDict
from mqtt_agent import Agent, MemoryStore, SqliteStore
from support import becomes, kill, soon, until

from .conftest import MakeGateway, events, said

WORKER = Path(__file__).parent / "programs" / "worker.py"
V1 = {"A2A-Version": "1.0"}


class Hook:
    """An HTTP server that keeps what it is told. It refuses everything while ``broken``."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, str], Any]] = []
        self.broken = False
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(503 if hook.broken else 200)
                self.end_headers()
                if not hook.broken:
                    hook.told.append((dict(self.headers), json.loads(body)))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def states(self) -> list[str]:
        found = [each.get("statusUpdate", each.get("task", {})) for _, each in self.told]
        return [each["status"]["state"] for each in found if "status" in each]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


@pytest.fixture
def start_worker(terminal: Terminal, embedded: Broker, namespace: str) -> Iterator[Callable[[], Popen[bytes]]]:
    """Starts the agent in a process of its own."""
    started: list[Popen[bytes]] = []

    def start() -> Popen[bytes]:
        command = [sys.executable, str(WORKER), embedded.url, namespace, str(terminal.home / "worker.db")]
        process = Popen(command, stdout=PIPE, preexec_fn=die_with_parent)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        kill(process)


class Front:
    """The verb ``a2a serve`` in a process of its own, at one port, and an HTTP client."""

    def __init__(self, terminal: Terminal, store: str | None) -> None:
        self._terminal = terminal
        self._store = () if store is None else ("--store", store)
        self._port = free_port()
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}/agents/worker", headers=V1, timeout=30)
        self.running: Running | None = None

    async def start(self) -> None:
        words = ("a2a", "serve", "--port", str(self._port), "--allow-private-push", *self._store)
        self.running = self._terminal.start(*words)
        await asyncio.to_thread(self.running.says, "serves A2A clients")

        async def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await self.http.get("/.well-known/agent-card.json")).status_code == 200
            return False

        await becomes(answers, 30)

    def kill(self) -> None:
        assert self.running is not None
        self.running.kill()

    async def send(self, request: Any) -> Any:
        answer = await self.http.post("/message:send", json=MessageToDict(request))
        assert answer.status_code == 200, answer.text
        return answer.json()["task"]

    async def get(self, task: Any) -> Any:
        return (await self.http.get(f"/tasks/{task['id']}")).json()

    async def reaches(self, task: Any, state: str) -> Any:
        async def reached() -> bool:
            return (await self.get(task))["status"]["state"] == f"TASK_STATE_{state}"

        await becomes(reached, 30)
        return await self.get(task)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
async def front(request: pytest.FixtureRequest, terminal: Terminal) -> AsyncIterator[Front]:
    front = Front(terminal, shared_postgres().new_database() if request.param == "postgresql" else None)
    yield front
    await front.http.aclose()


def at_once(request: Any) -> Any:
    request.configuration.return_immediately = True
    return request


@pytest.mark.timeout(240)
async def test_a_gateway_that_is_killed_finds_its_tasks_its_questions_and_its_push_addresses(
    front: Front, start_worker: Callable[[], Popen[bytes]], hook: Hook
) -> None:
    start_worker()
    await front.start()
    hook.broken = True
    asked = await front.send(said("ask"))
    slow = await front.send(at_once(said("slow 1")))
    request = said("files", {"data": [42]})
    request.configuration.task_push_notification_config.url = hook.url
    request.configuration.task_push_notification_config.token = "the-token"
    done = await front.send(request)
    assert asked["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    front.kill()  # the address does not know the end yet
    hook.broken = False
    await front.start()
    assert await front.get(done) == done
    await until(lambda: "TASK_STATE_COMPLETED" in hook.states, 30)
    assert hook.told[-1][0]["X-A2A-Notification-Token"] == "the-token"
    configs = (await front.http.get(f"/tasks/{done['id']}/pushNotificationConfigs")).json()["configs"]
    assert [each["url"] for each in configs] == [hook.url]
    assert (await front.reaches(slow, "COMPLETED"))["artifacts"][-1]["parts"] == [{"text": "late"}]
    again = await front.reaches(asked, "INPUT_REQUIRED")
    assert again["history"] == asked["history"]
    task = a2a.Task(id=asked["id"], context_id=asked["contextId"])
    answered = await front.send(said(None, {"data": 2024}, task=task))
    assert answered["artifacts"][0]["parts"][0]["data"]["year"] == 2024


@pytest.mark.long
async def test_an_agent_that_is_killed_goes_on_with_its_task_and_the_client_sees_the_end(
    front: Front, start_worker: Callable[[], Popen[bytes]]
) -> None:
    worker = start_worker()
    await front.start()
    slow, asked = await front.send(at_once(said("slow 1"))), await front.send(said("ask"))
    kill(worker)
    start_worker()
    await front.reaches(slow, "COMPLETED")
    task = a2a.Task(id=asked["id"], context_id=asked["contextId"])
    answered = await front.send(said(None, {"data": 2024}, task=task))
    assert answered["artifacts"][0]["parts"][0]["data"] == {"year": 2024, "attempt": 2}


@pytest.mark.long
async def test_a_message_that_was_not_answered_because_the_gateway_died_is_sent_again_and_runs_once(
    front: Front, start_worker: Callable[[], Popen[bytes]]
) -> None:
    start_worker()
    await front.start()
    request = said("slow 2")
    waiting = asyncio.ensure_future(front.send(request))

    async def given() -> bool:
        return (await front.http.get("/tasks")).json()["totalSize"] == 1

    await becomes(given, 30)
    front.kill()
    with pytest.raises(httpx.TransportError):
        await waiting
    await front.start()
    task = await front.send(request)
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert (await front.http.get("/tasks")).json()["totalSize"] == 1


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_each_process_of_a_chain_is_killed_and_the_question_is_still_answered(
    front: Front, start_worker: Callable[[], Popen[bytes]], terminal: Terminal, embedded: Broker, namespace: str
) -> None:
    near = f"{namespace}-near"

    async def join() -> Running:
        words = ("a2a", "join", str(front.http.base_url), "--agent-id", "helper", "--namespace", near)
        joined = terminal.start(*words)
        await asyncio.to_thread(joined.says, "helper does tasks at")
        return joined

    worker = start_worker()
    await front.start()
    joined = await join()
    store = SqliteStore(terminal.home / "planner.db")
    options: dict[str, Any] = {"broker": embedded.url, "namespace": near, "store": store, "will_delay": 1}
    async with Agent("planner", **options) as planner:
        handle = await planner.delegate("helper", "ask", wait_online=True)
        async for _ in handle.events():
            if handle.question is not None:
                break
        assert handle.question is not None
        assert handle.question.content == "Which year?"
        front.kill()
        kill(worker)
        joined.kill()
        start_worker()
        await front.start()
    async with Agent("planner", **options) as planner:  # the requester was restarted too
        await join()
        handle = await planner.resume(handle.task_id)
        async for _ in handle.events():
            if handle.question is not None:
                break
        await handle.send(2024)
        assert await soon(handle.result(), 60) == {"year": 2024, "attempt": 2}
    assert (await front.http.get("/tasks")).json()["totalSize"] == 1


async def test_push_notifications_do_not_go_to_private_addresses(worker: Agent, make_gateway: MakeGateway) -> None:
    client = await (await make_gateway(store=MemoryStore())).client()
    task = next(each.task for each in await soon(events(client, said("hello")), 30) if each.HasField("task"))
    for url in ("http://127.0.0.1:1/x", "http://[::1]/x", "http://169.254.169.254/", "http://10.0.0.1/", "file:///etc"):
        with pytest.raises(InvalidParamsError):
            await client.create_task_push_notification_config(a2a.TaskPushNotificationConfig(task_id=task.id, url=url))
