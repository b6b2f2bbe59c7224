"""Tasks at the command line: delegate, answer, resume, cancel, list."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from databases import shared_postgres
from mqtt_agent import PostgresStore
from mqtt_agent.agents.store import TaskKey, TaskRecord

from .terminal import Terminal


def test_a_task_is_followed_to_its_result(served: Terminal) -> None:
    me = ("--as", "follower")
    assert "writer" in {each["name"] for each in served.inside("agents", "--json").lines}
    said = served.run("delegate", "writer", "cats", *me)
    assert said.out == "a text about cats\n"
    assert "thinking 1/2" in said.err
    assert "no idea" in served.inside("delegate", "writer", "fail", *me, code=1).err
    assert [each["state"] for each in served.inside("tasks", "--json", *me).lines] == ["completed", "failed"]
    failed = served.inside("tasks", "--state", "failed", "--json", *me).lines
    assert [each["prompt"] for each in failed] == ["fail"]
    wrong = served.inside("delegate", "writr", "cats", *me, code=3).err
    assert "did you mean 'writer'?" in wrong
    assert "wait_online" not in wrong  # what a program would do


def test_a_question_is_answered_by_another_command(served: Terminal) -> None:
    asked = served.run("delegate", "writer", "ask", "--task-id", "t-1", code=1)
    assert "Which colour?" in asked.err
    assert "mqtt-agent answer t-1 TEXT" in asked.err
    assert "input-required" in served.run("show", "t-1").out
    assert served.run("answer", "t-1", "blue", "--follow").out == "you said blue\n"
    assert "you said blue" in served.run("show", "t-1").out
    assert "is over" in served.run("cancel", "t-1", code=2).err


def test_a_task_is_canceled(served: Terminal) -> None:
    me = ("--as", "canceler")
    task_id = served.inside("delegate", "writer", "ask", "--detach", *me).out.strip()
    served.inside("cancel", task_id, *me)
    assert "TaskCanceled" in served.inside("resume", task_id, *me, code=1).err


def test_a_task_outlives_the_command_that_gave_it_and_the_agent_that_does_it(terminal: Terminal) -> None:
    writing = terminal.start("serve", "writer")
    writing.says("takes tasks")
    asking = terminal.start("delegate", "writer", "ask", "--task-id", "t-1", "--json")
    asking.says("input-required")
    asking.kill()
    writing.kill()
    terminal.start("serve", "writer").says("takes tasks")
    assert terminal.run("answer", "t-1", "blue", "--follow").out == "you said blue\n"


def test_the_tasks_of_an_agent_in_postgresql_are_listed(terminal: Terminal, namespace: str) -> None:
    url = shared_postgres().new_database()
    key = TaskKey(f"{namespace}/writer", "received", "t-1")

    async def fill() -> None:
        async with PostgresStore(url) as store:
            await store.add(TaskRecord(key, "planner", {"task_id": "t-1", "prompt": "paint cats"}, "0"))

    asyncio.run(fill())
    said = terminal.inside("tasks", "--store", url, "--as", "writer", "--received", "--json")
    [line] = said.lines
    assert (line["task_id"], line["agent"], line["prompt"]) == ("t-1", "planner", "paint cats")
    for wrong, words, code in (
        ("postgresql://127.0.0.1:1/x", "cannot be reached; check that the database runs", 1),
        ("postgresql://host:port/", "not a PostgreSQL URL", 2),
    ):
        assert words in terminal.inside("tasks", "--store", wrong, "--as", "writer", code=code).err


def test_an_unknown_task_is_told(terminal: Terminal) -> None:
    said = terminal.run("show", "nothing", code=1).err
    assert "Next: list the tasks" in said
    assert "peer=" not in said  # what a program would do


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_question_is_asked_and_answered_at_the_terminal(served: Terminal) -> None:
    ours, theirs = os.openpty()
    try:
        asking = served.start("delegate", "writer", "ask", stdin=theirs)
        asking.says("Which colour?\n")
        os.write(ours, b"blue\n")
        asking.says("you said blue")
        assert asking.ends() == 0
        leaving = served.start("delegate", "writer", "ask", "--task-id", "t-2", stdin=theirs)
        leaving.says("Which colour?\n")
        assert leaving.interrupt() == 130  # the task goes on
    finally:
        os.close(ours)
        os.close(theirs)
    assert "input-required" in served.run("show", "t-2").out
