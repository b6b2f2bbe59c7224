"""Servers in their own processes: interrupted, terminated, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest
from brokers import ALL_BROKERS, Broker
from brokers.rough import breaks
from mqtt_agent import ToolClient
from mqtt_agent.errors import ToolUnavailable
from support import becomes, soon, until

from .conftest import MakeClient, Spawn

RUN_ON = ALL_BROKERS


async def online(client: ToolClient, count: int) -> None:
    async def all_there() -> bool:
        serving = [tool.tool for tool in await client.list_tools()]
        return len(await client.list_servers()) == count and bool(serving) == bool(count)

    await becomes(all_there, 60)  # processes start slowly on a busy machine


async def ended(process: subprocess.Popen[bytes]) -> int:
    return await soon(asyncio.to_thread(process.wait, 20), 20)


@pytest.mark.rule("PRES-7")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stopped_server_marks_its_cards_offline_before_it_goes(
    number: signal.Signals, spawn: Spawn, make_client: MakeClient
) -> None:
    process = spawn("a", will_delay=60)
    client = await make_client()
    await online(client, 1)
    process.send_signal(number)
    await online(client, 0)
    assert await ended(process) == 0
    assert {card.status for card in await client.list_tools(online_only=False)} == {"offline"}
    with pytest.raises(ToolUnavailable, match="offline"):
        await client.call("who")


@pytest.mark.rule("PRES-10")
async def test_a_stopped_server_finishes_what_it_runs(spawn: Spawn, make_client: MakeClient) -> None:
    process = spawn("a")
    client = await make_client()
    await online(client, 1)
    handle = await client.submit("slow", {"seconds": 0.5})
    partials = handle.partials()
    await soon(partials.__anext__())
    process.send_signal(signal.SIGTERM)
    assert await soon(handle.result()) == process.pid
    assert await ended(process) == 0


@pytest.mark.rule("PRES-1", "LOST-4")
async def test_a_killed_server_is_shown_offline_and_its_calls_end(spawn: Spawn, make_client: MakeClient) -> None:
    process = spawn("a")
    client = await make_client()
    await online(client, 1)
    handle = await client.submit("hang")
    assert await soon(handle.partials().__anext__()) == {"pid": process.pid}
    process.kill()
    with pytest.raises(ToolUnavailable, match="went offline") as caught:
        await soon(handle.result())
    assert caught.value.maybe_executed
    assert await client.list_servers() == []


@pytest.mark.rule("LOST-3", "LOST-4")
async def test_a_replica_that_was_started_again_under_its_name_and_is_killed_is_shown_offline(
    spawn: Spawn, make_client: MakeClient
) -> None:
    client = await make_client()
    first = spawn("a")
    await online(client, 1)
    first.terminate()
    assert await ended(first) == 0
    await online(client, 0)
    second = spawn("a")
    await online(client, 1)
    second.kill()
    await online(client, 0)


async def test_calls_go_on_at_the_other_replica_when_one_is_killed(
    broker: Broker, spawn: Spawn, make_client: MakeClient
) -> None:
    processes = {process.pid: process for process in (spawn("a"), spawn("b"))}
    client = await make_client()
    await online(client, 2)
    pids = {(await soon(client.call("who")))["pid"] for _ in range(20)}
    assert pids == set(processes) or not broker.shared_subscriptions

    repeatable = await client.submit(
        "slow_but_repeatable", {"seconds": 2}
    )  # longer than the caller needs to learn of the loss
    once = await client.submit("hang")
    victim = (await soon(repeatable.partials().__anext__()))["pid"]
    holder = (await soon(once.partials().__anext__()))["pid"]
    os.kill(victim, signal.SIGKILL)
    await online(client, 1)
    [survivor] = set(processes) - {victim}
    ran_at = await soon(repeatable.result())
    assert ran_at in (survivor, victim)
    assert repeatable.attempt == (2 if ran_at == survivor else 1)
    if holder == victim:
        with pytest.raises(ToolUnavailable) as caught:
            await soon(once.result())
        assert caught.value.maybe_executed
    else:
        await once.cancel()


@pytest.mark.rule("CALL-13", "SESSION-8", "LOST-4")
async def test_a_replica_with_a_name_takes_up_its_calls_after_a_crash(
    broker: Broker, spawn: Spawn, make_client: MakeClient
) -> None:
    first = spawn("fixed", will_delay=120)
    client = await make_client()
    await online(client, 1)
    handle = await client.submit("slow", {"seconds": 0.3})
    assert await soon(handle.partials().__anext__()) == {"pid": first.pid}
    first.kill()
    first.wait(10)
    second = spawn("fixed", will_delay=120)
    if not broker.keeps_shared_messages:
        with pytest.raises(ToolUnavailable) as caught:
            await soon(handle.result(), 20)
        assert caught.value.maybe_executed
        return
    assert await soon(handle.result(), 20) == second.pid
    # The caller may have been away when the new process came, and have found its response first.
    assert handle.attempt == 2 or breaks()
    await until(lambda: handle.server == "remote:fixed")
