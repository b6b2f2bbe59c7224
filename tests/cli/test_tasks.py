"""Tasks at the command line: delegate, answer, resume, cancel, list."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import uuid

import psycopg
import pytest
from databases import shared_postgres
from mqtt_agent import PostgresStore
from mqtt_agent.agents.store import TaskKey, TaskRecord, postgres_schema
from mqtt_agent.agents.store.members import MemberStore

from .terminal import Said, Terminal


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
    me = ("--as", "asker")
    asked = served.run("delegate", "writer", "ask", "--task-id", "t-1", *me, code=1)
    assert "Which colour?" in asked.err
    assert "mqtt-agent answer t-1 TEXT" in asked.err
    assert "input-required" in served.inside("show", "t-1", *me).out
    assert served.run("answer", "t-1", "blue", "--follow", *me).out == "you said blue\n"
    assert "you said blue" in served.inside("show", "t-1", *me).out
    assert "is over" in served.inside("cancel", "t-1", *me, code=2).err


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


async def test_looking_at_a_database_makes_and_migrates_no_tables(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = shared_postgres().new_database()
    where = ("--store", url, "--as", "writer")

    def look(*words: str) -> str:
        return terminal.inside(*words, code=1).err

    async def tables() -> int:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            found = await connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'mqtt_agent'")
            return (await found.fetchall())[0][0]

    for words in (("tasks", *where), ("tasks", "--members", *where), ("console", "--store", url)):
        assert "has no tables in the schema mqtt_agent" in await asyncio.to_thread(look, *words)
    assert await tables() == 0
    with monkeypatch.context() as older:
        older.setattr(postgres_schema, "MIGRATIONS", postgres_schema.MIGRATIONS[:1])
        async with PostgresStore(url):
            before = await tables()
    assert "was made by an older version of mqtt-agent" in await asyncio.to_thread(look, "tasks", *where)
    assert await tables() == before


async def test_the_members_of_a_pool_are_listed_and_who_has_which_task(terminal: Terminal, namespace: str) -> None:
    owner, url = f"{namespace}/writer", shared_postgres().new_database()
    store, where = PostgresStore(url, lease=60), ("--store", url, "--as", "writer")
    busy, idle = (MemberStore(store, owner, name, lambda beat: None) for name in ("busy", "idle"))

    async def tell(*words: str, code: int = 0) -> Said:
        return await asyncio.to_thread(terminal.inside, "tasks", *words, code=code)

    async with store:
        assert "has no members" in (await tell(*where, "--members")).err
        await busy.join()
        await idle.join()
        try:
            for task_id in ("t-1", "t-2"):
                await store.add(TaskRecord(TaskKey(owner, "received", task_id), "planner", {"prompt": "cats"}, "0"))
            assert (await busy.claim(owner)) is not None
            lines = (await tell(*where, "--members", "--json")).lines
            assert [(each["member"], each["tasks"]) for each in lines] == [("busy", 1), ("idle", 0)]
            assert all(0 < each["lease"] <= 60 for each in lines)
            assert re.search(r"^busy .*ends in \d+\.\d s +1 *$", (await tell(*where, "--members")).out, re.MULTILINE)
            lines = (await tell(*where, "--received", "--json")).lines
            assert [(each["task_id"], each["member"]) for each in lines] == [("t-1", "busy"), ("t-2", None)]
            seen = (await tell("--store", await _for_a_reader(url), "--as", "writer", "--members", "--json")).lines
            assert [each["member"] for each in seen] == ["busy", "idle"]
            heads, first, second = (await tell(*where, "--received")).out.splitlines()
            assert (heads.split()[3], first.split()[3], "busy" in second) == ("member", "busy", False)
        finally:
            await busy.leave()
            await idle.leave()
    assert "only a pool has members" in (await tell("--members", code=2)).err


async def _for_a_reader(url: str) -> str:
    """The URL of a new user who may only read the tables."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for line in (
            f"CREATE ROLE {name} LOGIN",
            f"GRANT USAGE ON SCHEMA mqtt_agent TO {name}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA mqtt_agent TO {name}",
        ):
            await connection.execute(line.encode())
    return re.sub(r"//\w+@", f"//{name}@", url)


def test_an_unknown_task_is_told(terminal: Terminal) -> None:
    said = terminal.inside("show", "nothing", "--as", "asker", code=1).err
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
    served.run("cancel", "t-2")  # otherwise the agent waits for the answer when it stops
