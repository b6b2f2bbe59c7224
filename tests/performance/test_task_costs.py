"""The cost of a task, counted and not timed: MQTT packets, Python calls, and store calls."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Embedded, Mosquitto
from mqtt_agent import Agent, MemoryStore, SqliteStore, TaskContext
from mqtt_agent.agents.store import TaskStore
from mqtt_agent.transport.settings import Bound
from support import soon, until

from .counting import CountingIdentity, CountingProxy, counted_calls, identities

TASKS = 50
PROMPT = "123456789"

PYTHON_CALLS_PER_DELEGATED = 1070
PYTHON_CALLS_PER_REQUEST = 985
"""The limits are a tenth above the measured numbers, for both agents together."""
PYTHON_CALLS_PER_DELEGATED_AT_ONCE = 900
HANDLES_PER_DELEGATED_AT_ONCE = 28
"""The measured numbers are 801 and 22. If each note that a result was sent were stored alone, and each confirmation of
the broker came by a callback of its future, there would be 240 calls and 9 handles more."""

TASK = {
    # The planner sends the task, and acknowledges the result. The handler is short, so no event is sent.
    "planner sends": {"PUBLISH": 1, "PUBACK": 1},
    "planner gets": {"PUBACK": 1, "PUBLISH": 1},
    "writer sends": {"PUBLISH": 1, "PUBACK": 1},
    "writer gets": {"PUBLISH": 1, "PUBACK": 1},
}
PLAIN_TASK = {
    # On plain topics, the events of a delegated task and the result of a request have a topic for each task.
    **TASK,
    "planner sends": {"SUBSCRIBE": 1, "PUBLISH": 1, "PUBACK": 1, "UNSUBSCRIBE": 1},
    "planner gets": {"SUBACK": 1, "PUBACK": 1, "PUBLISH": 1, "UNSUBACK": 1},
}

Do = Callable[[Agent], Awaitable[Any]]


async def delegate(planner: Agent) -> Any:
    task = await planner.delegate("writer", PROMPT)
    async for _ in task.events():  # to their end: the last event may arrive after the result
        pass
    return await task.result()


async def request(planner: Agent) -> Any:
    return await planner.request("writer", PROMPT)


@contextlib.asynccontextmanager
async def agents(
    namespace: str,
    urls: tuple[str, str],
    stores: tuple[TaskStore, TaskStore],
    *,
    bound: Bound = "prefer",
    signed: tuple[CountingIdentity | None, ...] = (None, None),
) -> AsyncIterator[tuple[Agent, Agent]]:
    """An agent that gives tasks, and an agent that returns their prompts."""
    writer = Agent("writer", broker=urls[1], namespace=namespace, store=stores[1], bound=bound, identity=signed[1])

    @writer.on_task
    async def echo(task: TaskContext) -> str | None:
        return task.prompt

    planner = Agent("planner", broker=urls[0], namespace=namespace, store=stores[0], bound=bound, identity=signed[0])
    async with writer, planner:
        await until(lambda: writer._presence.announced)
        await soon(planner.peer("writer"))
        assert planner._peers.is_online("writer")
        yield planner, writer


@pytest.mark.parametrize(
    ("do", "bound", "expected"),
    [
        (delegate, "prefer", TASK),
        (request, "prefer", TASK),
        (delegate, "off", PLAIN_TASK),
        (request, "off", PLAIN_TASK),
    ],
    ids=["delegate", "request", "plain-delegate", "plain-request"],
)
@pytest.mark.parametrize("kind", [Embedded, Mosquitto], ids=lambda kind: kind.name)
async def test_a_task_costs_the_packets_that_it_must(
    kind: type[Embedded | Mosquitto],
    do: Do,
    bound: Bound,
    expected: dict[str, dict[str, int]],
    request: pytest.FixtureRequest,
    namespace: str,
) -> None:
    broker: Broker = request.getfixturevalue(kind.name)
    async with (
        CountingProxy(broker.url) as near_planner,
        CountingProxy(broker.url) as near_writer,
        agents(namespace, (near_planner.url, near_writer.url), (MemoryStore(), MemoryStore()), bound=bound) as (
            planner,
            writer,
        ),
    ):
        flows = {
            "planner sends": near_planner.sent,
            "planner gets": near_planner.received,
            "writer sends": near_writer.sent,
            "writer gets": near_writer.received,
        }

        await soon(writer.peers())  # now all cards and statuses have arrived
        before = {name: Counter(flow.packets) for name, flow in flows.items()}
        await soon(do(planner))
        once = {name: before[name] + Counter(each) for name, each in expected.items()}
        await until(lambda: all(Counter(flows[name].packets) >= each for name, each in once.items()))
        near_planner.forget()
        near_writer.forget()
        for _ in range(TASKS):
            assert await soon(do(planner)) == PROMPT
        all_of_them = {name: {kind: count * TASKS for kind, count in each.items()} for name, each in expected.items()}
        await until(lambda: all(len(flows[name].packets) >= sum(each.values()) for name, each in all_of_them.items()))
        assert {name: dict(Counter(flow.packets)) for name, flow in flows.items()} == all_of_them


@pytest.mark.parametrize(
    ("do", "most"),
    [(delegate, PYTHON_CALLS_PER_DELEGATED), (request, PYTHON_CALLS_PER_REQUEST)],
    ids=["delegate", "request"],
)
async def test_a_durable_task_costs_few_python_calls(
    do: Do, most: int, mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    stores = SqliteStore(tmp_path / "planner.db"), SqliteStore(tmp_path / "writer.db")
    async with agents(namespace, (mosquitto.url, mosquitto.url), stores) as (planner, _):
        await soon(do(planner))
        with counted_calls() as calls:
            for _ in range(TASKS):
                await do(planner)
    assert calls.count / TASKS <= most


async def test_durable_tasks_at_once_cost_few_python_calls_and_few_turns_of_the_event_loop(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    at_once = 32

    async def give_often(planner: Agent) -> None:
        for _ in range(5):
            task = await planner.delegate("writer", PROMPT)
            await task.result()

    stores = SqliteStore(tmp_path / "planner.db"), SqliteStore(tmp_path / "writer.db")
    async with agents(namespace, (mosquitto.url, mosquitto.url), stores) as (planner, _):
        await soon(request(planner))
        with counted_calls() as calls:
            await asyncio.gather(*(give_often(planner) for _ in range(at_once)))
    assert calls.count / at_once / 5 <= PYTHON_CALLS_PER_DELEGATED_AT_ONCE
    assert calls.handles / at_once / 5 <= HANDLES_PER_DELEGATED_AT_ONCE


async def test_a_task_leaves_no_work_for_the_garbage_collector(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    async def give(planner: Agent) -> None:
        task = await planner.delegate("writer", PROMPT)
        await task.result()

    stores = SqliteStore(tmp_path / "planner.db"), SqliteStore(tmp_path / "writer.db")
    async with agents(namespace, (mosquitto.url, mosquitto.url), stores) as (planner, _):
        await soon(give(planner))
        gc.collect()
        gc.disable()
        try:
            for _ in range(TASKS):
                await soon(give(planner))
            left = gc.collect()
        finally:
            gc.enable()
    assert left < TASKS


@pytest.mark.parametrize("do", [delegate, request], ids=["delegate", "request"])
async def test_each_message_of_a_task_is_signed_once_and_checked_once(
    do: Do, mosquitto: Mosquitto, namespace: str
) -> None:
    near, _ = signed = identities("planner", "writer")
    stores = MemoryStore(), MemoryStore()
    async with agents(namespace, (mosquitto.url, mosquitto.url), stores, signed=signed) as (planner, writer):
        await soon(do(planner))
        await soon(writer.peers())  # now all cards and statuses have arrived
        before = [each.count for each in signed]
        for _ in range(TASKS):
            assert await soon(do(planner)) == PROMPT
        await until(lambda: (near.count - before[0])["checked"] >= TASKS)
        counted = [each.count - earlier for each, earlier in zip(signed, before, strict=True)]
    assert counted == [{"signed": TASKS, "checked": TASKS}] * 2


class CountingStore(MemoryStore):
    """A store that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()


for _method in ("add", "get", "change", "claim", "find", "count"):

    def _counting(name: str) -> Any:
        async def method(self: CountingStore, *args: Any, **kwargs: Any) -> Any:
            self.asked[name] += 1
            return await getattr(MemoryStore, name)(self, *args, **kwargs)

        return method

    setattr(CountingStore, _method, _counting(_method))


@pytest.mark.parametrize("do", [delegate, request])
async def test_a_task_is_written_twice_by_who_gives_it_and_three_times_by_who_does_it(
    do: Do, mosquitto: Mosquitto, namespace: str
) -> None:
    stores = CountingStore(), CountingStore()
    async with agents(namespace, (mosquitto.url, mosquitto.url), stores) as (planner, _):
        await soon(do(planner))
        await until(lambda: stores[1].asked["change"] == 2)
        for store in stores:
            store.asked.clear()
        for _ in range(TASKS):
            await soon(do(planner))
        await until(lambda: stores[1].asked["change"] >= 2 * TASKS)
        # The given task and its result; the received task, its result, and the broker's confirmation of the result.
        noted = stores[0].asked["change"] - TASKS
        assert stores[0].asked == {"add": TASKS, "change": TASKS + noted}
        assert noted == 0 or do is delegate  # the state of a task, if the task stays in that state for longer
        assert stores[1].asked == {"add": TASKS, "change": 2 * TASKS}
