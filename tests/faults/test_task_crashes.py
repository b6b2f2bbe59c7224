"""A process is killed at each point between two writes, and started again: each task gets its one correct result."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from brokers import Broker, Embedded, Mosquitto
from databases import shared_postgres
from mqtt_agent.agents.crashpoints import POINTS
from mqtt_agent.agents.store.choosing import is_postgres_url
from processes import AgentProcesses
from support import soon

AT_EXECUTOR = sorted(point for point in POINTS if point.split(".")[0] in ("received", "finished", "result"))
AT_REQUESTER = sorted(POINTS - set(AT_EXECUTOR))
RIGHT = {"square": 49, "saved": "page 3"}
MakeBroker = Callable[[], Broker]

WHAT_HAPPENS = ("mosquitto keeps its state", "mosquitto loses its state", "embedded stays", "embedded, with PostgreSQL")
LONG = ["embedded stays", "mosquitto keeps its state"]


@pytest.fixture(params=[pytest.param(each, marks=pytest.mark.long if each in LONG else ()) for each in WHAT_HAPPENS])
def happens(request: pytest.FixtureRequest) -> str:
    """What happens to the broker while the process is dead."""
    return request.param


@pytest.fixture
def the_broker(happens: str, make_mosquitto: Callable[..., Mosquitto]) -> Iterator[Broker]:
    """The broker of the test."""
    if happens.startswith("embedded"):
        with Embedded() as broker:
            yield broker
    else:
        yield make_mosquitto(["persistence true"])


async def restart(broker: Broker, happens: str) -> None:
    if isinstance(broker, Mosquitto):
        keeps = happens.endswith("keeps its state")
        await asyncio.to_thread(broker.restart, keep_state=keeps, kill=not keeps)


@pytest.fixture
async def agents(happens: str, tmp_path: Path, namespace: str) -> AsyncIterator[AgentProcesses]:
    """Starts agents in their own processes."""
    store = shared_postgres().new_database() if happens.endswith("PostgreSQL") else None
    processes = AgentProcesses(tmp_path, namespace, store)
    yield processes
    await processes.close()


def state_in(store: str, role: str) -> str | None:
    """The state of the only task with a role in a store. No process has the store open."""
    if is_postgres_url(store):
        with psycopg.connect(store) as database:
            found = database.execute("SELECT state FROM mqtt_agent.tasks WHERE role = %s", (role,)).fetchall()
    else:
        with sqlite3.connect(store) as connection:
            found = connection.execute("SELECT state FROM tasks WHERE role = ?", (role,)).fetchall()
    return found[0][0] if found else None


@pytest.mark.parametrize("point", AT_EXECUTOR)
async def test_an_executor_killed_in_any_window_does_its_task_and_sends_one_result(
    point: str, the_broker: Broker, happens: str, agents: AgentProcesses
) -> None:
    executor, planner = await soon(
        asyncio.gather(
            agents.start("writer", the_broker.url, executes=True, crash_point=point),
            agents.start("planner", the_broker.url),
        ),
        30,
    )
    planner.say("delegate", peer="writer", task_id="t-1", data={"n": 7, "save": "page 3"})
    await executor.died()
    states = {"received.before-commit": {None}, "finished.before-commit": {"working"}}.get(point, {"completed"})
    if point in ("received.after-commit", "received.after-puback"):
        # A handler slot was free, so the task is stored as begun, unless it arrived before the agent had completely
        # started.
        states = {"working", "submitted"}
    assert state_in(agents.store_of("writer"), "received") in states
    await restart(the_broker, happens)
    again = await agents.start("writer", the_broker.url, executes=True)
    assert await planner.result("t-1") == RIGHT
    # The handler had done its last action, and the store did not yet contain the result.
    assert agents.executions == {"t-1": 2 if point == "finished.before-commit" else 1}
    if point == "finished.before-commit":
        assert again.told("began", attempt=2, saved="page 3")
    await agents.close()
    assert state_in(agents.store_of("writer"), "received") == "completed"
    assert state_in(agents.store_of("planner"), "delegated") == "completed"
    assert len(planner.told("result")) == 1


@pytest.mark.parametrize("point", AT_REQUESTER)
async def test_a_requester_killed_in_any_window_gets_its_one_result(
    point: str, the_broker: Broker, happens: str, agents: AgentProcesses
) -> None:
    _, planner = await soon(
        asyncio.gather(
            agents.start("writer", the_broker.url, executes=True),
            agents.start("planner", the_broker.url, crash_point=point),
        ),
        30,
    )
    planner.say("delegate", peer="writer", task_id="t-1", data={"n": 7, "save": "page 3"})
    await planner.died()
    state = {"delegated.before-commit": None, "outcome.after-commit": "completed"}.get(point, "open")
    known = state_in(agents.store_of("planner"), "delegated")
    assert (known if known in (None, "completed") else "open") == state
    await restart(the_broker, happens)
    again = await agents.start("planner", the_broker.url)
    if point == "delegated.before-commit":
        again.say("resume", task_id="t-1")
        assert (await again.tells("error"))["type"] == "TaskNotFound"
        await again.delegate("writer", "t-1", n=7, save="page 3")
    else:
        again.say("resume", task_id="t-1")
    assert await again.result("t-1") == RIGHT
    assert agents.executions == {"t-1": 1}
    await agents.close()
    assert state_in(agents.store_of("planner"), "delegated") == "completed"
    assert planner.told("result") == []
