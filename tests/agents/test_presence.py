"""What agents see of their peers: who is online, who is offline, and what changes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import Agent, MemoryStore, PeerChange, TaskContext, ToolServer
from mqtt_agent.endpoints import listing
from proxy import Proxy
from support import soon, until

from .conftest import MakeAgent

RUN_ON = ALL_BROKERS

PROGRAM = """
import asyncio, sys
from mqtt_agent import Agent, MemoryStore

async def main():
    async with Agent("writer", broker=sys.argv[1], namespace=sys.argv[2], store=MemoryStore(), will_delay=2):
        print("online", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Watcher:
    """The changes that a watcher of peers has got."""

    def __init__(self, agent: Agent) -> None:
        self.changes: list[tuple[str, str]] = []
        self._changes = agent.watch_peers()
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for change in self._changes:
            assert isinstance(change, PeerChange)
            self.changes.append((change.kind, change.name))

    def of(self, name: str) -> list[str]:
        """The kinds of the changes of one peer, without ``changed``."""
        return [kind for kind, each in self.changes if each == name and kind != "changed"]

    def stop(self) -> None:
        self._reading.cancel()


@pytest.fixture
async def watcher(planner: Agent) -> AsyncIterator[Watcher]:
    watcher = Watcher(planner)
    yield watcher
    watcher.stop()


async def start_process(broker: Broker, namespace: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, broker.url, namespace, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await soon(process.stdout.readline(), 20) == b"online\n"
    return process


@pytest.mark.rule("ONLINE-1")
async def test_a_killed_agent_is_offline_after_its_will_delay(
    broker: Broker, namespace: str, planner: Agent, watcher: Watcher
) -> None:
    process = await start_process(broker, namespace)
    await until(lambda: watcher.of("writer") == ["online"])
    killed = asyncio.get_running_loop().time()
    process.send_signal(signal.SIGKILL)
    await soon(process.wait())
    await until(lambda: watcher.of("writer") == ["online", "offline"])
    if broker.name != "embedded":  # its delay cannot be shortened
        assert asyncio.get_running_loop().time() - killed > 0.5, "a broker may count in whole seconds"
    assert await planner.peers() == []
    (card,) = await planner.peers(online_only=False)
    assert (card.name, card.status) == ("writer", "offline")


@pytest.mark.rule("ONLINE-1", "ONLINE-4", "STATUS-4")
async def test_a_blip_shorter_than_the_will_delay_changes_nothing(
    make_agent: MakeAgent, broker: Broker, planner: Agent, watcher: Watcher
) -> None:
    async with Proxy(broker.url) as proxy:
        writer = make_agent("writer", broker=proxy.url, will_delay=20)

        @writer.on_task
        async def handle(task: TaskContext) -> Any:
            return task.data

        await soon(writer.start())
        await until(lambda: watcher.of("writer") == ["online"])
        for turn in range(1, 4):
            proxy.drop()
            await until(lambda turn=turn: writer.connection.epoch == turn + 1 and writer.connection.connected)
        assert await soon(planner.request("writer", data=1, wait_online=True)) == 1
        assert watcher.of("writer") == ["online"]
        await soon(writer.stop())


@pytest.mark.rule("ONLINE-6")
async def test_an_agent_that_stops_is_offline_at_once_and_one_that_starts_online(
    make_agent: MakeAgent, planner: Agent, watcher: Watcher
) -> None:
    writer = make_agent("writer", will_delay=30)
    for turn in range(1, 4):
        await soon(writer.start())
        await until(lambda turn=turn: watcher.of("writer") == ["online", "offline"] * (turn - 1) + ["online"])
        assert [card.name for card in await planner.peers()] == ["writer"]
        await soon(writer.stop())
        await until(lambda turn=turn: watcher.of("writer") == ["online", "offline"] * turn)
        assert await planner.peers() == []


async def test_another_card_is_a_change(make_agent: MakeAgent, planner: Agent, watcher: Watcher) -> None:
    await soon(make_agent("writer").start())
    await until(lambda: watcher.of("writer") == ["online"])
    writer = make_agent("writer", capabilities=["prose"])
    await soon(writer.start())
    await until(lambda: ("changed", "writer") in watcher.changes)

    def has_it() -> bool:
        card = planner._peers.card("writer")
        return card is not None and card.capabilities == ["prose"]

    await until(has_it, 20)


async def test_peers_are_found_by_what_they_can_do(make_agent: MakeAgent, planner: Agent, watcher: Watcher) -> None:
    skill = {"id": "papers", "tags": ["science"]}
    await soon(make_agent("writer", capabilities=["prose"]).start())
    await soon(make_agent("reader", capabilities=["research"], skills=[skill]).start())
    await until(lambda: {name for _, name in watcher.changes} == {"writer", "reader"})
    assert [card.name for card in await planner.peers()] == ["reader", "writer"]
    assert [card.name for card in await planner.peers("prose")] == ["writer"]
    assert [card.name for card in await planner.peers(skill="papers")] == ["reader"]
    assert [card.name for card in await planner.peers(skill="science")] == ["reader"]
    assert await planner.peers("flight") == []
    assert await planner.peer("nobody") is None


async def test_a_hundred_starts_and_stops_leave_the_presence_right(
    make_agent: MakeAgent, planner: Agent, watcher: Watcher
) -> None:
    writer = make_agent("writer", store=MemoryStore(), drain_timeout=0)

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        return task.data

    for _ in range(99):
        await soon(writer.start())
        await soon(writer.stop())
    await soon(writer.start())
    await until(lambda: planner._peers.is_online("writer") and watcher.of("writer")[-1] == "online")
    assert await soon(planner.request("writer", data=1)) == 1
    told = watcher.of("writer")
    assert all(one != other for one, other in pairwise(told))
    await soon(writer.stop())
    await until(lambda: watcher.of("writer")[-1] == "offline")


async def test_an_agent_that_was_killed_and_started_again_sees_peers_and_tools(
    broker: Broker, namespace: str, make_agent: MakeAgent
) -> None:
    helper, server = make_agent("helper"), ToolServer("remote", namespace=namespace)
    server.add_tool("length", lambda text: len(text))
    await helper.serve_tools(server)
    await soon(helper.start())
    process = await start_process(broker, namespace)
    process.kill()
    await soon(process.wait())
    again = make_agent("writer")
    await soon(again.start())
    assert again.connection.session_present
    assert [card.name for card in await soon(again.peers())] == ["helper"]
    assert [card.tool for card in await soon(again.tool_client.list_tools())] == ["length"]


async def test_an_agent_follows_all_others_only_for_a_while_after_a_listing(
    make_agent: MakeAgent, planner: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_LISTED_FOR", 0.05)
    followed, other = make_agent("followed"), make_agent("other")
    await soon(followed.start())
    await soon(other.start())
    assert await soon(planner.peer("followed")) is not None
    assert [card.name for card in await soon(planner.peers())] == ["followed", "other"]
    await until(lambda: not planner._peers.is_known("other"))
    assert planner._peers.is_online("followed")
    await soon(followed.stop())
    await until(lambda: not planner._peers.is_online("followed"))
    assert [card.name for card in await soon(planner.peers())] == ["other"]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[listing.Listing]:
    """Listings could end after a moment. Returns which listing could have ended, each time."""
    could_end, end = list[listing.Listing](), listing.Listing._end

    def note(self: listing.Listing) -> None:
        end(self)
        could_end.append(self)

    monkeypatch.setattr(listing, "_LISTED_FOR", 0.02)
    monkeypatch.setattr(listing.Listing, "_end", note)
    return could_end


async def test_while_all_agents_are_watched_the_changes_of_all_are_told(
    ends: list[listing.Listing], make_agent: MakeAgent, planner: Agent, watcher: Watcher
) -> None:
    for name in ("writer", "reader"):
        await soon(make_agent(name).start())
        await until(lambda name=name: watcher.of(name) == ["online"])
    ends.clear()
    await until(lambda: ends.count(planner._peers._listing) > 2)  # the listing goes on
    await soon(make_agent("editor").start())
    await until(lambda: watcher.of("editor") == ["online"])


async def test_one_agent_can_be_watched(make_agent: MakeAgent, planner: Agent) -> None:
    changes = planner.watch_peers("writer")
    await soon(make_agent("reader").start())
    writer = make_agent("writer")
    await soon(writer.start())
    assert (await soon(anext(changes))).name == "writer"
    await soon(writer.stop())
    kinds = [(await soon(anext(changes))).kind]
    while kinds[-1] != "offline":
        kinds.append((await soon(anext(changes))).kind)
    assert "offline" in kinds


async def test_an_agent_without_wildcards_gives_tasks_to_a_peer_that_it_names(
    make_agent: MakeAgent, planner: Agent
) -> None:
    writer = make_agent("writer")

    @writer.on_task
    async def echo(task: TaskContext) -> str | None:
        return task.prompt

    await soon(writer.start())
    assert await soon(planner.request("writer", "hello")) == "hello"
    assert not planner._peers._listing.active


async def test_a_name_that_nobody_has_is_not_followed(make_agent: MakeAgent, planner: Agent) -> None:
    for number in range(3):
        assert await soon(planner.peer(f"nobody-{number}")) is None
    await until(lambda: not planner._peers._retained._leaving)
    assert not planner._peers._wanted
    await soon(make_agent("writer").start())
    assert await soon(planner.peer("writer")) is not None
    assert list(planner._peers._wanted) == ["writer"]


async def test_a_peer_is_seen_although_a_listing_has_taken_all_places(make_agent: MakeAgent) -> None:
    for name in ("a", "b", "c"):
        await soon(make_agent(name).start())
    planner = make_agent("planner", max_peers=1)
    await soon(planner.start())
    assert len(await soon(planner.peers())) <= 1
    assert [await soon(planner.peer(name)) is not None for name in ("a", "b", "c")] == [True] * 3
