"""Threads that a stopped process does not wait for, for code of handlers and frameworks that may block for ever."""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import queue
import threading
from collections.abc import Callable, Generator, MutableMapping
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from typing_extensions import ParamSpec

from mqtt_agent.aio.forks import in_child

__all__ = ["DaemonThreads", "left_at_exit"]

P = ParamSpec("P")
T = TypeVar("T")
_Work = tuple["Future[Any]", Callable[[], Any]]

_at_work: set[threading.Thread] = set()


@contextlib.contextmanager
def left_at_exit() -> Generator[None]:
    """In a daemon thread: at the exit of the process, wait for no thread that the code of the block has started.

    The threads of thread pools that the code has made are meant. They are daemon threads too, as the thread that made
    them, but Python waits for each thread of a pool.
    """
    thread = threading.current_thread()
    _at_work.add(thread)
    try:
        yield
    finally:
        _at_work.discard(thread)


class DaemonThreads(Executor):
    """An executor whose threads do not keep the process from exiting. It makes its threads when they are needed.

    Args:
        size: How many threads there are at most.
        name: The beginning of the threads' names, for debugging.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._guard = threading.Lock()
        self._count = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in one of the threads.

        Raises:
            RuntimeError: The executor is shut down.
        """
        future: Future[T] = Future()
        with self._guard:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.put((future, lambda: fn(*args, **kwargs)))
            if self._count < self._size and not self._idle.acquire(blocking=False):
                self._count += 1
                name = f"{self._name}_{self._count - 1}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after all functions that were submitted. This never waits for a thread."""
        with self._guard:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        if cancel_futures:
            with contextlib.suppress(queue.Empty):
                while (work := self._waiting.get_nowait()) is not None:
                    work[0].cancel()
            self._waiting.put(None)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            _run(*work)
            del work  # an idle thread keeps no result
            self._idle.release()
        self._waiting.put(None)  # for the next thread


def _run(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    with left_at_exit():
        try:
            result = function()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)


def _let_go() -> None:
    """Wait for no daemon thread of a pool, if code that may have made the pool still blocks.

    Python calls this when the process exits, before Python waits for the threads of all pools.
    """
    if not any(thread.is_alive() for thread in tuple(_at_work)):
        return
    waited_for: MutableMapping[threading.Thread, Any] = getattr(concurrent.futures.thread, "_threads_queues", {})
    for thread in list(waited_for):
        if thread.daemon:
            waited_for.pop(thread, None)


@in_child
def _forget() -> None:
    _at_work.clear()  # a forked process has none of the parent's threads


# Python has no public hook that runs before it waits for the pools. The import of concurrent.futures.thread above has
# registered Python's own hook; the hook that is registered last runs first.
_register: Callable[[Callable[[], None]], None] | None = getattr(threading, "_register_atexit", None)
if _register is not None:
    with contextlib.suppress(RuntimeError):  # the process exits already
        _register(_let_go)
