"""Agents of a namespace as tools of MCP clients, in both protocols, and with the extension for tasks."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from brokers import Broker
from cli.terminal import Terminal
from mcp import Client, MCPError, StdioServerParameters
from mcp.client import ClientExtension
from mcp.client.extension import ResultClaim
from mcp_mqtt_agent import Face
from mcp_mqtt_agent.agent_results import result_of
from mcp_types import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    ElicitRequestParams,
    ElicitResult,
    Request,
    RequestParams,
    Result,
    ToolListChangedNotification,
)
from mqtt_agent import Agent, MemoryStore, TaskContext
from mqtt_agent.adapting.bearers import SPEAKS_FOR_OTHERS
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.agents.store import TaskStore
from mqtt_agent.errors import TaskFailed
from mqtt_agent.wire import Part, TaskMessage, TaskResult
from support import becomes, soon

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])
WORKER = model_name("agent/worker")
TASKS = "io.modelcontextprotocol/tasks"


class Worker:
    """An agent whose handler does what the first word of the prompt says."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.canceled = asyncio.Event()
        agent.on_task(self.work)

    async def work(self, task: TaskContext) -> Any:
        word = (task.prompt or "").partition(" ")[0]
        if word == "ask":
            year = await task.ask("Which year?", {"type": "integer", "minimum": 2000})
            place = await task.ask("Where to?", {"type": "object", "properties": {"city": {"type": "string"}}})
            return {"year": year, "place": place, "context": task.context_id}
        if word == "files":
            image = Part.of_bytes(b"PNG", media_type="image/png")
            await task.artifact("map", parts=[image, Part(url="https://maps.example/a.pdf"), Part(data={"n": 1})])
            return TaskMessage(role="agent", content="Here they are.")
        if word == "fail":
            raise TaskFailed("no disk", data={"free": 0})
        if word == "hang":
            try:
                await task.progress(1, 3, "begun")
                await asyncio.Event().wait()
            finally:
                self.canceled.set()
        await task.progress(1, 2, "thinking")
        return {"prompt": task.prompt, "data": task.data, "sender": task.sender}


@pytest.fixture
async def worker(mosquitto: Broker, namespace: str) -> AsyncIterator[Worker]:
    agent = Agent(
        "worker",
        broker=mosquitto.url,
        namespace=namespace,
        store=MemoryStore(),
        description="Works.",
        will_delay=1,
        drain_timeout=0,
    )
    worker = Worker(agent)
    async with agent:
        yield worker


@pytest.fixture
def make_speaker(mosquitto: Broker, namespace: str) -> Callable[..., Agent]:
    def make(name: str = "claude", store: TaskStore | None = None) -> Agent:
        store = store or MemoryStore()
        meta = {SPEAKS_FOR_OTHERS: True}
        return Agent(name, broker=mosquitto.url, namespace=namespace, store=store, meta=meta, will_delay=1)

    return make


@pytest.fixture
async def face(make_speaker: Callable[..., Agent], worker: Worker) -> AsyncIterator[Face]:
    async with make_speaker() as speaker:
        face = Face(speaker)
        async with face.live():
            yield face


async def call(client: Client, prompt: str, **more: Any) -> CallToolResult:
    return await soon(client.call_tool(WORKER, {"prompt": prompt, **more}), 20)


async def answers(context: Any, params: ElicitRequestParams) -> ElicitResult:
    """Answer the questions of the worker: first with a year that the worker refuses."""
    if params.message == "Which year?":
        return ElicitResult(action="accept", content={"answer": 7})
    if params.message.startswith("Which year?\n("):
        return ElicitResult(action="accept", content={"answer": 2024})
    assert params.message == "Where to?"
    return ElicitResult(action="accept", content={"city": "Oslo"})


async def declines(context: Any, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="decline")


def text_of(result: CallToolResult) -> str:
    assert result.content[0].type == "text"
    return result.content[0].text


@MODES
async def test_an_agent_is_a_tool_with_progress_blocks_and_errors(
    face: Face, make_speaker: Callable[..., Agent], mode: str
) -> None:
    async with make_speaker("other"), Client(face.server, mode=mode) as client:
        tools = {tool.name: tool for tool in (await soon(client.list_tools())).tools}
        assert list(tools) == [WORKER]  # not the agents that speak for others
        assert tools[WORKER].description == "Give a task to the agent worker.\nWorks."
        heard: list[Any] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append((progress, total, message))

        arguments = {"prompt": "say", "data": [1]}
        said = await soon(client.call_tool(WORKER, arguments, progress_callback=hear), 20)
        assert said.structured_content == {"prompt": "say", "data": [1], "sender": "claude"}
        assert heard == [(1, 2, "thinking")]
        files = await call(client, "files")
        assert [block.type for block in files.content] == ["text", "image", "resource_link", "text"]
        assert (text_of(files), files.structured_content) == ("Here they are.", None)
        failed = await call(client, "fail")
        assert (failed.is_error, failed.structured_content) == (True, {"free": 0})
        assert text_of(failed).endswith("failed at worker: no disk")
        with pytest.raises(MCPError, match="a text as prompt"):
            await soon(client.call_tool(WORKER, {"task": "say"}))


@MODES
async def test_the_user_of_an_mcp_client_answers_the_questions_of_an_agent(face: Face, mode: str) -> None:
    async with Client(face.server, mode=mode, elicitation_callback=answers) as client:
        answered = await call(client, "ask", context_id="trip")
        assert answered.structured_content == {"year": 2024, "place": {"city": "Oslo"}, "context": "trip"}
    async with Client(face.server, mode=mode, elicitation_callback=declines) as client:
        declined = await call(client, "ask")
        assert (declined.is_error, "the user has not answered agent worker" in text_of(declined)) == (True, True)
    async with Client(face.server, mode=mode) as client:
        silent = await call(client, "ask")
        assert (silent.is_error, "cannot be asked" in text_of(silent)) == (True, True)


@MODES
async def test_a_cancellation_by_the_client_reaches_the_agent(face: Face, worker: Worker, mode: str) -> None:
    begun = asyncio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async with Client(face.server, mode=mode) as client:
        calling = asyncio.ensure_future(client.call_tool(WORKER, {"prompt": "hang"}, progress_callback=hear))
        await soon(begun.wait(), 20)
        calling.cancel()
        await soon(worker.canceled.wait(), 20)


@MODES
async def test_a_client_hears_of_agents_that_come_and_go(
    face: Face, mosquitto: Broker, namespace: str, mode: str
) -> None:
    changed = asyncio.Event()

    async def on_message(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            changed.set()

    async with Client(face.server, mode=mode, message_handler=on_message) as client:

        async def shows(count: int) -> None:
            """Look at the list after each change, until it has this many tools."""
            while True:
                changed.clear()
                if len((await client.list_tools()).tools) == count:
                    return
                await changed.wait()

        async def follow() -> None:
            async with client.listen(tools_list_changed=True) as changes:
                listening.set()
                async for _ in changes:
                    changed.set()

        listening = asyncio.Event()
        following = None if mode == "legacy" else asyncio.create_task(follow())
        if following is not None:
            await soon(listening.wait())
        async with Agent("new", broker=mosquitto.url, namespace=namespace, store=MemoryStore()):
            await soon(shows(2), 20)
        await soon(shows(1), 20)
        if following is not None:
            following.cancel()


# The extension for tasks


class Created(Result):
    result_type: Literal["task"] = "task"
    task_id: str
    status: str


class TaskParams(RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


class TaskRequest(Request[TaskParams, str]):
    name_param: ClassVar[str | None] = "taskId"
    method: str
    params: TaskParams


class Shown(Result):
    """What ``tasks/get`` says."""

    status: str = ""
    status_message: str | None = None
    input_requests: dict[str, Any] | None = None
    result: dict[str, Any] | None = None


class WithTasks(ClientExtension):
    """The client's side: it only takes the task, and the test asks for it."""

    identifier = TASKS

    def claims(self) -> list[ResultClaim[Created]]:
        async def never(created: Created, context: Any) -> CallToolResult:
            raise AssertionError("the test itself follows the task")

        return [ResultClaim(result_type="task", model=Created, resolve=never)]


def task_client(face: Face, **options: Any) -> Client:
    return Client(face.server, extensions=[WithTasks()], **options)


async def create(client: Client, prompt: str) -> str:
    created = await soon(client.session.call_tool(WORKER, {"prompt": prompt}, allow_claimed=True), 20)
    assert isinstance(created, Created)
    assert created.status == "working"
    return created.task_id


async def ask(client: Client, method: str, task_id: str, **more: Any) -> Shown:
    request = TaskRequest(method=f"tasks/{method}", params=TaskParams(task_id=task_id, **more))
    return await soon(client.session.send_request(request, Shown))


async def reaches(client: Client, task_id: str, status: str) -> Shown:
    shown: list[Shown] = []

    async def so() -> bool:
        shown.append(await ask(client, "get", task_id))
        return shown[-1].status == status

    await becomes(so, 20)
    return shown[-1]


async def test_a_call_of_an_agent_becomes_a_task_that_asks_and_ends_with_a_result(face: Face) -> None:
    async with task_client(face, elicitation_callback=answers) as client:
        assert client.server_capabilities.extensions == {TASKS: {}}
        task_id = await create(client, "ask")
        seen: set[str] = set()
        for answer in ({"answer": 7}, {"answer": 2024}, {"city": "Oslo"}):
            asks = await reaches(client, task_id, "input_required")
            [(key, request)] = (asks.input_requests or {}).items()
            assert key not in seen  # a key stands for one question
            seen.add(key)
            assert request["method"] == "elicitation/create"
            again = await ask(client, "get", task_id)
            assert again.input_requests == asks.input_requests
            await ask(client, "update", task_id, input_responses={"other": {"action": "accept"}})
            await ask(client, "update", task_id, input_responses={key: "no object", "other": 7})
            await ask(client, "update", task_id, input_responses={key: {"action": "accept", "content": answer}})
        done = await reaches(client, task_id, "completed")
        assert done.result is not None
        assert done.result["structuredContent"]["place"] == {"city": "Oslo"}
        failed = await reaches(client, await create(client, "fail"), "completed")
        assert failed.result is not None
        assert failed.result["isError"] is True


async def test_a_task_is_canceled_by_the_client_and_by_a_question_that_nobody_answers(
    face: Face, worker: Worker
) -> None:
    async with task_client(face) as client:
        task_id = await create(client, "hang")
        await ask(client, "cancel", task_id)
        await reaches(client, task_id, "cancelled")
        silent = await reaches(client, await create(client, "ask"), "cancelled")
        assert "nobody has answered the question" in (silent.status_message or "")


async def test_tasks_are_only_for_clients_that_know_them_and_for_the_identity_that_gave_them(
    face: Face, make_speaker: Callable[..., Agent]
) -> None:
    async with task_client(face) as client:
        task_id = await create(client, "hang")
    async with Client(face.server) as plain:
        with pytest.raises(MCPError) as refused:
            await ask(plain, "get", task_id)
        assert refused.value.code == MISSING_REQUIRED_CLIENT_CAPABILITY
        assert refused.value.data == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    async with Client(face.server, mode="legacy") as legacy:
        with pytest.raises(MCPError) as refused:  # a method of the extension; the others are in both protocols
            await ask(legacy, "update", task_id)
        assert refused.value.code == METHOD_NOT_FOUND
    async with make_speaker("mallory") as mallory:
        other = Face(mallory)
        async with other.live(), task_client(other) as client:
            for method in ("get", "update", "cancel"):
                with pytest.raises(MCPError, match="Task not found") as refused:
                    await ask(client, method, task_id)
                assert refused.value.code == INVALID_PARAMS
    async with task_client(face) as client:
        assert (await ask(client, "get", task_id)).status == "working"


async def test_a_task_outlives_the_face_and_the_next_face_finds_it(
    make_speaker: Callable[..., Agent], worker: Worker
) -> None:
    store = MemoryStore()
    async with make_speaker(store=store) as speaker:
        first = Face(speaker)
        async with first.live(), task_client(first, elicitation_callback=answers) as client:
            task_id = await create(client, "ask")
            await reaches(client, task_id, "input_required")
    async with make_speaker(store=store) as speaker:
        second = Face(speaker)
        async with (
            second.live(),
            task_client(second) as silent,
            task_client(second, elicitation_callback=answers) as client,
        ):
            # A client that cannot be asked only looks: the task of another client goes on.
            await reaches(silent, task_id, "input_required")
            for answer in ({"answer": 2024}, {"city": "Oslo"}):
                asks = await reaches(client, task_id, "input_required")
                key = next(iter(asks.input_requests or {}))
                await ask(client, "update", task_id, input_responses={key: {"action": "accept", "content": answer}})
            done = await reaches(client, task_id, "completed")
            assert done.result is not None
            assert done.result["structuredContent"]["year"] == 2024


# The command line


async def test_the_command_line_shows_the_agents_and_keeps_the_tasks_under_a_name(
    worker: Worker, mosquitto: Broker, namespace: str, tmp_path: Path
) -> None:
    place = {"MQTT_AGENT_BROKER": mosquitto.url, "MQTT_AGENT_NAMESPACE": namespace, "XDG_STATE_HOME": str(tmp_path)}
    command = ["-m", "mqtt_agent.cli", "mcp", "--agents"]
    face = StdioServerParameters(command=sys.executable, args=[*command, "--as", "claude"], env={**os.environ, **place})
    async with Client(face, extensions=[WithTasks()]) as client:
        task_id = await create(client, "say")
        done = await reaches(client, task_id, "completed")
        assert done.result is not None
        assert done.result["structuredContent"]["sender"] == "claude"


@pytest.mark.long
def test_agents_without_a_name_for_the_tasks_are_an_error(terminal: Terminal) -> None:
    assert "add --as NAME" in terminal.run("mcp", "--agents", code=2).err


def test_an_artifact_of_another_form_does_not_cost_the_result() -> None:
    odd = {"name": 5, "data": "a"}
    answer = result_of(TaskResult(task_id="t", status="completed", result="done", artifacts=[odd]), "worker")
    assert [block["text"] for block in answer["content"]] == ["done", '{"name": 5, "data": "a"}']


@MODES
async def test_a_client_is_told_nothing_about_what_fails_inside(
    make_speaker: Callable[..., Agent], worker: Worker, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "face.db"
    async with make_speaker(store=str(path)) as speaker:
        face = Face(speaker)
        async with face.live(), Client(face.server, mode=mode) as client:
            await call(client, "say")
            with sqlite3.connect(path) as database:
                for (table,) in database.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
                ).fetchall():
                    database.execute(f"ALTER TABLE {table} RENAME TO {table}_gone")
            with pytest.raises(MCPError, match="the log has the reason under the reference") as failed:
                await call(client, "say")
    assert not any(word in str(failed.value) for word in ("face.db", "no such table", str(tmp_path)))
    number = str(failed.value).partition("reference ")[2][:12]
    assert any(number in record.getMessage() and record.exc_info for record in caplog.records)
