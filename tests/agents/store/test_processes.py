"""Several processes use one store, and some of them are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from databases import shared_pooler, shared_postgres
from mqtt_agent.agents.store import RESERVED_SEQS, SqliteStore, TaskRecord, TaskStore
from mqtt_agent.agents.store.choosing import store_at
from mqtt_agent.wire import TaskState
from support import kill, soon

from .conftest import AGENT, new_record

PROGRAM = Path(__file__).parents[2] / "programs" / "store_user.py"

Start = Callable[[str, "Path | str"], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start processes that use one store. Each waits for :func:`go`."""
    started: list[subprocess.Popen[str]] = []

    def run(what: str, place: Path | str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), what, str(place)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        kill(process)


@pytest.fixture(params=["sqlite", "postgres", "pooler"])
def place(request: pytest.FixtureRequest, path: Path) -> str:
    """Where the processes have their store: a path, or the URL of an empty database."""
    if request.param == "sqlite":
        return str(path)
    url = shared_postgres().new_database()
    return url if request.param == "postgres" else shared_pooler().url(url.rsplit("/", 1)[1])


def go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def said(process: subprocess.Popen[str]) -> list[str]:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.splitlines()


async def all_of(store: TaskStore) -> list[TaskRecord]:
    return await soon(store.find(AGENT, "received", limit=1_000_000))


async def test_each_task_is_claimed_once_by_several_processes(start: Start, place: str) -> None:
    async with store_at(place) as store:
        for number in range(400):
            await soon(store.add(new_record(str(number))))
        processes = [start("claim", place) for _ in range(3)]
        go(*processes)
        claimed = [task_id for process in processes for task_id in said(process)]
        assert sorted(claimed, key=int) == [str(number) for number in range(400)]
        records = await all_of(store)
    assert {(record.state, record.attempt, record.seq) for record in records} == {(TaskState.WORKING, 1, RESERVED_SEQS)}


async def test_processes_that_start_together_make_one_store(start: Start, place: str) -> None:
    processes = [start("add", place) for _ in range(4)]
    go(*processes)
    added = [task_id for process in processes for task_id in said(process)]
    assert sorted(added, key=int) == [str(number) for number in range(200)]
    async with store_at(place) as store:
        assert len(await all_of(store)) == 200


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
async def test_what_returned_before_a_kill_is_there_and_nothing_is_half_done(start: Start, place: str) -> None:
    told: dict[str, set[str]] = {"added": set(), "claimed": set(), "saved": set(), "completed": set()}
    for steps in (1, 50, 333, 700):
        process = start("live", place)
        go(process)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(steps)]
        process.kill()
        lines += process.stdout.readlines()
        for line in lines:
            what, task_id = line.split()
            told[what].add(task_id)

        async with store_at(place) as store:
            records = {record.task_id: record for record in await all_of(store)}
            assert told["added"] <= set(records)
            for task_id in told["claimed"]:
                assert records[task_id].attempt == 1
            for task_id in told["saved"]:
                assert records[task_id].saved == task_id
            for task_id in told["completed"]:
                assert records[task_id].state is TaskState.COMPLETED
            for record in records.values():
                if record.state is TaskState.SUBMITTED:
                    assert (record.attempt, record.seq, record.saved, record.result) == (0, 0, None, None)
                    continue
                assert (record.attempt, record.seq) == (1, RESERVED_SEQS)
                assert record.saved in (None, record.task_id)
                completed = record.state is TaskState.COMPLETED
                assert record.result == ({"result": record.task_id} if completed else None)
    assert all(told.values())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no resource limits")
async def test_a_full_disk_loses_nothing_that_returned_and_ends_when_there_is_room(start: Start, path: Path) -> None:
    process = start("fill", path)
    go(process)
    lines = said(process)
    errors = [line for line in lines if line.startswith("error")]
    assert len(errors) == 1
    assert str(path) in errors[0]
    assert "disk is full" in errors[0]
    assert len(lines) > 10
    assert lines[-1] != errors[0]
    async with SqliteStore(path) as store:
        assert [f"added {record.task_id}" for record in await all_of(store)] == [
            line for line in lines if line not in errors
        ]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no modes")
@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o555, None), (0o555, 0o444), (0o755, 0o000), (0o000, 0o644)])
async def test_what_may_not_be_written_is_refused_by_name(
    start: Start, folder_mode: int, file_mode: int | None
) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "folder"
        path = folder / "tasks.db"
        folder.mkdir()
        if file_mode is not None:
            async with SqliteStore(path) as store:
                await soon(store.add(new_record()))
            path.chmod(file_mode)
        folder.chmod(folder_mode)
        process = start("look", path)
        go(process)
        (line,) = said(process)
        folder.chmod(0o755)
        assert line.startswith("error")
        assert str(path) in line
        assert "writable" in line or "permissions" in line
        assert os.listdir(folder) == ([] if file_mode is None else ["tasks.db"])
