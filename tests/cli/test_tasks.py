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


def test_a_task_is_followed_to_its_result(terminal: Terminal) -> None:
    terminal.start("serve", "writer").says("writer takes tasks")
    assert terminal.run("agents", "--json").lines[0]["name"] == "writer"
    said = terminal.run("delegate", "writer", "cats")
    assert said.out == "a text about cats\n"
    assert "thinking 1/2" in said.err
    assert "no idea" in terminal.run("delegate", "writer", "fail", code=1).err
    assert [each["state"] for each in terminal.run("tasks", "--json").lines] == ["completed", "failed"]
    assert [each["prompt"] for each in terminal.run("tasks", "--state", "failed", "--json").lines] == ["fail"]
    assert "did you mean 'writer'?" in terminal.run("delegate", "writr", "cats", code=3).err


def test_a_question_is_answered_by_another_command(terminal: Terminal) -> None:
    terminal.start("serve", "writer").says("takes tasks")
    asked = terminal.run("delegate", "writer", "ask", "--task-id", "t-1", code=1)
    assert "Which colour?" in asked.err
    assert "mqtt-agent answer t-1 TEXT" in asked.err
    assert "input-required" in terminal.run("show", "t-1").out
    assert terminal.run("answer", "t-1", "blue", "--follow").out == "you said blue\n"
    assert "you said blue" in terminal.run("show", "t-1").out
    assert "is over" in terminal.run("cancel", "t-1", code=2).err


def test_a_task_is_canceled(terminal: Terminal) -> None:
    terminal.start("serve", "writer").says("takes tasks")
    task_id = terminal.run("delegate", "writer", "ask", "--detach").out.strip()
    terminal.run("cancel", task_id)
    assert "TaskCanceled" in terminal.run("resume", task_id, code=1).err


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
    said = terminal.run("tasks", "--store", url, "--as", "writer", "--received", "--json")
    [line] = said.lines
    assert (line["task_id"], line["agent"], line["prompt"]) == ("t-1", "planner", "paint cats")
    for wrong, words, code in (
        ("postgresql://127.0.0.1:1/x", "cannot be reached; check that the database runs", 1),
        ("postgresql://host:port/", "not a PostgreSQL URL", 2),
    ):
        assert words in terminal.run("tasks", "--store", wrong, "--as", "writer", code=code).err


def test_an_unknown_task_is_told(terminal: Terminal) -> None:
    assert "Next: list the tasks" in terminal.run("show", "nothing", code=1).err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_question_is_asked_and_answered_at_the_terminal(terminal: Terminal) -> None:
    terminal.start("serve", "writer").says("takes tasks")
    ours, theirs = os.openpty()
    try:
        asking = terminal.start("delegate", "writer", "ask", stdin=theirs)
        asking.says("Which colour?\n")
        os.write(ours, b"blue\n")
        asking.says("you said blue")
        assert asking.ends() == 0
        leaving = terminal.start("delegate", "writer", "ask", "--task-id", "t-1", stdin=theirs)
        leaving.says("Which colour?\n")
        assert leaving.interrupt() == 130  # the task goes on
    finally:
        os.close(ours)
        os.close(theirs)
    assert "input-required" in terminal.run("show", "t-1").out
