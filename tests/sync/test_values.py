"""Values that JSON cannot carry, with blocking methods."""

from __future__ import annotations

import math

import pytest
from brokers import Mosquitto
from mqtt_agent.agents.store import MemoryStore
from mqtt_agent.errors import InvalidArguments, TaskFailed, ToolFailed, WireError
from mqtt_agent.sync import Agent, TaskContext, ToolClient, ToolContext, ToolServer

RUN_ON = [Mosquitto]


def test_a_bad_number_is_an_error_and_a_bad_character_is_mended(mosquitto: Mosquitto, namespace: str) -> None:
    where = {"broker": mosquitto.url, "namespace": namespace}
    with ToolServer("server", **where) as server, ToolClient("client", **where) as client:  # type: ignore[arg-type]
        problems: list[str] = []

        @server.tool
        def report(ctx: ToolContext) -> str:
            for act in (lambda: ctx.stream([math.nan]), lambda: ctx.progress(math.inf)):
                try:
                    act()
                except WireError as error:
                    problems.append(str(error))
            ctx.stream("\ud800")
            return "done \ud800"

        @server.tool
        def bad() -> float:
            return math.nan

        partials: list[object] = []
        assert client.call("report", on_partial=partials.append) == "done \ufffd"
        assert partials == ["\ufffd"]
        assert problems[0].startswith("data[0] is NaN")
        assert "progress is Infinity" in problems[1]
        with pytest.raises(ToolFailed, match="the tool ran.*result is NaN"):
            client.call("bad")
        with pytest.raises(WireError, match=r"arguments\.number is NaN"):
            client.call("report", {"number": math.nan})
        with pytest.raises(InvalidArguments):
            client.call("report", {"number": 1})


def test_a_task_with_a_bad_number_fails_where_it_was_made(mosquitto: Mosquitto, namespace: str) -> None:
    where = {"broker": mosquitto.url, "namespace": namespace}
    worker = Agent("worker", store=MemoryStore(), **where)  # type: ignore[arg-type]

    @worker.on_task
    def handle(task: TaskContext) -> object:
        with pytest.raises(WireError, match="is NaN"):
            task.save({"a": math.nan})
        task.artifact("a", "\ud800")
        return {"text": task.prompt, "number": math.nan if task.data else 1}

    with worker, Agent("planner", store=MemoryStore(), **where) as planner:  # type: ignore[arg-type]
        assert planner.request("worker", "go \ud800") == {"text": "go \ufffd", "number": 1}
        with pytest.raises(TaskFailed, match=r"the handler ran.*result\.number is NaN"):
            planner.request("worker", "go", data=True)
        with pytest.raises(WireError, match=r"data\.a is NaN"):
            planner.request("worker", "go", data={"a": math.nan})
