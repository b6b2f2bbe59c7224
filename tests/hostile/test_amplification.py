"""A small message that is repeated does not make an endpoint send many messages, or large ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import TaskContext
from mqtt_agent.transport import Bound
from mqtt_agent.wire import Topics
from recorder import Recorder
from support import soon, until

from ..agents.conftest import MakeAgent, make_agent
from ..tools.conftest import MakeClient, MakeServer, make_client, make_server

__all__ = ["make_agent", "make_client", "make_server"]
RUN_ON = [Mosquitto]


async def messages_until(recorder: Recorder, last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The recorded messages, when one of them is the last."""

    def found() -> list[dict[str, Any]]:
        return [json.loads(each.payload) for each in recorder._heard]  # pyright: ignore[reportPrivateUsage]

    await until(lambda: any(last(each) for each in found()))
    return found()


@pytest.mark.rule("QUERY-6", "QUERY-7")
async def test_a_query_is_answered_once_and_sends_each_response_once(
    make_server: MakeServer, make_client: MakeClient, mosquitto: Mosquitto, namespace: str
) -> None:
    server = make_server()
    server.add_tool("large", lambda: "x" * 10_000)
    await soon(server.start())
    client = await make_client("victim", bound="off")
    await soon(client.call("large", call_id="kept"))
    inbox = f"{namespace}/mcp/clients/victim/responses"
    query_topic = f"{namespace}/mcp/servers/{server.server_id}/query"

    async def ask(query_id: str, call_ids: list[str]) -> None:
        query = {"query_id": query_id, "call_ids": call_ids, "client": "victim"}
        await soon(client.connection.publish(query_topic, json.dumps(query).encode()))

    with Recorder(mosquitto.url, inbox) as recorder:
        for _ in range(50):
            await ask("query", ["kept"] * 500)
        await ask("too many", [str(number) for number in range(1001)])
        await ask("last", [])
        heard = await messages_until(recorder, lambda each: each["call_id"] == "last")
    assert [each["call_id"] for each in heard] == ["kept", "query", "last"]
    assert heard[1]["result"] == {"known": ["kept"]}


@pytest.mark.rule("CTRL-9")
@pytest.mark.parametrize("bound", ["prefer", "off"])
async def test_a_flood_of_questions_about_a_task_does_not_become_a_flood_of_answers(
    make_agent: MakeAgent, mosquitto: Mosquitto, namespace: str, bound: Bound
) -> None:
    worker, planner = make_agent("worker"), make_agent("planner", bound=bound)

    @worker.on_task
    async def handle(task: TaskContext) -> str:
        return await task.ask("x" * 50_000)

    await soon(worker.start())
    await soon(planner.start())
    task = await soon(planner.delegate("worker", "go", wait_online=True))
    assert task.bound == (bound == "prefer")
    await until(lambda: task.question)
    topics = Topics(namespace)
    topic, asked = topics.task_events(task.task_id), topics.control("worker")
    if bound == "prefer":
        topic = topics.bound.events("planner", task.task_id, "worker")
        asked = topics.bound.control("worker", "planner")
    question = {"task_id": task.task_id, "action": "get", "from": "planner"}
    with Recorder(mosquitto.url, topic) as recorder:
        for _ in range(300):
            planner.connection.publish_soon(asked, json.dumps(question).encode())
        await soon(task.send("done"))
        assert await soon(task.result()) == "done"
        events = await messages_until(recorder, lambda each: each.get("status") == "working" and each["seq"] > 0)
    assert 0 < sum(each.get("seq", 0) == 0 for each in events) < 150
