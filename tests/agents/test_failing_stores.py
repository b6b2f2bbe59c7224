"""A store that fails for a while costs no task, no result and no answer, and few lines in the log."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent import Agent, Connection, MemoryStore, SqliteStore, TaskContext, TaskState, errors
from mqtt_agent.agents.executing.context import SyncTaskContext
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.agents.store.retrying import StoreRetry
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Control, Task, Topics, encode
from skips import inapplicable
from support import becomes, soon, until
from typing_extensions import override

from .conftest import MakeAgent

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


@contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Another process locks the file of a store. Yields a function that ends the lock."""
    command = [sys.executable, "-c", LOCKER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"

        def unlock() -> None:
            process.communicate("unlock\n", timeout=10)

        yield unlock
        if process.poll() is None:
            unlock()


@pytest.fixture
async def tiny_disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        inapplicable("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk. Returns the file to delete when the disk must have room again."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


def told(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


class LostAnswers(MemoryStore):
    """A store that makes a change, and then fails as if its answer was lost: once for each wanted change."""

    def __init__(self, *wanted: Any) -> None:
        super().__init__()
        self.wanted = list(wanted)

    def lose(self, what: Any) -> None:
        if what in self.wanted:
            self.wanted.remove(what)
            raise errors.StoreError("the connection to the store was lost")

    @override
    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        answer = await super().add(record)
        self.lose("add")
        return answer

    @override
    async def claim(self, agent: str) -> TaskRecord | None:
        answer = await super().claim(agent)
        self.lose("claim")
        return answer

    @override
    async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
        answer = await super().change(key, expected, **changes)
        self.lose(changes.get("state") or next(name for name in changes if name != "expected_attempt"))
        return answer


class TestHandlers:
    @pytest.mark.parametrize("kind", ["async", "plain"])
    async def test_a_checkpoint_waits_until_a_lock_is_gone(
        self,
        kind: str,
        make_agent: MakeAgent,
        planner: Agent,
        namespace: str,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        path = tmp_path / "tasks.db"
        writer = make_agent("writer", store=SqliteStore(path, busy_timeout=0.05))
        began, go = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        if kind == "async":

            @writer.on_task
            async def handle(task: TaskContext) -> Any:
                began.set()
                await go.wait()
                await task.save({"page": 7})
                return task.saved
        else:

            @writer.on_task
            def handle_in_thread(task: SyncTaskContext) -> Any:
                loop.call_soon_threadsafe(began.set)
                asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
                task.save({"page": 7})
                return task.saved

        await soon(writer.start())
        task = await soon(planner.delegate("writer"))
        await soon(began.wait())
        with locked(path) as unlock:
            go.set()
            await until(lambda: told(caplog, "locked by another process"))
            unlock()
            assert await soon(task.result()) == {"page": 7}
        assert len(told(caplog, "works again after")) == 1
        record = await soon(writer.store.get(TaskKey(f"{namespace}/writer", "received", task.task_id, "planner")))
        assert record is not None
        assert record.saved == {"page": 7}

    async def test_a_question_waits_until_a_lock_is_gone(
        self, make_agent: MakeAgent, planner: Agent, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "tasks.db"
        writer = make_agent("writer", store=SqliteStore(path, busy_timeout=0.05))
        began, go = asyncio.Event(), asyncio.Event()

        @writer.on_task
        async def handle(task: TaskContext) -> Any:
            began.set()
            await go.wait()
            return await task.ask("Which year?")

        await soon(writer.start())
        task = await soon(planner.delegate("writer"))
        await soon(began.wait())
        with locked(path) as unlock:
            go.set()
            await until(lambda: told(caplog, "locked by another process"))
            unlock()
            await until(lambda: task.question)
            await soon(task.send(2024))
            assert await soon(task.result()) == 2024

    async def test_a_value_that_can_never_be_stored_is_not_tried_for_ever(
        self, make_agent: MakeAgent, planner: Agent
    ) -> None:
        class Picky(MemoryStore):
            @override
            async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
                if "saved" in changes:
                    raise errors.StoreError("no row has room for this", permanent=True)
                return await super().change(key, expected, **changes)

        writer = make_agent("writer", store=Picky())

        @writer.on_task
        async def handle(task: TaskContext) -> str:
            try:
                await task.save({"page": 1})
            except errors.StoreError as error:
                return f"without a checkpoint: {error}"
            return "with a checkpoint"

        await soon(writer.start())
        assert await soon(planner.request("writer")) == "without a checkpoint: no row has room for this"

    async def test_a_task_whose_store_fails_while_its_agent_stops_runs_at_the_next_start(
        self, make_agent: MakeAgent, planner: Agent, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "tasks.db"
        writer = make_agent("writer", store=SqliteStore(path, busy_timeout=0.05), drain_timeout=5)
        began, go = asyncio.Event(), asyncio.Event()

        @writer.on_task
        async def handle(task: TaskContext) -> int:
            began.set()
            await go.wait()
            await task.save({"page": 1})
            return task.attempt

        await soon(writer.start())
        task = await soon(planner.delegate("writer"))
        await soon(began.wait())
        with locked(path):
            stopping = asyncio.ensure_future(writer.stop())
            await until(lambda: not writer._executor.executing)
            go.set()
            await soon(stopping)
        assert told(caplog, "could not continue") == []
        await soon(writer.start())
        assert await soon(task.result()) == 2


class TestRequesters:
    async def test_a_result_that_can_never_be_stored_fails_its_caller_and_holds_up_no_other_message(
        self, make_agent: MakeAgent, writer: Agent
    ) -> None:
        class Picky(MemoryStore):
            @override
            async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
                if key.task_id == "bad" and "result" in changes:
                    raise errors.StoreError("no row has room for this", permanent=True)
                return await super().change(key, expected, **changes)

        planner = make_agent("planner", store=Picky())

        @writer.on_task
        async def handle(task: TaskContext) -> Any:
            return task.data

        await soon(planner.start())
        link = planner.connection._lifetime.reconnector.link  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(errors.StoreError, match="task bad: its result arrived, but was not stored: no row"):
            await soon(planner.request("writer", task_id="bad"))
        assert await soon(planner.request("writer", data=1)) == 1
        await until(lambda: not link._acknowledgements._pending)  # pyright: ignore[reportPrivateUsage, reportOptionalMemberAccess]

    async def test_a_canceled_request_cancels_the_task_of_its_peer_although_the_store_fails(
        self, make_agent: MakeAgent, writer: Agent
    ) -> None:
        class Failing(MemoryStore):
            fails = True

            @override
            async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
                if self.fails and "cancel_requested" in changes:
                    raise errors.StoreError("disk full")
                return await super().change(key, expected, **changes)

        planner = make_agent("planner", store=Failing())
        began, canceled = asyncio.Event(), asyncio.Event()

        @writer.on_task
        async def handle(task: TaskContext) -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                canceled.set()

        await soon(planner.start())
        asking = asyncio.ensure_future(planner.request("writer"))
        await soon(began.wait())
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(asking)
        await soon(canceled.wait())

    async def test_a_damaged_task_does_not_stop_the_other_tasks(
        self, make_agent: MakeAgent, writer: Agent, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "tasks.db"
        asked: list[str] = []
        go = asyncio.Event()

        @writer.on_task
        async def handle(task: TaskContext) -> str:
            await go.wait()
            return "done"

        planner = make_agent("planner", store=path)
        await soon(planner.start())
        tasks = [await soon(planner.delegate("writer", task_id=task_id)) for task_id in ("bad", "good")]
        await until(lambda: all(task.state is TaskState.WORKING for task in tasks))
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE tasks SET task = '{' WHERE task_id = 'bad'")
        delegations = planner._delegations  # pyright: ignore[reportPrivateUsage]
        send_again = delegations._resender.send_again  # pyright: ignore[reportPrivateUsage]

        async def noted(record: TaskRecord) -> None:
            asked.append(record.task_id)
            await send_again(record)

        delegations._resender.send_again = noted  # type: ignore[method-assign] # pyright: ignore[reportPrivateUsage]
        for times in (1, 2):
            delegations._tasks.reminders.hurry("writer")  # pyright: ignore[reportPrivateUsage]
            await until(lambda: told(caplog, "task bad is not sent again"))
            await until(lambda times=times: asked == ["good"] * times)
            await until(lambda: not delegations._resender._unanswered)  # pyright: ignore[reportPrivateUsage]
        assert len(told(caplog, "task bad is not sent again")) == 1
        assert [task.task_id for task in await soon(planner.delegations())] == ["good"]
        await soon(planner.stop())
        await soon(planner.start())
        again = await soon(planner.resume("good"))
        go.set()
        assert await soon(again.result()) == "done"

    async def test_a_task_that_the_broker_refused_is_given_up_when_the_store_works_again(
        self, make_agent: MakeAgent, writer: Agent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Failing(MemoryStore):
            failures = 1

            @override
            async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
                if self.failures:
                    self.failures -= 1
                    raise errors.StoreError("disk full")
                return await super().change(key, expected, **changes)

        planner = make_agent("planner", store=Failing())
        await soon(planner.start())

        def refuse(
            record: TaskRecord,
            reply_to: str | None = None,
            on_confirmed: Callable[[asyncio.Future[int]], None] = lambda confirmed: None,
        ) -> asyncio.Future[int]:
            confirmed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            confirmed.set_result(0x87)
            on_confirmed(confirmed)
            return confirmed

        monkeypatch.setattr(planner._delegations._sender, "send", refuse)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(errors.TopicNotAuthorized):
            await soon(planner.delegate("writer"))

        async def given_up() -> bool:
            return [task.state for task in await planner.delegations()] == [TaskState.FAILED]

        await becomes(given_up)


class TestLostAnswers:
    @pytest.mark.parametrize(
        ("lost", "attempt"),
        [("add", 2), (TaskState.COMPLETED, 1), ("settled", 1), ("saved", 1)],
        ids=["add", "result", "settled", "checkpoint"],
    )
    async def test_a_change_that_was_made_although_the_store_failed_counts(
        self, lost: Any, attempt: int, make_agent: MakeAgent, planner: Agent
    ) -> None:
        store = LostAnswers(lost)
        writer = make_agent("writer", store=store)

        @writer.on_task
        async def handle(task: TaskContext) -> int:
            await task.save("begun")
            return task.attempt

        await soon(writer.start())
        task = await soon(planner.delegate("writer"))
        assert await soon(task.result()) == attempt  # much sooner than after 10 s, when the planner asks again
        await until(lambda: store.wanted == [])  # the note that the result was sent comes after the result

    @pytest.mark.parametrize("lost", ["add", "claim"])
    async def test_a_task_that_waits_is_not_forgotten(self, lost: str, make_agent: MakeAgent, planner: Agent) -> None:
        store = LostAnswers()
        writer = make_agent("writer", store=store, max_concurrency=1)
        go = asyncio.Event()

        @writer.on_task
        async def handle(task: TaskContext) -> int:
            await go.wait()
            return task.data

        await soon(writer.start())
        first = await soon(planner.delegate("writer", data=1))
        await until(lambda: writer.running_tasks == 1)
        store.wanted = [lost]
        second = await soon(planner.delegate("writer", data=2))
        if lost == "add":
            await until(lambda: store.wanted == [])
        else:
            await until(lambda: writer._executor.waiting == 1)  # pyright: ignore[reportPrivateUsage]
        go.set()
        assert await soon(first.result()) == 1
        assert await soon(second.result()) == 2
        assert store.wanted == []

    async def test_a_cancel_ends_its_handler(self, make_agent: MakeAgent, planner: Agent) -> None:
        store = LostAnswers(TaskState.CANCELED)
        writer = make_agent("writer", store=store)

        @writer.on_task
        async def handle(task: TaskContext) -> None:
            await asyncio.Event().wait()

        await soon(writer.start())
        task = await soon(planner.delegate("writer"))
        await until(lambda: writer.running_tasks == 1)
        await soon(task.cancel())
        with pytest.raises(errors.TaskCanceled):
            await soon(task.result())
        await until(lambda: writer.running_tasks == 0)
        assert store.wanted == []

    async def test_a_result_reaches_the_one_who_waits_for_it(self, make_agent: MakeAgent, writer: Agent) -> None:
        store = LostAnswers(TaskState.COMPLETED)
        planner = make_agent("planner", store=store)
        await soon(planner.start())

        @writer.on_task
        async def handle(task: TaskContext) -> str:
            return "done"

        assert await soon(planner.request("writer")) == "done"
        assert store.wanted == []


class Asker:
    """A requester that gives the task t-1 to the agent writer, asks about the task, and keeps all messages about it."""

    def __init__(self, broker: Broker, namespace: str) -> None:
        self.results: list[InboundMessage] = []
        self.events: list[InboundMessage] = []
        self.topics = Topics(namespace)
        self.connection = Connection(broker.url, client_id="asker")

    async def start(self) -> None:
        await self.connection.start()
        await self.connection.subscribe(self.topics.task_result("t-1"), self.results.append)
        await self.connection.subscribe(self.topics.task_events("t-1"), self.events.append)

    async def give(self) -> None:
        task = Task(task_id="t-1", sender="asker", to="writer", data=1, stream=False)
        await self.connection.publish(self.topics.inbox("writer"), encode(task))

    async def ask(self) -> None:
        await self.connection.publish(
            self.topics.control("writer"), encode(Control(task_id="t-1", action="get", sender="asker"))
        )


@pytest.fixture
async def asker(broker: Broker, namespace: str) -> AsyncIterator[Asker]:
    asker = Asker(broker, namespace)
    await soon(asker.start())
    yield asker
    await soon(asker.connection.stop())


class Refusing(MemoryStore):
    """A store that refuses some changes, as long as the test wants.

    Args:
        refuses: Whether the store refuses a change of these fields.
        permanent: Whether the store says that a repeat is useless.
    """

    def __init__(self, refuses: Callable[[dict[str, Any]], bool], *, permanent: bool) -> None:
        super().__init__()
        self.refuses = refuses
        self.refused = 0
        self._permanent = permanent

    @override
    async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
        if self.refuses(changes):
            self.refused += 1
            raise errors.StoreError("no row has room for this", permanent=self._permanent)
        return await super().change(key, expected, **changes)


class TestResults:
    async def test_a_result_is_sent_again_while_the_store_cannot_note_that_it_was_sent(
        self, make_agent: MakeAgent, asker: Asker
    ) -> None:
        store = Refusing(lambda changes: "settled" in changes, permanent=False)
        writer = make_agent("writer", store=store)
        writer.on_task(lambda task: task.data)
        await soon(writer.start())
        await soon(asker.give())
        await until(lambda: store.refused)
        for sent in (1, 2, 3):
            await until(lambda sent=sent: len(asker.results) == sent)
            await soon(asker.ask())
        await until(lambda: len(asker.results) == 4)
        await until(lambda: len(writer._executor.background) == 1)  # the note is tried once at a time
        store.refuses = lambda changes: False

        async def is_settled() -> bool:
            record = await store.get(TaskKey(f"{writer.namespace}/writer", "received", "t-1", "asker"))
            return record is not None and record.settled

        await becomes(is_settled)

    async def test_a_result_that_can_never_be_stored_fails_its_task(
        self, make_agent: MakeAgent, planner: Agent, caplog: pytest.LogCaptureFixture
    ) -> None:
        def is_large(changes: dict[str, Any]) -> bool:
            return len(str(changes.get("result"))) > 10_000

        writer = make_agent("writer", store=Refusing(is_large, permanent=True))
        runs: list[int] = []

        @writer.on_task
        async def handle(task: TaskContext) -> str:
            runs.append(task.attempt)
            await task.artifact("chapter", "x" * 20_000)
            return "x" * 20_000

        await soon(writer.start())
        task = await soon(planner.delegate("writer"))
        with pytest.raises(errors.TaskFailed, match="ended as completed.*no row has room for this") as failed:
            await soon(task.result())
        assert failed.value.code == "RESULT_NOT_STORED"
        assert runs == [1]
        assert len(told(caplog, "cannot be stored")) == 1

    async def test_a_task_whose_end_can_never_be_stored_runs_once_in_the_life_of_its_agent(
        self, make_agent: MakeAgent, asker: Asker, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = Refusing(lambda changes: "result" in changes, permanent=True)
        writer = make_agent("writer", store=store)
        runs: list[int] = []

        @writer.on_task
        async def handle(task: TaskContext) -> None:
            runs.append(task.attempt)

        await soon(writer.start())
        await soon(asker.give())
        await until(lambda: store.refused and writer.running_tasks == 0)
        for answers in (1, 2):
            await soon(asker.ask())
            await until(lambda answers=answers: len(asker.events) == answers)
            await until(lambda: writer.running_tasks == writer._executor.waiting == len(writer._executor.background))
        assert runs == [1]
        assert len(told(caplog, "is not run again before the next start")) == 1
        await soon(writer.stop())
        store.refuses = lambda changes: False
        await soon(writer.start())
        await until(lambda: asker.results)
        assert runs == [1, 2]


class TestLogs:
    async def test_a_full_disk_is_told_once_and_so_is_its_end(
        self,
        make_agent: MakeAgent,
        planner: Agent,
        tiny_disk: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        caplog.set_level(logging.INFO)
        repeats, repeat = dict[object, int](), StoreRetry._repeat  # how often each piece of work was tried again

        def counted(self: StoreRetry, work: Callable[[], Awaitable[Any]], what: str) -> Awaitable[Any]:
            piece = object()
            repeats[piece] = 0

            async def count() -> Any:
                repeats[piece] += 1
                return await work()

            return repeat(self, count, what)

        monkeypatch.setattr(StoreRetry, "_repeat", counted)
        writer = make_agent("writer", store=tiny_disk / "tasks.db", max_concurrency=50)
        begun: list[int] = []
        go = asyncio.Event()

        @writer.on_task
        async def handle(task: TaskContext) -> int:
            begun.append(task.data)
            await go.wait()
            return task.data

        await soon(writer.start())
        tasks = [await soon(planner.delegate("writer", data=number)) for number in range(20)]
        await until(lambda: len(begun) == 20)
        filler = fill(tiny_disk)
        go.set()
        tasks += [await soon(planner.delegate("writer", data=number)) for number in range(20, 40)]
        await until(lambda: told(caplog, "the disk is full"))
        await until(lambda: len(repeats) >= 20 and all(each > 0 for each in repeats.values()), 20)
        filler.unlink()
        assert [await soon(task.result(), 20) for task in tasks] == list(range(40))
        await until(lambda: told(caplog, "works again after"))
        troubled = [record for record in caplog.records if record.levelno >= logging.WARNING]
        troubled = [record for record in troubled if record.name.startswith("mqtt_agent.agents.store.")]
        assert [record.levelname for record in troubled] == ["ERROR", "WARNING"]
        assert "the disk is full; free some space" in troubled[0].getMessage()
        assert "nothing is acknowledged before" in troubled[0].getMessage()

    async def test_an_agent_that_stops_meanwhile_tells_it_once(
        self, make_agent: MakeAgent, planner: Agent, tiny_disk: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        writer = make_agent("writer", store=tiny_disk / "tasks.db", max_concurrency=50)
        go = asyncio.Event()

        @writer.on_task
        async def handle(task: TaskContext) -> int:
            await go.wait()
            return task.data

        await soon(writer.start())
        tasks = [await soon(planner.delegate("writer", data=number)) for number in range(20)]
        await until(lambda: writer.running_tasks == 20)
        filler = fill(tiny_disk)
        go.set()
        await until(lambda: told(caplog, "the disk is full"))
        await soon(writer.stop())
        lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.levelname for record in lines] == ["ERROR", "ERROR"]
        assert "stops while its store does not work" in lines[1].getMessage()
        filler.unlink()
        await soon(writer.start())
        assert [await soon(task.result(), 20) for task in tasks] == list(range(20))


async def test_results_that_arrive_while_the_requester_stops_do_not_keep_it_busy(
    make_agent: MakeAgent, writer: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(MemoryStore):
        """A store that takes no result any more."""

        tries = 0
        fails = False

        @override
        async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
            if self.fails and changes.get("result") is not None:
                self.tries += 1
                raise errors.StoreError("disk full")
            return await super().change(key, expected, **changes)

    store = Failing()
    planner = make_agent("planner", store=store)
    go = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        await go.wait()
        return "done"

    await soon(planner.start())
    task = await soon(planner.delegate("writer"))
    store.fails = True
    unfollow = planner._presence.unfollow  # pyright: ignore[reportPrivateUsage]

    async def unfollow_when_the_result_has_arrived() -> None:
        go.set()
        await until(lambda: store.tries)
        await unfollow()

    monkeypatch.setattr(planner._presence, "unfollow", unfollow_when_the_result_has_arrived)  # pyright: ignore[reportPrivateUsage]
    await soon(planner.stop())
    tries = store.tries
    assert len(planner._delegations._tasks.background) == 0  # pyright: ignore[reportPrivateUsage]
    store.fails = False
    await soon(planner.start())
    assert await soon((await soon(planner.resume(task.task_id))).result()) == "done"
    assert store.tries == tries


async def test_each_agent_of_a_shared_store_keeps_its_tasks_for_its_own_time(
    make_agent: MakeAgent, planner: Agent
) -> None:
    store = MemoryStore()
    runs: list[str] = []

    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        return "done"

    writer = make_agent("writer", store=store)
    writer.on_task(handle)
    await soon(writer.start())
    assert await soon(planner.request("writer", task_id="t-1", data=1)) == "done"
    sweeping = asyncio.Event()
    sweep = store.sweep

    async def swept(*args: Any, **options: Any) -> int:
        removed = await sweep(*args, **options)
        if not removed:
            sweeping.set()
        return removed

    other = make_agent("other", store=store, retention=0.0)
    store.sweep = swept  # type: ignore[method-assign]
    await soon(other.start())
    await soon(sweeping.wait())
    # Another process, which has forgotten that it gave the task, gives the same task again.
    again = make_agent("planner", store=MemoryStore())
    await soon(planner.stop())
    await soon(again.start())
    assert await soon(again.request("writer", task_id="t-1", data=1)) == "done"
    assert runs == ["t-1"]


class TestDeletedFiles:
    async def test_an_executor_acknowledges_nothing_when_its_file_is_gone(
        self, make_agent: MakeAgent, planner: Agent, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "tasks.db"
        writer = make_agent("writer", store=path)

        @writer.on_task
        async def handle(task: TaskContext) -> int:
            return task.data

        await soon(writer.start())
        assert await soon(planner.request("writer", data=1)) == 1
        away = tmp_path / "away"
        away.mkdir()
        for file in tmp_path.glob("tasks.db*"):
            file.rename(away / file.name)
        task = await soon(planner.delegate("writer", data=2))
        await until(lambda: told(caplog, "was deleted or moved while it was in use"))
        assert not task.done
        for file in away.glob("tasks.db*"):
            file.rename(tmp_path / file.name)
        assert await soon(task.result()) == 2
        await until(lambda: told(caplog, "works again after"))

    async def test_a_requester_is_told_that_its_file_is_gone(
        self, make_agent: MakeAgent, writer: Agent, tmp_path: Path
    ) -> None:
        path = tmp_path / "tasks.db"
        planner = make_agent("planner", store=path)
        await soon(planner.start())
        os.unlink(path)
        with pytest.raises(errors.StoreError, match="was deleted or moved while it was in use.*move the file back"):
            await soon(planner.delegate("writer", data=1))
