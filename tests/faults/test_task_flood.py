"""Thousands of tasks arrive at one agent at once: all are stored, few run, and the agent still answers."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from brokers import Mosquitto
from mqtt_agent import Agent, SqliteStore, errors
from mqtt_agent.transport.url import BrokerURL
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from processes import AgentProcesses
from support import soon, until

LONG = bool(os.environ.get("MQTT_AGENT_LONG_TESTS"))
FLOOD = 10_000
WINDOW = 250
ANSWERS_WITHIN = 5.0


class Flooder:
    """A fast requester that does not use our code: paho-mqtt with its own thread.

    The requester sends a few hundred tasks and then asks for the state of the last one, because a broker drops messages
    that do not fit into its queues. Mosquitto's limit is 1,000 messages for one client.
    """

    def __init__(self, url: str, namespace: str, peer: str) -> None:
        where = BrokerURL.parse(url)
        self._topics = f"{namespace}/tasks"
        self._peer = peer
        self._states: dict[str, str] = {}
        self._news = threading.Condition()
        self.slowest = 0.0
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.max_queued_messages_set(0)
        self.client.max_inflight_messages_set(1000)
        self.client.on_message = self._on_message
        self.client.connect(where.host, where.port)
        self.client.subscribe([(f"{self._topics}/+/events", 1), (f"{self._topics}/flooder/results", 1)])
        self.client.loop_start()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        said = json.loads(message.payload)
        if "status" in said:
            with self._news:
                self._states[said["task_id"]] = said["status"]
                self._news.notify_all()

    def send(self, task_id: str, data: Any) -> None:
        task = {"task_id": task_id, "from": "flooder", "created_at": "2026-01-01T00:00:00Z", "data": data}
        self._publish("inbox", task)

    def _publish(self, topic: str, message: dict[str, Any]) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = f"{self._topics}/flooder/results"
        self.client.publish(f"{self._topics}/{self._peer}/{topic}", json.dumps(message), 1, False, properties)

    def tell(self, task_id: str, action: str, *states: str) -> str:
        """Send a control message about a task, and wait until the task is in one of these states."""
        began = time.monotonic()
        with self._news:
            self._states.pop(task_id, None)
            self._publish("control", {"task_id": task_id, "action": action, "from": "flooder"})
            assert self._news.wait_for(lambda: self._states.get(task_id) in states, ANSWERS_WITHIN), (task_id, action)
        self.slowest = max(self.slowest, time.monotonic() - began)
        return self._states[task_id]

    def flood(self, first: int, last: int, data: Any) -> None:
        for number in range(first, last):
            self.send(f"t-{number}", data)
            if number % WINDOW == WINDOW - 1:
                self.tell(f"t-{number}", "get", "submitted", "working")


def journalled(store: Path) -> int:
    with sqlite3.connect(store) as connection:
        return connection.execute("SELECT count(*) FROM tasks").fetchone()[0]


async def test_a_flood_of_tasks_is_stored_while_few_run_and_words_about_them_are_answered(
    mosquitto: Mosquitto, namespace: str, agents: AgentProcesses, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    executor = await agents.start("writer", mosquitto.url, executes=True, options=["--concurrency", "8"])
    flooder = Flooder(mosquitto.url, namespace, "writer")
    try:
        began = time.monotonic()
        await asyncio.to_thread(flooder.flood, 0, FLOOD // 2, {"n": 1, "hangs": 9})
        # During the flood, the first tasks are canceled, and other tasks take their slots.
        flooding = asyncio.create_task(asyncio.to_thread(flooder.flood, FLOOD // 2, FLOOD, {"n": 1, "hangs": 9}))
        running = [event["task_id"] for event in executor.told("began")]
        assert len(running) == 8
        other = Flooder(mosquitto.url, namespace, "writer")
        try:
            for task_id in running:
                await asyncio.to_thread(other.tell, task_id, "cancel", "canceled")
                await executor.tells("stopped", task_id=task_id)
            await asyncio.to_thread(other.tell, "t-9999", "get", "submitted", "rejected")
        finally:
            other.close()
        await soon(flooding, 60)
        assert await asyncio.to_thread(flooder.tell, f"t-{FLOOD - 1}", "get", "submitted") == "submitted"
        seconds = time.monotonic() - began
    finally:
        flooder.close()
    assert journalled(tmp_path / "writer.db") == FLOOD
    await until(lambda: len(executor.told("began")) == 16)
    assert len(executor.told("began")) - len(executor.told("stopped")) == 8
    record_property("tasks per second", round(FLOOD / seconds))
    record_property("slowest answer", round(max(flooder.slowest, other.slowest), 3))
    print(f"{FLOOD / seconds:.0f} tasks/s; slowest answer {flooder.slowest:.3f} s, to others {other.slowest:.3f} s")


async def test_thousands_of_tasks_delegated_at_once_all_get_their_results(
    mosquitto: Mosquitto, namespace: str, agents: AgentProcesses, tmp_path: Path
) -> None:
    count = FLOOD if LONG else 1500
    executor = await agents.start("writer", mosquitto.url, executes=True)
    other = await agents.start("other", mosquitto.url)
    await other.delegate("writer", "hangs", n=0, hangs=9)
    await executor.tells("began", task_id="hangs")
    store = SqliteStore(tmp_path / "planner.db", synchronous="normal")
    async with Agent("planner", broker=mosquitto.url, namespace=namespace, store=store) as planner:
        given = asyncio.gather(*(planner.delegate("writer", data={"n": number}) for number in range(count)))
        await until(lambda: len(executor.told("began")) > count // 10, 60)
        other.say("cancel", task_id="hangs")
        assert (await other.tells("error", task_id="hangs", within=ANSWERS_WITHIN))[
            "type"
        ] == errors.TaskCanceled.__name__
        handles = await soon(given, 120)
        results = await soon(asyncio.gather(*(handle.result() for handle in handles)), 120)
        assert results == [{"square": number**2} for number in range(count)]
    assert set(agents.executions.values()) == {1}
    assert len(agents.executions) == count


async def test_what_a_full_queue_at_the_broker_drops_is_delegated_again(
    make_mosquitto: Callable[..., Mosquitto], namespace: str, agents: AgentProcesses, tmp_path: Path
) -> None:
    broker = make_mosquitto(["max_queued_messages 5", "max_inflight_messages 2"])
    executor = await agents.start("writer", broker.url, executes=True)
    await executor.kill()
    planner = await agents.start("planner", broker.url)
    for number in range(40):
        planner.say("delegate", peer="writer", task_id=f"t-{number}", data={"n": number})
    for number in range(40):
        await planner.tells("delegated", task_id=f"t-{number}")
    await agents.start("writer", broker.url, executes=True)
    for number in range(40):
        assert await planner.result(f"t-{number}", 60) == {"square": number**2}
    assert agents.executions == {f"t-{number}": 1 for number in range(40)}
