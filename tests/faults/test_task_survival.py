"""Tasks between processes survive failures of networks, processes and brokers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Embedded, Mosquitto
from mqtt_agent import Agent, MemoryStore
from processes import AgentProcesses
from proxy import Proxy
from recorder import Recorder
from support import becomes, require, until

LONG_ON = [Embedded]

WORK = {"n": 7, "save": "page 3"}
RIGHT = {"square": 49, "saved": "page 3"}
MakeBroker = Callable[..., Mosquitto]


@pytest.fixture
async def observer(broker: Broker, namespace: str) -> AsyncIterator[Agent]:
    """An observer that sees which agents are online."""
    async with Agent("observer", broker=broker.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


async def online(observer: Agent, *names: str) -> None:
    async def right() -> bool:
        return {card.name for card in await observer.peers()} == set(names)

    await becomes(right, 30)


async def test_a_requester_whose_network_is_away_for_longer_than_its_will_delay_gets_its_result(
    broker: Broker, agents: AgentProcesses, observer: Agent
) -> None:
    async with Proxy(broker.url) as proxy:
        executor = await agents.start("writer", broker.url, executes=True)
        planner = await agents.start("planner", proxy.url)
        await planner.delegate("writer", "t-1", **WORK, seconds=1.5)
        await executor.tells("began", task_id="t-1")
        await proxy.cut()
        await online(observer, "writer")
        await until(lambda: agents.executions, 30)
        await proxy.mend()
        assert await planner.result("t-1") == RIGHT
    assert agents.executions == {"t-1": 1}
    assert len(executor.told("began")) == 1


async def test_an_executor_whose_network_is_away_for_longer_than_its_will_delay_works_on_and_sends_its_result(
    broker: Broker, agents: AgentProcesses, observer: Agent
) -> None:
    async with Proxy(broker.url) as proxy:
        executor = await agents.start("writer", proxy.url, executes=True)
        planner = await agents.start("planner", broker.url)
        await planner.delegate("writer", "t-1", **WORK, seconds=0.5)
        await executor.tells("began", task_id="t-1")
        await proxy.cut()
        await online(observer, "planner")
        await planner.delegate("writer", "t-2", n=3)
        await until(lambda: agents.executions["t-1"], 30)
        await proxy.mend()
        assert await planner.result("t-1") == RIGHT
        assert await planner.result("t-2") == {"square": 9}
    assert agents.executions == {"t-1": 1, "t-2": 1}
    assert executor.told("began", attempt=2) == []


async def test_a_network_that_nobody_notices_is_gone_loses_nothing(broker: Broker, agents: AgentProcesses) -> None:
    async with Proxy(broker.url) as proxy:
        executor = await agents.start("writer", broker.url, executes=True)
        planner = await agents.start("planner", proxy.url)
        await planner.delegate("writer", "t-1", **WORK)
        await planner.result("t-1")
        proxy.hold()
        planner.say("delegate", peer="writer", task_id="t-2", data=WORK)
        await planner.tells("delegated", task_id="t-2")  # stored, and the wait for its confirmation is given up
        proxy.release()
        assert await planner.result("t-2") == RIGHT
    assert agents.executions == {"t-1": 1, "t-2": 1}
    assert executor.told("began", attempt=2) == []


async def test_a_requester_that_dies_while_its_task_runs_resumes_it_in_a_new_process(
    broker: Broker, agents: AgentProcesses
) -> None:
    executor = await agents.start("writer", broker.url, executes=True)
    planner = await agents.start("planner", broker.url)
    await planner.delegate("writer", "t-1", **WORK, seconds=1)
    await planner.delegate("writer", "t-2", n=3)
    await executor.tells("began", task_id="t-1")
    await planner.kill()
    await until(lambda: agents.executions["t-1"], 30)
    again = await agents.start("planner", broker.url)
    for task_id in ("t-1", "t-2"):
        again.say("resume", task_id=task_id)
    assert await again.result("t-1") == RIGHT
    assert await again.result("t-2") == {"square": 9}
    assert agents.executions == {"t-1": 1, "t-2": 1}


async def test_a_request_of_a_killed_process_can_be_resumed_too(broker: Broker, agents: AgentProcesses) -> None:
    executor = await agents.start("writer", broker.url, executes=True)
    planner = await agents.start("planner", broker.url)
    await planner.delegate("writer", "t-0", n=1)
    await planner.result("t-0")
    planner.say("request", peer="writer", task_id="t-1", data={**WORK, "seconds": 1})
    await executor.tells("began", task_id="t-1")
    await planner.kill()
    again = await agents.start("planner", broker.url)
    again.say("resume", task_id="t-1")
    assert await again.result("t-1") == RIGHT
    assert agents.executions["t-1"] == 1


async def test_a_killed_executor_runs_its_task_again_from_what_it_saved(broker: Broker, agents: AgentProcesses) -> None:
    executor = await agents.start("writer", broker.url, executes=True)
    planner = await agents.start("planner", broker.url)
    for attempt in (1, 2):
        if attempt == 1:
            await planner.delegate("writer", "t-1", **WORK, hangs=2)
            await executor.tells("saved", task_id="t-1")
        await executor.kill()
        executor = await agents.start("writer", broker.url, executes=True)
        assert (await executor.tells("began", task_id="t-1", attempt=attempt + 1))["saved"] == "page 3"
    assert await planner.result("t-1") == RIGHT
    assert agents.executions == {"t-1": 1}


async def test_a_result_that_was_stored_and_not_sent_is_sent_by_the_next_process(
    broker: Broker, agents: AgentProcesses
) -> None:
    executor = await agents.start("writer", broker.url, executes=True, crash_point="finished.after-commit:3")
    planner = await agents.start("planner", broker.url)
    for number in range(3):
        planner.say("delegate", peer="writer", task_id=f"t-{number}", data={"n": number})
    await executor.died()
    executor = await agents.start("writer", broker.url, executes=True)
    for number in range(3):
        assert await planner.result(f"t-{number}") == {"square": number**2}
    assert max(agents.executions.values()) == 1


BROKERS_THAT_RESTART = {
    "mosquitto keeps": (lambda: Mosquitto(["persistence true"]), {"keep_state": True}),
    "mosquitto killed, with what it had saved": (
        lambda: Mosquitto(["persistence true"]),
        {"keep_state": True, "kill": True},
    ),
    "mosquitto forgets": (Mosquitto, {"keep_state": False, "kill": True}),
    "embedded forgets": (Embedded, {"keep_state": False, "kill": True}),
}


@pytest.mark.parametrize("which", BROKERS_THAT_RESTART)
async def test_a_broker_that_restarts_loses_no_task_and_runs_none_twice(which: str, agents: AgentProcesses) -> None:
    make, how = BROKERS_THAT_RESTART[which]
    if make is not Embedded:
        require(Mosquitto)
    with make() as broker:
        executor = await agents.start("writer", broker.url, executes=True, options=["--concurrency", "4"])
        planner = await agents.start("planner", broker.url)
        other = await agents.start("other", broker.url)
        for number in range(12):
            asker = (planner, other)[number % 2]
            asker.say("delegate", peer="writer", task_id=f"t-{number}", data={"n": number, "seconds": 0.4})
        await executor.tells("began", task_id="t-4")  # and other tasks have ended, wait, or are on their way
        await asyncio.to_thread(lambda: broker.restart(**how))
        for number in range(12):
            assert await (planner, other)[number % 2].result(f"t-{number}") == {"square": number**2}
        assert agents.executions == {f"t-{number}": 1 for number in range(12)}


@pytest.mark.parametrize("which", BROKERS_THAT_RESTART)
async def test_tasks_survive_a_broker_that_is_away_while_everybody_is_killed(
    which: str, agents: AgentProcesses
) -> None:
    make, how = BROKERS_THAT_RESTART[which]
    if make is not Embedded:
        require(Mosquitto)
    with make() as broker:
        executor = await agents.start("writer", broker.url, executes=True)
        planner = await agents.start("planner", broker.url)
        await planner.delegate("writer", "t-1", **WORK, hangs=1)
        await executor.tells("saved")
        await executor.kill()
        await planner.kill()
        await asyncio.to_thread(lambda: broker.restart(**how))
        executor, planner = await asyncio.gather(
            agents.start("writer", broker.url, executes=True), agents.start("planner", broker.url)
        )
        planner.say("resume", task_id="t-1")
        assert await planner.result("t-1") == RIGHT
    assert agents.executions == {"t-1": 1}


def is_result(topic: str) -> bool:
    """Whether a topic is one for the results of a requester, plain or sender-bound."""
    return topic.endswith(("/results", "/results/writer"))


@pytest.mark.parametrize("bound", ["prefer", "off"])
async def test_messages_that_come_again_late_and_out_of_order_change_nothing(
    bound: str, broker: Broker, namespace: str, agents: AgentProcesses
) -> None:
    await agents.start("writer", broker.url, executes=True, options=["--bound", bound])
    planner = await agents.start("planner", broker.url, options=["--bound", bound])
    with Recorder(broker.url, f"{namespace}/tasks/#") as stranger:
        for number in range(5):
            await planner.delegate("writer", f"t-{number}", n=number, parts=3, listen=True)
        for number in range(5):
            await planner.result(f"t-{number}")
        heard = await stranger.heard(lambda topics: sum(is_result(topic) for topic in topics) >= 5)
        for message in [*reversed(heard), *heard]:
            stranger.say(message)
        await stranger.heard(lambda topics: len(topics) >= 3 * len(heard))
        # The broker keeps the order within a topic, so all messages before the last one have been processed.
        await planner.delegate("writer", "last", n=9)
        assert await planner.result("last") == {"square": 81}
        answers = await stranger.heard(lambda topics: len(topics) >= 3 * len(heard))
    assert agents.executions == {**{f"t-{number}": 1 for number in range(5)}, "last": 1}
    results: dict[str, set[str]] = {}
    for message in answers:
        if is_result(message.topic):
            result = json.loads(message.payload)
            results.setdefault(result["task_id"], set()).add(json.dumps(result, sort_keys=True))
    assert all(len(different) == 1 for different in results.values()), "each repeat is the stored result"
    for number in range(5):
        assert len(planner.told("result", task_id=f"t-{number}")) == 1
        parts = [event["content"] for event in planner.told("partial", task_id=f"t-{number}")]
        assert parts == ["writer 0", "writer 1", "writer 2"]


@pytest.mark.parametrize("bound", ["prefer", "off"])
async def test_a_result_that_was_overtaken_by_a_restart_does_not_replace_the_first(
    bound: str, broker: Broker, namespace: str, agents: AgentProcesses, tmp_path: Path
) -> None:
    await agents.start("writer", broker.url, executes=True, options=["--bound", bound])
    planner = await agents.start("planner", broker.url, options=["--bound", bound])
    with Recorder(broker.url, f"{namespace}/tasks/#") as stranger:
        await planner.delegate("writer", "t-1", **WORK)
        await planner.result("t-1")
        heard = await stranger.heard(lambda topics: any(is_result(topic) for topic in topics))
        [result] = [message for message in heard if is_result(message.topic)]
        forged: dict[str, Any] = {**json.loads(result.payload), "result": {"square": 50}}
        await planner.kill()
        stranger.say(result, json.dumps(forged).encode())
        again = await agents.start("planner", broker.url, options=["--bound", bound])
        again.say("resume", task_id="t-1")
        assert await again.result("t-1") == RIGHT


async def test_of_two_processes_with_one_agent_id_the_second_goes_on_with_the_tasks(
    broker: Broker, agents: AgentProcesses
) -> None:
    planner = await agents.start("planner", broker.url)
    first = await agents.start("writer", broker.url, executes=True)
    await planner.delegate("writer", "t-1", **WORK, hangs=1)
    await first.tells("saved")
    second = await agents.start("writer", broker.url, executes=True)
    ended = await first.tells("ended")
    assert (ended["type"], ended["connected"], ended["running"]) == ("SessionTakenOver", False, 0)
    await first.tells("stopped", task_id="t-1")
    assert await planner.result("t-1") == RIGHT
    assert (await second.tells("began", task_id="t-1"))["attempt"] == 2
    for number in range(2, 5):
        await planner.delegate("writer", f"t-{number}", n=number)
        assert await planner.result(f"t-{number}") == {"square": number**2}
    assert second.told("ended") == []
    assert len(first.told("began")) == 1
    assert set(agents.executions.values()) == {1}


async def test_of_two_requesters_with_one_agent_id_the_second_gets_the_results(
    broker: Broker, agents: AgentProcesses, tmp_path: Path
) -> None:
    executor = await agents.start("writer", broker.url, executes=True)
    first = await agents.start("planner", broker.url)
    go_on = tmp_path / "go_on"
    await first.delegate("writer", "t-1", **WORK, waits_for=str(go_on))
    await executor.tells("saved")
    second = await agents.start("planner", broker.url)
    second.say("resume", task_id="t-1")
    assert (await first.tells("ended"))["type"] == "SessionTakenOver"
    assert (await first.tells("error", task_id="t-1"))["type"] == "SessionTakenOver"
    go_on.touch()
    assert await second.result("t-1") == RIGHT
    assert agents.executions == {"t-1": 1}
