"""Clients that read slowly or not at all: what waits for them has an end, and they can come back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from a2a.types import a2a_pb2 as a2a
from a2a_mqtt_agent import following, pushing
from a2a_mqtt_agent.waiting import Waiting
from google.protobuf.json_format import MessageToDict
from mqtt_agent import Agent
from mqtt_agent.agents import TaskHandle
from mqtt_agent.errors import StoreError
from support import becomes, soon, until

from .conftest import MakeGateway, last_task, said

COMPLETED = a2a.TASK_STATE_COMPLETED
LONG = "x" * 100_000


def change(text: str = "") -> a2a.TaskArtifactUpdateEvent:
    return a2a.TaskArtifactUpdateEvent(task_id="t", artifact=a2a.Artifact(artifact_id=text))


async def test_what_waits_is_bounded_by_number_and_bytes_and_one_change_may_always_wait() -> None:
    few, small = Waiting(2, 1000), Waiting(100, 1000)
    assert [few.put(change()) for _ in range(3)] == [True, True, False]
    assert (len(few), few.dropped) == (0, 3)
    assert small.put(change(LONG))
    assert not small.put(change())
    few.put(change("last"))
    few.end()
    last = await few.get()
    assert isinstance(last, a2a.TaskArtifactUpdateEvent)
    assert last.artifact.artifact_id == "last"
    assert await few.get() is None


@pytest.mark.long
async def test_a_client_that_does_not_read_is_ended_and_told_how_to_go_on(
    worker: Agent, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(following, "_MOST_BYTES", 500_000)
    served = await make_gateway()
    port = int(served.url.rpartition(":")[2])
    mouth = socket.socket()
    mouth.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    mouth.connect(("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=mouth, limit=1024)  # it stops to read the socket soon
    body = json.dumps(MessageToDict(said("flood 100"))).encode()
    head = f"Host: 127.0.0.1\r\nA2A-Version: 1.0\r\nContent-Length: {len(body)}\r\nContent-Type: application/json"
    writer.write(f"POST /agents/worker/message:stream HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
    await writer.drain()
    await until(lambda: any("reads too slowly" in record.getMessage() for record in caplog.records), 60)
    client = await served.client()
    [task] = (await client.list_tasks(a2a.ListTasksRequest())).tasks

    async def is_over() -> bool:
        return (await client.get_task(a2a.GetTaskRequest(id=task.id))).status.state == COMPLETED

    await becomes(is_over, 60)  # the task goes on without the client
    told = b""
    while chunk := await soon(reader.read(1 << 20), 60):
        told += chunk
        if told.endswith(b"0\r\n\r\n"):
            break
    assert b"Subscribe to the task again" in told
    writer.close()
    await writer.wait_closed()


async def test_a_task_that_cannot_be_followed_is_not_kept_and_is_followed_again_when_a_client_asks_for_it(
    worker: Agent, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await make_gateway()
    client = await served.client()
    callers = served.gateway._callers["alice"]  # pyright: ignore[reportPrivateUsage]

    async def broken(handle: TaskHandle) -> AsyncIterator[Any]:
        raise StoreError("the disk is full")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(TaskHandle, "events", broken)
        task = await soon(last_task(client, said("ask")))
        assert not callers._open
        assert not callers._ended

    async def asks() -> bool:
        return (await client.get_task(a2a.GetTaskRequest(id=task.id))).status.state == a2a.TASK_STATE_INPUT_REQUIRED

    await becomes(asks)
    assert list(callers._open) == [task.id]


@pytest.mark.long
async def test_the_stream_of_a_task_that_is_not_followed_any_more_ends(
    worker: Agent, make_gateway: MakeGateway
) -> None:
    served = await make_gateway()
    task = await last_task(await served.client(), said("ask"))
    followed = served.gateway._callers["alice"]._open[task.id]  # pyright: ignore[reportPrivateUsage]
    await followed.stop()

    async def all_of_it() -> list[Any]:
        return [each async for each in followed.listen()]

    assert [each.id for each in await soon(all_of_it(), 5)] == [task.id]


class Address:
    """A push address. Its answers wait for a gate."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.status = "200 OK"
        self.url = ""
        self.running: set[asyncio.Task[Any]] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.running.add(task)
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.running.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            [length] = [line.partition(":")[2] for line in head.splitlines() if line.startswith("content-length")]
            body = await reader.readexactly(int(length))
            await self.open.wait()
            self.told.append(json.loads(body))
            writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.fixture
async def address() -> AsyncIterator[Address]:
    address = Address()
    async with await asyncio.start_server(address.answer, "127.0.0.1", 0, limit=1 << 24) as server:
        address.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield address
        for task in list(address.running):
            task.cancel()
        await asyncio.gather(*address.running, return_exceptions=True)


def hooked(text: str, address: Address) -> Any:
    request = said(text)
    request.configuration.task_push_notification_config.url = address.url
    return request


async def test_a_slow_address_gets_the_task_as_it_is_and_not_each_of_a_thousand_changes(
    worker: Agent, make_gateway: MakeGateway, address: Address
) -> None:
    served = await make_gateway(allow_private_push=True)
    task = await last_task(await served.client(), hooked("drip 300", address))
    assert task.status.state == COMPLETED
    address.open.set()
    await until(lambda: any(_ended(each) for each in address.told), 30)
    assert len(address.told) <= pushing._MOST_WAITING + 2  # pyright: ignore[reportPrivateUsage]
    whole = [each["task"] for each in address.told if "task" in each][-1]
    assert whole["artifacts"][0]["parts"][0]["text"].startswith("drop drop ")
    assert _ended(address.told[-1])


async def test_an_address_that_fails_gets_only_the_latest_state_of_the_task(
    worker: Agent, make_gateway: MakeGateway, address: Address
) -> None:
    served = await make_gateway(allow_private_push=True)
    address.status = "500 No"
    task = await last_task(await served.client(), hooked("drip 50", address))
    assert task.status.state == COMPLETED
    address.open.set()
    await until(lambda: len(address.told) >= 2, 30)
    assert _ended(address.told[1])  # the first try has failed, and what waited behind it is one state


async def test_an_address_of_a_finished_task_is_told_its_end_and_nothing_waits_for_it(
    worker: Agent, make_gateway: MakeGateway, address: Address
) -> None:
    served = await make_gateway(allow_private_push=True)
    address.open.set()
    client = await served.client()
    task = await last_task(client, said("hello"))
    config = a2a.TaskPushNotificationConfig(task_id=task.id, url=address.url)
    await client.create_task_push_notification_config(config)
    await until(lambda: address.told, 20)
    assert _ended(address.told[0])
    await until(lambda: not served.gateway._pusher._tellers, 20)  # pyright: ignore[reportPrivateUsage]


def _ended(told: dict[str, Any]) -> bool:
    event = told.get("task") or told.get("statusUpdate") or {}
    return event.get("status", {}).get("state") == "TASK_STATE_COMPLETED"
