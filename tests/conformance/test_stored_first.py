"""No message about a task is acknowledged or sent before it is stored: the packets and writes come in this order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker, Ejabberd
from mqtt_agent import Agent, MemoryStore, TaskContext
from mqtt_agent.agents.store import TaskKey, TaskRecord
from packets import Packet, PacketProxy
from support import becomes, soon, until
from typing_extensions import override

from ..agents.conftest import MakeAgent
from .foreign import ForeignExecutor, ForeignRequester

RUN_ON = ALL_BROKERS
LONG_ON = [Ejabberd]


class HeldStore(MemoryStore):
    """A store that needs as long for some writes as the test wants, like a slow disk.

    ``holds`` is "add", or the name of a field of a change. ``asked`` is set when such a write has begun. When the write
    is done, the proxy records the word "stored".
    """

    def __init__(self, proxy: PacketProxy, holds: str) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self._proxy = proxy
        self._holds = holds

    @override
    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        await self._wait("add")
        added = await super().add(record)
        self._done("add")
        return added

    @override
    async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
        await self._wait(*changes)
        changed = await super().change(key, expected, **changes)
        self._done(*changes)
        return changed

    async def _wait(self, *writes: str) -> None:
        if self._holds in writes:
            self.asked.set()
            await self.go.wait()

    def _done(self, *writes: str) -> None:
        if self._holds in writes:
            self._proxy.note("stored")


HoldStore = Callable[[str], HeldStore]


@pytest.fixture
def hold_store(proxy: PacketProxy, make_agent: MakeAgent) -> Iterator[HoldStore]:
    """Makes stores that are let go before the agents stop."""
    made: list[HeldStore] = []

    def make(holds: str) -> HeldStore:
        made.append(HeldStore(proxy, holds))
        return made[-1]

    yield make
    for store in made:
        store.go.set()


@pytest.fixture
async def requester(broker: Broker, namespace: str) -> AsyncIterator[ForeignRequester]:
    peer = ForeignRequester(broker.url, namespace, "scout")
    await soon(peer.start())
    yield peer
    await soon(peer.stop())


@pytest.fixture
async def executor(broker: Broker, namespace: str) -> AsyncIterator[ForeignExecutor]:
    peer = ForeignExecutor(broker.url, namespace, "scout")
    await soon(peer.start())
    yield peer
    await soon(peer.stop())


async def written(agent: Agent) -> None:
    """Wait until every packet that the agent has sent so far has passed: a later message is confirmed."""
    await soon(agent.connection.publish(f"{agent.namespace}/nobody", b""))


async def let_go(store: HeldStore, agent: Agent, proxy: PacketProxy, message: Packet) -> None:
    """Check that a message stays unacknowledged while its store waits, and is acknowledged after the store is done."""
    await soon(store.asked.wait())
    await written(agent)
    assert proxy.puback(message) is None, "acknowledged before it was stored"
    store.go.set()
    assert proxy.in_order(message, "stored", await proxy.acknowledged(message))


@pytest.mark.rule("TASK-3")
@pytest.mark.parametrize("inbox", ["tasks/writer/inbox", "agents/writer/inbox"])
async def test_a_task_is_acknowledged_when_it_is_stored_and_not_before(
    inbox: str, make_agent: MakeAgent, hold_store: HoldStore, proxy: PacketProxy, requester: ForeignRequester
) -> None:
    store = hold_store("add")
    writer = make_agent("writer", broker=proxy.url, store=store)
    writer.on_task(lambda task: task.data)
    await soon(writer.start())
    await requester.give("t-1", data=1, inbox=inbox)
    message = await proxy.publish(f"{writer.namespace}/{inbox}", up=False)
    await let_go(store, writer, proxy, message)
    assert (await requester.result("t-1"))["result"] == 1


@pytest.mark.rule("TASK-3", "TASK-7", "TASK-8")
@pytest.mark.parametrize(
    "fields", [{"data": 1}, {"created_at": None, "to": None, "prompt": None}], ids=["whole", "bare"]
)
async def test_a_repeat_is_acknowledged_when_the_new_topic_for_the_result_is_stored_and_not_before(
    fields: dict[str, Any],
    make_agent: MakeAgent,
    hold_store: HoldStore,
    proxy: PacketProxy,
    requester: ForeignRequester,
) -> None:
    store = hold_store("reply_to")
    writer = make_agent("writer", broker=proxy.url, store=store)
    writer.on_task(lambda task: task.data)
    await soon(writer.start())
    await requester.give("t-1", data=1, reply_to=None)
    await requester.result("t-1")
    await requester.give("t-1", **fields)
    message = await proxy.publish(f"{writer.namespace}/tasks/writer/inbox", up=False, count=2)
    await let_go(store, writer, proxy, message)
    assert (await requester.result("t-1", 2))["result"] == 1


@pytest.mark.rule("RESULT-5", "RESULT-9", "ABOUND-7")
@pytest.mark.parametrize("how", ["delegate", "request"])
@pytest.mark.parametrize("payload", [None, b"unreadable"])
@pytest.mark.parametrize("bound", [False, True], ids=["plain", "bound"])
async def test_a_result_is_acknowledged_when_it_is_stored_and_not_before(
    bound: bool,
    payload: bytes | None,
    how: str,
    make_agent: MakeAgent,
    hold_store: HoldStore,
    proxy: PacketProxy,
    executor: ForeignExecutor,
) -> None:
    features = ["bound"] if bound else []
    await executor.listen("tasks/scout/inbox/planner")
    card = {"name": "scout", "status": "online", "features": features}
    await executor.say("agents/scout/card", card, retain=True)
    inbox = "tasks/scout/inbox/planner" if bound else "tasks/scout/inbox"
    store = hold_store("result")
    planner = make_agent("planner", broker=proxy.url, store=store)
    await soon(planner.start())
    await becomes(lambda: planner.peer("scout"))
    asking = asyncio.ensure_future(getattr(planner, how)("scout", "go"))
    await until(lambda: executor.raw(inbox))
    task = executor.raw(inbox)[0]
    assert task.response_topic is not None
    assert task.response_topic.endswith("/tasks/planner/results/scout") == bound
    # The first readable result counts. The third unreadable one ends a task on plain topics, where anybody may have
    # sent it; on sender-bound topics, the first one does.
    last = 1 if bound or payload is None else 3
    for number in range(1, last + 1):
        if payload is None:
            await executor.answer(task, result=1)
        else:
            where = task.response_topic.removeprefix(f"{executor.namespace}/")
            await executor.say(where, payload, correlation=task.correlation)
        if number < last:
            await proxy.acknowledged(await proxy.publish(task.response_topic, up=False, count=number))
            assert not store.asked.is_set()
    message = await proxy.publish(task.response_topic, up=False, count=last)
    await let_go(store, planner, proxy, message)
    await asyncio.wait([asking], timeout=10)
    assert asking.done()
    asking.exception()  # an unreadable result fails its request


@pytest.mark.rule("RESULT-3")
async def test_a_result_is_sent_when_it_is_stored_and_not_before(
    make_agent: MakeAgent, hold_store: HoldStore, proxy: PacketProxy, requester: ForeignRequester
) -> None:
    store = hold_store("result")
    writer = make_agent("writer", broker=proxy.url, store=store)
    writer.on_task(lambda task: task.data)
    await soon(writer.start())
    topic = f"{writer.namespace}/tasks/scout/results"
    await requester.give("t-1", data=1)
    await soon(store.asked.wait())
    await written(writer)
    assert proxy.published(topic, up=True) == []
    store.go.set()
    assert proxy.in_order("stored", await proxy.publish(topic, up=True))
    assert (await requester.result("t-1"))["result"] == 1


@pytest.mark.rule("ASK-1")
async def test_a_task_is_sent_when_its_requester_has_stored_it_and_not_before(
    make_agent: MakeAgent, hold_store: HoldStore, proxy: PacketProxy, executor: ForeignExecutor
) -> None:
    store = hold_store("add")
    planner = make_agent("planner", broker=proxy.url, store=store)
    await soon(planner.start())
    await becomes(lambda: planner.peer("scout"))
    topic = f"{planner.namespace}/tasks/scout/inbox"
    delegating = asyncio.ensure_future(planner.delegate("scout", "go"))
    await soon(store.asked.wait())
    await written(planner)
    assert proxy.published(topic, up=True) == []
    store.go.set()
    assert proxy.in_order("stored", await proxy.publish(topic, up=True))
    await soon(delegating)


@pytest.mark.rule("CTRL-5")
async def test_an_answer_is_sent_when_its_requester_has_stored_it_and_not_before(
    make_agent: MakeAgent, hold_store: HoldStore, proxy: PacketProxy, executor: ForeignExecutor
) -> None:
    store = hold_store("inputs")
    planner = make_agent("planner", broker=proxy.url, store=store)
    await soon(planner.start())
    await becomes(lambda: planner.peer("scout"))
    task = await soon(planner.delegate("scout", "go"))
    question = {"status": "input-required", "content": "Which year?", "data": {"input_id": "q-1"}}
    await executor.event(await executor.next_task(), 1, "status", **question)
    await until(lambda: task.question)
    topic = f"{planner.namespace}/tasks/scout/control"
    sending = asyncio.ensure_future(task.send(2024))
    await soon(store.asked.wait())
    await written(planner)
    assert proxy.published(topic, up=True) == []
    store.go.set()
    assert proxy.in_order("stored", await proxy.publish(topic, up=True))
    await soon(sending)


@pytest.mark.rule("RESULT-4")
async def test_a_result_is_settled_when_the_broker_has_confirmed_it_and_not_before(
    make_agent: MakeAgent, hold_store: HoldStore, proxy: PacketProxy, requester: ForeignRequester
) -> None:
    store = hold_store("settled")
    store.go.set()
    writer = make_agent("writer", broker=proxy.url, store=store)

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        proxy.hold(up=False)
        return task.data

    await soon(writer.start())
    await requester.give("t-1", data=1)
    result = await proxy.publish(f"{writer.namespace}/tasks/scout/results", up=True)
    await requester.result("t-1")
    assert not store.asked.is_set()
    proxy.release()
    await until(lambda: "stored" in proxy.passed)
    assert proxy.in_order(await proxy.acknowledged(result), "stored")
