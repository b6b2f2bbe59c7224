"""Agents over MQTT as A2A servers, as a client of the A2A SDK sees them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.client.errors import A2AClientError
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import A2AError, TaskNotFoundError, UnsupportedOperationError
from a2a_mqtt_agent import Gateway, Identity
from a2a_mqtt_agent.pushing import public_address
from a2a_mqtt_agent.translating import to_parts
from a2a_mqtt_agent.views import updates_at_end
from brokers import Broker
from google.protobuf.json_format import MessageToDict, ParseError
from google.protobuf.message import DecodeError
from mqtt_agent import Agent, MemoryStore
from mqtt_agent.wire import Part, TaskResult
from support import becomes, soon

from .conftest import MakeGateway, events, last_task, said

COMPLETED, WORKING, ASKS = a2a.TASK_STATE_COMPLETED, a2a.TASK_STATE_WORKING, a2a.TASK_STATE_INPUT_REQUIRED
BINDINGS = ["JSONRPC", "HTTP+JSON", "GRPC"]


def plain(message: Any) -> Any:
    return MessageToDict(message)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_task_is_done_streamed_asked_and_found_again_over_each_transport(
    worker: Agent, make_gateway: MakeGateway, binding: str
) -> None:
    client = await (await make_gateway(grpc=True)).client(binding=binding)
    first, *updates = await soon(events(client, said("stream")), 30)
    assert first.HasField("task")
    # The first chunks are in the task itself when they were made before the client listened: nothing comes twice.
    shown = [part.text for artifact in first.task.artifacts for part in artifact.parts]
    shown += [each.artifact_update.artifact.parts[0].text for each in updates if each.HasField("artifact_update")]
    assert "".join(shown) == "MQTT is good."
    assert updates[-1].status_update.status.state == COMPLETED
    statuses = [first.task.status, *(each.status_update.status for each in updates)]
    thought = [each.message for each in statuses if each.HasField("message")]
    assert [each.parts[0].text for each in thought] == ["thinking"]
    task = await client.get_task(a2a.GetTaskRequest(id=first.task.id))
    assert [part.text for part in task.artifacts[0].parts] == ["MQTT is good."]

    asked = await last_task(client, said("ask"))
    assert (asked.status.state, asked.status.message.parts[0].text) == (ASKS, "Which year?")
    answered = await last_task(client, said(None, {"data": 2024}, task=asked))
    assert answered.status.state == COMPLETED
    assert plain(answered.artifacts[0].parts[0])["data"] == {"year": 2024, "attempt": 1}
    assert [each.role for each in answered.history] == [a2a.ROLE_USER, a2a.ROLE_AGENT, a2a.ROLE_USER]

    listed = await client.list_tasks(a2a.ListTasksRequest(page_size=1))
    assert (listed.total_size, [each.id for each in listed.tasks]) == (2, [answered.id])
    after = await client.list_tasks(a2a.ListTasksRequest(page_size=1, page_token=listed.next_page_token))
    assert [each.id for each in after.tasks] == [task.id]
    with pytest.raises(TaskNotFoundError):
        await client.get_task(a2a.GetTaskRequest(id="nothing"))


async def test_a_client_that_writes_only_text_answers_a_question_for_a_number(
    worker: Agent, make_gateway: MakeGateway
) -> None:
    client = await (await make_gateway()).client()
    asked = await last_task(client, said("ask"))
    answered = await last_task(client, said("2024", task=asked))
    assert plain(answered.artifacts[0].parts[0])["data"] == {"year": 2024, "attempt": 1}


async def test_a_number_that_a2a_would_change_is_shown_as_text(worker: Agent, make_gateway: MakeGateway) -> None:
    client = await (await make_gateway()).client()
    exact = await last_task(client, said("snowflake 9007199254740992"))
    assert plain(exact.artifacts[0].parts[0]) == {"data": {"id": 2**53}}
    changed = await last_task(client, said("snowflake 9007199254740993"))
    part = changed.artifacts[0].parts[0]
    assert (json.loads(part.text), part.media_type) == ({"data": {"id": 2**53 + 1}}, "application/json")


async def test_parts_reach_the_agent_and_come_back(worker: Agent, make_gateway: MakeGateway) -> None:
    client = await (await make_gateway()).client()
    file = {"raw": "iVBORw0KGgo=", "filename": "map.png", "mediaType": "image/png"}
    link = {"url": "https://trips.example/list.csv", "mediaType": "text/csv", "metadata": {"rows": 12}}
    task = await last_task(client, said("files", file, link, {"data": {"budget": 300, "all": [1, 2.5]}}))
    copy, page = task.artifacts
    back = [plain(part) for part in copy.parts]
    assert back == [file, link, {"data": {"budget": 300, "all": [1, 2.5]}}]
    assert [*(part.text for part in page.parts), page.name] == ["first second", "page"]
    told = await last_task(client, said("data", {"data": {"n": 42}}, referenceTaskIds=[task.id]))
    got = plain(told.artifacts[0].parts[0])["data"]
    assert got == {"got": {"n": 42}, "sender": "alice", "references": [task.id]}


async def test_an_answer_that_is_a_message_is_a_message(worker: Agent, make_gateway: MakeGateway) -> None:
    served = await make_gateway()
    async with httpx.AsyncClient(headers={"A2A-Version": "1.0"}) as http:
        body = plain(said("message Good morning"))
        answer = await soon(http.post(f"{served.url}/agents/worker/message:send", json=body), 20)
    assert answer.json()["message"]["parts"] == [{"text": "Good morning"}]


async def test_failures_rejections_and_logins_have_their_states(worker: Agent, make_gateway: MakeGateway) -> None:
    client = await (await make_gateway()).client()
    failed = await last_task(client, said("fail"))
    assert (failed.status.state, failed.status.message.parts[0].text) == (a2a.TASK_STATE_FAILED, "no disk")
    error = plain(failed.metadata)["mqtt-agent"]["error"]
    assert error == {"type": "DiskError", "message": "no disk", "code": "E_DISK", "data": {"free": 0}}
    assert (await last_task(client, said("reject"))).status.state == a2a.TASK_STATE_REJECTED
    login = await last_task(client, said("login"))
    assert login.status.state == a2a.TASK_STATE_AUTH_REQUIRED
    done = await last_task(client, said("abc", task=login))
    assert done.artifacts[0].parts[0].text == "token abc"


async def test_a_task_is_subscribed_with_a_snapshot_and_canceled(worker: Agent, make_gateway: MakeGateway) -> None:
    client = await (await make_gateway()).client()
    task_id = ""
    async for event in client.send_message(said("wait")):
        task_id = event.task.id or task_id
        if event.HasField("artifact_update"):
            break
    subscribed = client.subscribe(a2a.SubscribeToTaskRequest(id=task_id))
    snapshot = await soon(anext(aiter(subscribed)), 20)
    assert [each.name for each in snapshot.task.artifacts] == ["begun"]
    rest = asyncio.ensure_future(_rest(subscribed))
    canceled = await soon(client.cancel_task(a2a.CancelTaskRequest(id=task_id)), 20)
    assert canceled.status.state == a2a.TASK_STATE_CANCELED
    assert (await soon(rest, 20))[-1].status_update.status.state == a2a.TASK_STATE_CANCELED
    with pytest.raises(UnsupportedOperationError):
        await soon(anext(aiter(client.subscribe(a2a.SubscribeToTaskRequest(id=task_id)))), 20)


async def _rest(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def test_a_message_whose_answer_was_lost_means_the_same_task_when_it_is_sent_again(
    worker: Agent, make_gateway: MakeGateway
) -> None:
    client = await (await make_gateway()).client()
    request = said("slow 0.3", messageId="the-message")
    stream = client.send_message(request)
    lost = (await soon(anext(aiter(stream)), 20)).task.id
    await stream.aclose()  # type: ignore[attr-defined]
    assert (await last_task(client, request)).id == lost
    assert (await last_task(client, request)).id != lost  # the client has the answer: it means another task
    other = await last_task(client, said("good bye", messageId="the-message"))
    assert other.artifacts[0].parts[0].text == "good bye by alice"
    assert (await client.list_tasks(a2a.ListTasksRequest())).total_size == 3


async def test_each_caller_has_tasks_of_its_own(worker: Agent, make_gateway: MakeGateway) -> None:
    served = await make_gateway(Identity("alice", "a-token"), Identity("bob", "b-token"))
    alice, bob = await served.client(bearer="a-token"), await served.client(bearer="b-token")
    task = await last_task(alice, said("hello"))
    assert task.artifacts[0].parts[0].text == "hello by alice"
    with pytest.raises(TaskNotFoundError):
        await bob.get_task(a2a.GetTaskRequest(id=task.id))
    with pytest.raises(TaskNotFoundError):
        await bob.cancel_task(a2a.CancelTaskRequest(id=task.id))
    assert (await bob.list_tasks(a2a.ListTasksRequest())).total_size == 0
    assert (await last_task(bob, said("hello"))).artifacts[0].parts[0].text == "hello by bob"


async def test_who_may_not_speak_is_refused(worker: Agent, make_gateway: MakeGateway) -> None:
    served = await make_gateway(Identity("alice", "a-token"), grpc=True)
    body, version = plain(said("hello")), {"A2A-Version": "1.0"}
    right = {**version, "Authorization": "Bearer a-token"}
    async with httpx.AsyncClient(base_url=f"{served.url}/agents/worker") as http:

        async def status(**headers: str) -> int:
            return (await http.post("/message:send", json=body, headers=headers)).status_code

        assert await status(**version) == 401
        assert await status(**{**right, "Authorization": "Bearer b-token"}) == 401
        assert await status(**{**right, "Host": "evil.example"}) == 421
        assert await status(**{**right, "Host": "127.0.0.1/.well-known/agent-card.json?"}) == 421
        assert await status(**{**right, "Origin": "https://evil.example"}) == 403
        assert await status(**right) == 200
        wrong = await http.post("", content=b"x", headers={**right, "Content-Type": "text/plain"})
        assert wrong.json()["error"]["code"] == -32005
        assert (await http.get(f"{served.url}/agents")).status_code == 401
        card = (await http.get("/.well-known/agent-card.json")).json()
        assert card["securitySchemes"]["bearer"]["httpAuthSecurityScheme"]["scheme"] == "bearer"
    with pytest.raises(Exception, match="a bearer token is needed"):
        await (await served.client(bearer="a-token", binding="GRPC")).list_tasks(a2a.ListTasksRequest())
    with pytest.raises(ValueError, match="need bearer tokens"):
        Gateway([Identity("alice")], store=MemoryStore()).app("0.0.0.0", 80)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_client_is_told_nothing_about_what_fails_inside(
    worker: Agent, make_gateway: MakeGateway, tmp_path: Path, binding: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gateway.db"
    client = await (await make_gateway(grpc=True, store=str(path))).client(binding=binding)
    await last_task(client, said("hello"))
    with sqlite3.connect(path) as database:
        for (table,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        ).fetchall():
            database.execute(f"ALTER TABLE {table} RENAME TO {table}_gone")
    requests: list[Any] = [
        lambda: events(client, said("hello")),
        lambda: client.list_tasks(a2a.ListTasksRequest()),
        lambda: client.get_task(a2a.GetTaskRequest(id="nothing")),
    ]
    for request in requests:
        with pytest.raises(Exception, match="its log has the reason under the reference") as failed:
            await soon(request(), 20)
        assert not any(word in str(failed.value) for word in ("gateway.db", "no such table", str(tmp_path)))
        number = str(failed.value).partition("reference ")[2][:12]
        assert any(number in record.getMessage() and record.exc_info for record in caplog.records)


async def test_all_agents_are_under_one_port_and_only_those_that_are_shown(
    worker: Agent, make_gateway: MakeGateway, embedded: Any, namespace: str
) -> None:
    one, all_ = await make_gateway(peers=["worker"]), await make_gateway(Identity("bob"))
    async with (
        Agent("other", broker=embedded.url, namespace=namespace, store=MemoryStore()),
        httpx.AsyncClient() as http,
    ):

        async def names(url: str) -> list[str]:
            return [each["name"] for each in (await http.get(f"{url}/agents")).json()["agents"]]

        async def shows_both() -> bool:
            return await names(all_.url) == ["other", "worker"]

        await becomes(shows_both)
        assert await names(one.url) == ["worker"]
        assert (await http.get(f"{one.url}/agents/other/.well-known/agent-card.json")).status_code == 404
        found = await http.get(f"{one.url}/.well-known/agent-card.json")
        card = found.json()
        assert (card["name"], card["skills"][0]["id"]) == ("worker", "work")
        assert [each["protocolBinding"] for each in card["supportedInterfaces"]] == ["JSONRPC", "HTTP+JSON"]
        again = {"If-None-Match": found.headers["etag"]}
        assert (await http.get(f"{one.url}/.well-known/agent-card.json", headers=again)).status_code == 304
        known = await http.get(f"{one.url}/agents/worker/extendedAgentCard", headers={"A2A-Version": "1.0"})
        assert known.json()["capabilities"]["extensions"][0]["params"]["status"] == "online"


async def test_a_client_of_version_0_3_is_answered(worker: Agent, make_gateway: MakeGateway) -> None:
    served = await make_gateway(legacy=True)
    message = {
        "messageId": uuid.uuid4().hex,
        "role": "user",
        "kind": "message",
        "parts": [{"kind": "text", "text": "hi"}],
    }
    request = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}
    async with httpx.AsyncClient() as http:
        answer = (await soon(http.post(f"{served.url}/agents/worker", json=request), 20)).json()
    assert answer["result"]["status"]["state"] == "completed"
    assert answer["result"]["artifacts"][0]["parts"][0]["text"] == "hi by alice"


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "::1", "10.1.2.3", "169.254.169.254", "::ffff:192.168.0.1", "224.0.0.1", "localhost"),
        *("64:ff9b::169.254.169.254", "2002:7f00:1::", "::127.0.0.1"),  # IPv6 addresses that lead to IPv4 ones
    ],
)
async def test_an_address_of_this_machine_or_its_network_is_not_public(host: str) -> None:
    assert await public_address(host, 443) is None
    for public in ("8.8.8.8", "::ffff:808:808", "2606:4700::1111", "64:ff9b::808:808"):
        assert await public_address(public, 443) == public


@pytest.mark.parametrize("binding", BINDINGS)
async def test_what_a2a_cannot_carry_is_text_and_hides_no_result(
    worker: Agent, make_gateway: MakeGateway, binding: str
) -> None:
    client = await (await make_gateway(grpc=True)).client(binding=binding)
    for word in ("deep", "huge"):
        task = await last_task(client, said(f"odd {word}"))
        assert task.status.state == COMPLETED
        assert {each.name: each.parts[0].WhichOneof("content") for each in task.artifacts} == {
            "deep": "text",
            "huge": "text",
            "result": "text",
        }
        assert ("bottom" if word == "deep" else "1000000") in task.artifacts[-1].parts[0].text
    listed = await client.list_tasks(a2a.ListTasksRequest())
    assert [each.status.state for each in listed.tasks] == [COMPLETED, COMPLETED]
    failed = await last_task(client, said("refuse"))
    assert failed.status.state == a2a.TASK_STATE_FAILED


def _nested(levels: int, *, objects: bool) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = {"a": value} if objects else [value]
    return value


@pytest.mark.parametrize(("objects", "most"), [(True, 26), (False, 39)], ids=["objects", "arrays"])
def test_how_deep_json_may_be_does_not_depend_on_protobuf(objects: bool, most: int) -> None:
    fits, too_deep = to_parts([Part(data=_nested(levels, objects=objects)) for levels in (most - 1, most + 1)])
    assert [each.WhichOneof("content") for each in (fits, too_deep)] == ["data", "text"]
    assert "bottom" in too_deep.text
    answer = a2a.StreamResponse()  # what fits can be copied and read, also with the other things around it
    answer.artifact_update.artifact.CopyFrom(a2a.Artifact(artifact_id="a", parts=[fits]))
    copy = a2a.StreamResponse()
    copy.CopyFrom(a2a.StreamResponse.FromString(answer.SerializeToString()))
    assert copy.artifact_update.artifact.parts[0] == fits


@pytest.mark.parametrize("binding", BINDINGS)
async def test_deep_data_of_a_client_reaches_the_agent_or_is_refused_at_once(
    worker: Agent, make_gateway: MakeGateway, binding: str
) -> None:
    client = await (await make_gateway(grpc=True)).client(binding=binding)
    for levels in (10, 24, 28, 40):
        try:
            task = await last_task(client, said("data", {"data": _nested(levels, objects=False)}))
        except (A2AError, A2AClientError, ParseError, DecodeError):
            assert levels > 24
        else:
            assert task.status.state == COMPLETED
            assert "bottom" in str(task.artifacts[0].parts[0])
    assert (await last_task(client, said("hello"))).status.state == COMPLETED


@pytest.mark.parametrize(
    "odd", [{"timestamp": "0001-01-01T00:00:00+14:00"}, {"artifacts": [{"name": 5}]}], ids=["time", "artifact"]
)
def test_a_task_ends_whatever_its_result_says(odd: dict[str, Any]) -> None:
    result = TaskResult.model_validate({"task_id": "t", "status": "completed", "result": "done", **odd})
    end = updates_at_end(a2a.Task(id="t"), result)[-1]
    assert isinstance(end, a2a.TaskStatusUpdateEvent)
    assert end.status.state == COMPLETED


async def test_the_system_chooses_the_port_and_the_cards_and_the_caller_know_it(
    worker: Agent, embedded: Broker, namespace: str
) -> None:
    ports: asyncio.Queue[int] = asyncio.Queue()
    gateway = Gateway([Identity("alice")], broker=embedded.url, namespace=namespace, store=MemoryStore())
    async with gateway:
        serving = asyncio.create_task(gateway.serve("127.0.0.1", 0, on_listening=ports.put_nowait))
        url = f"http://127.0.0.1:{await soon(ports.get())}"
        async with httpx.AsyncClient(timeout=10) as http:

            async def shown() -> bool:
                return (await http.get(f"{url}/agents/worker/.well-known/agent-card.json")).status_code == 200

            await becomes(shown)
            card = (await http.get(f"{url}/agents/worker/.well-known/agent-card.json")).json()
        assert all(each["url"].startswith(f"{url}/") for each in card["supportedInterfaces"])
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
