"""A bad network between the brokers of a test and all their clients: it delays, splits, stops, breaks and loses bytes.

Each test that docs/guarantees.md names also runs behind each network of :data:`NETWORKS`. While a test has a bad
network, the ``url`` of every broker leads through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import Self

_T = TypeVar("_T")

PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"
_TEST = re.compile(r"`(test_\w+)`")
NAMED: frozenset[str] = frozenset(_TEST.findall(PAGE.read_text(encoding="utf-8")))
"""The tests that docs/guarantees.md names."""
_BEHIND_NONE: frozenset[str] = frozenset(
    {
        "test_a_broker_that_restarts_loses_no_task_and_runs_none_twice",
        "test_a_call_that_runs_while_its_graph_is_killed_runs_once",
        "test_a_change_that_was_made_although_the_store_failed_counts",
        "test_a_checkpoint_waits_until_a_lock_is_gone",
        "test_a_content_goes_on_after_the_broker_was_killed",
        "test_a_content_of_a_killed_replica_is_lost_with_a_clear_error_in_the_middle",
        "test_a_content_of_a_killed_replica_with_a_directory_is_read_to_its_end_after_the_restart",
        "test_a_cut_that_nobody_notices_runs_no_call_twice",
        "test_a_killed_one_is_replaced_and_only_what_may_not_run_twice_fails",
        "test_a_named_replica_that_comes_back_at_once_has_its_early_calls_told",
        "test_a_requester_killed_in_any_window_gets_its_one_result",
        "test_a_result_that_was_stored_and_not_sent_is_sent_by_the_next_process",
        "test_a_result_whose_requester_is_killed_before_it_is_stored_is_delivered_again_by_the_broker",
        "test_a_save_that_was_interrupted_goes_on_after_its_last_byte",
        "test_a_server_keeps_a_bounded_number_of_contents_and_bytes_for_a_while",
        "test_a_server_without_the_rule_is_told_and_marked",
        "test_a_task_whose_executor_is_killed_before_it_is_stored_is_delivered_again_by_the_broker",
        "test_an_executor_killed_in_any_window_does_its_task_and_sends_one_result",
        "test_each_task_has_one_right_result_after_a_storm",
        "test_nothing_that_returned_is_lost_when_the_database_is_killed_in_the_middle",
        "test_of_two_claims_at_once_one_is_withdrawn",
        "test_repeatable_calls_that_were_acknowledged_early_are_sent_to_the_new_process",
        "test_tasks_go_on_while_the_database_is_killed_and_each_result_arrives_once",
        "test_tasks_that_the_broker_drops_are_done",
        "test_the_broker_is_restarted_and_keeps_its_state",
        "test_the_content_of_a_killed_caller_is_dropped_after_a_while",
        "test_the_message_that_costs_the_connection_three_times_is_given_up_and_the_others_arrive",
    }
)
"""The tests of these that run behind no network: they have no broker, or have not been seen to pass there."""
_NOT_BEHIND: dict[str, frozenset[str]] = {
    "slow": frozenset(
        {
            "test_who_was_away_for_longer_stands_by_when_it_is_back",
        }
    ),
    "breaking": frozenset(
        {
            "test_a_call_that_expires_while_it_waits_is_not_run_and_not_answered",
            "test_a_call_that_goes_to_a_dead_session_ends_long_before_its_deadline",
            "test_a_full_disk_is_told_once_and_so_is_its_end",
            "test_a_killed_executor_runs_its_task_again_from_what_it_saved",
            "test_a_replica_with_a_name_takes_up_its_calls_after_a_crash",
            "test_during_a_rolling_deployment_each_call_reaches_a_replica_that_it_fits",
            "test_no_call_fails_while_the_one_that_serves_is_stopped",
            "test_of_servers_that_start_in_the_same_moment_exactly_one_serves",
            "test_the_callers_network_breaks",
            "test_the_network_of_a_replica_is_cut",
        }
    ),
}
"""The same for one network. A network that breaks changes the attempts, log lines or seconds that some tests count."""
QUICK: frozenset[tuple[str, str]] = frozenset(
    {
        ("test_an_unknown_tool_is_unavailable_at_once", "slow"),
        ("test_an_unknown_tool_is_unavailable_at_once", "breaking"),
    }
)
"""The tests behind a network that run in `make test`; the others take long."""
NOT_YET: dict[str, set[str]] = {
    "row 4": {"slow"},
    "row 5": {"slow"},
    "row 7": set(),
    "its network, the server's network or the broker is away for a while": set(),
    "the server is killed": set(),
    "the same, with a fixed replica name and a directory for contents": set(),
    "the caller is killed": set(),
    "the server drops the content, or its file changes": set(),
    "servers of several names start in the same moment": {"slow"},
    "a server that does not know the rule serves the tool too": set(),
    "replicas of one server name have different schemas": {"slow"},
    "the executor is killed during the task": {"slow"},
    "the executor is killed after the result is stored and before it is sent": set(),
    "the PostgreSQL database of a store is killed and comes back": set(),
    "a store makes a change, but reports an error": set(),
    "requester or executor is killed at any point between two writes": set(),
    "a process is killed before it has stored a task or a result that has arrived": set(),
    "all these faults at random": set(),
}
"""The rows that have no test behind some networks, with the networks behind which they have one."""


def rows() -> dict[str, list[str]]:
    """The rows of docs/guarantees.md, each with the tests that show it.

    These are the numbered rows of its first table, whose tests are in the numbered list below the table, and all rows
    of tables with the last column "shown by".
    """
    found: dict[str, list[str]] = {}
    text = PAGE.read_text(encoding="utf-8")
    for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE):
        told = re.search(rf"^{number}\. (.*?)(?=^\d+\. |^#)", text, re.MULTILINE | re.DOTALL)
        found[f"row {number}"] = _TEST.findall(told.group(1)) if told else []
    for table in re.findall(r"^\|.*\| shown by \|\n\|[-|]*\|\n((?:\|.*\n)+)", text, re.MULTILINE):
        for line in table.splitlines():
            what, *_, shown = line.strip("| ").split(" | ")
            found[what] = _TEST.findall(shown)
    return found


async def _slow(proxy: Any) -> None:
    """Bytes come late, the first ones alone, and all bytes stop again and again for up to 0.3 s."""
    proxy.delay, proxy.single = 0.001, 3
    while True:
        await asyncio.sleep(random.uniform(0.2, 2))  # seconds between two stops
        proxy.hold()
        await asyncio.sleep(random.uniform(0, 0.3))  # seconds of a stop
        proxy.release()


async def _breaking(proxy: Any) -> None:
    """After some bytes, one connection is reset within a packet, or all connections lose everything and are then reset.

    The breaks become rarer, because a client waits twice as long after each connection that breaks at once.
    """
    proxy.spares_connects = True
    pause = 0.3
    while True:
        up = random.random() < 0.5
        if random.random() < 0.7:
            proxy.reset_after(random.randint(1, 2000), up=up)
            await proxy.broken()
        else:
            proxy.lose_after(random.randint(1, 2000), up=up)
            await proxy.broken()
            await asyncio.sleep(random.uniform(0, 0.3))  # seconds for which nobody notices
            proxy.find_again()
        await asyncio.sleep(pause)
        pause = min(6.0, 2 * pause)  # after 5 s, a client's waits begin with the shortest again


NETWORKS: dict[str, Callable[[Any], Awaitable[None]]] = {"slow": _slow, "breaking": _breaking}
"""The bad networks, each with what it does to the connections to one broker."""


def networks_of(test: str) -> list[str]:
    """The bad networks behind which a test also runs."""
    if test not in NAMED or test in _BEHIND_NONE:
        return []
    return [name for name in NETWORKS if test not in _NOT_BEHIND[name]]


class BadNetwork:
    """Proxies in a thread of their own, one for each broker.

    Args:
        name: One of :data:`NETWORKS`.
    """

    def __init__(self, name: str) -> None:
        self._trouble = NETWORKS[name]
        self._proxies: dict[str, Any] = {}
        self._troubles: list[Any] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"{name} network", daemon=True)

    @property
    def used(self) -> bool:
        """Whether a connection went through the network."""
        return any(proxy.connections for proxy in self._proxies.values())

    def through(self, url: str) -> str:
        """The URL that leads through the network to ``url``."""
        if url not in self._proxies:
            from proxy import Proxy  # which imports this package

            proxy = self._proxies[url] = Proxy(url)
            self._do(proxy.mend())
            self._troubles.append(asyncio.run_coroutine_threadsafe(self._make_trouble(proxy), self._loop))
        return self._proxies[url].url

    def around(self, url: str) -> str:
        """The URL of the broker to which ``url`` leads through the network."""
        return next((target for target, proxy in self._proxies.items() if proxy.url == url), url)

    async def _make_trouble(self, proxy: Any) -> None:
        await self._trouble(proxy)

    def _do(self, what: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for trouble in self._troubles:
            trouble.cancel()
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        for proxy in self._proxies.values():
            proxy.release()
            await proxy.cut()


_current: BadNetwork | None = None


@contextlib.contextmanager
def behind(name: str) -> Iterator[BadNetwork]:
    """Put a bad network between all brokers and their clients."""
    global _current
    with BadNetwork(name) as network:
        _current = network
        try:
            yield network
        finally:
            _current = None


def through(url: str) -> str:
    """The URL that clients use for a broker: through the bad network of the test, if it has one."""
    return url if _current is None else _current.through(url)


def around(url: str) -> str:
    """The URL for a client that only measures what happens: around the bad network of the test."""
    return url if _current is None else _current.around(url)
