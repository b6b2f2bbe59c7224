"""Gives an event loop enough threads for all handlers that run at once.

``asyncio.to_thread`` runs functions in the loop's default executor. Frameworks do the same with code that blocks: the
nodes of LangGraph, the functions of AutoGen. asyncio's own default executor has four threads more than the machine
has processors, and at most 32. So on a small machine only a few of the handlers would run at once.

A function that a handler runs there does not keep the process from exiting, when the handler was given up after
``drain_timeout``. Functions of the program's other code are completed first, as in asyncio's own executor.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from typing_extensions import ParamSpec

from mqtt_agent.aio.daemon_threads import DaemonThreads
from mqtt_agent.aio.handlers import in_handler

__all__ = ["release_threads", "reserve_threads"]

P = ParamSpec("P")
T = TypeVar("T")

_FOR_OTHER_CODE = min(32, (os.cpu_count() or 1) + 4)
"""How many threads the program's other code has: as many as in asyncio's own default executor."""


class _HandlerThreads(ThreadPoolExecutor):
    """A default executor. It makes its threads when they are needed.

    Args:
        reserved: How many threads each endpoint on the loop needs.
    """

    def __init__(self, reserved: dict[object, int]) -> None:
        self.reserved = reserved
        self.size = _FOR_OTHER_CODE + sum(reserved.values())
        super().__init__(self.size, thread_name_prefix="asyncio")
        self._of_handlers = DaemonThreads(self.size, "asyncio-handler")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread."""
        if in_handler():
            return self._of_handlers.submit(fn, *args, **kwargs)
        return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads. This waits for no function of a handler: the endpoint has waited for its handlers."""
        self._of_handlers.shutdown(cancel_futures=cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)


def reserve_threads(owner: object, count: int) -> None:
    """Let the default executor of the running event loop have ``count`` threads for the handlers of an endpoint.

    Nothing changes when the loop has a default executor that the program has set, or has used before.

    Args:
        owner: The endpoint, an agent or a tool server.
        count: How many handlers of the endpoint run at once.
    """
    loop = asyncio.get_running_loop()
    if not hasattr(loop, "_default_executor"):  # a loop such as uvloop's does not tell whether the program has set one
        return
    present = loop._default_executor  # pyright: ignore
    if present is None:
        loop.set_default_executor(_HandlerThreads({owner: count}))
    elif isinstance(present, _HandlerThreads):
        present.reserved[owner] = count
        wider = _HandlerThreads(present.reserved)
        if wider.size > present.size:
            loop.set_default_executor(wider)
            present.shutdown(wait=False)  # the functions that run or wait in it are still completed


def release_threads(owner: object) -> None:
    """Note that an endpoint on the running event loop has stopped."""
    present = getattr(asyncio.get_running_loop(), "_default_executor", None)
    if isinstance(present, _HandlerThreads):
        present.reserved.pop(owner, None)
