"""Who gets a place when there are too few: what several clients ask one bridge or one `mqtt-agent mcp` to watch."""

from __future__ import annotations

from typing import Any

import pytest
from brokers import Broker
from mcp import Client, MCPError
from mcp_mqtt_agent import Face
from mcp_mqtt_agent.places import Places
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.tools import ServerRequest
from support import becomes, soon

from .conftest import MakeBridge, shows
from .test_changes import changing


def test_an_owner_with_fewer_places_gets_one_of_an_owner_with_more() -> None:
    places = Places[str](4)
    assert [places.take("greedy", f"g{n}") for n in range(5)] == [[], [], [], [], None]
    assert places.take("other", "g0") == []  # a place can be shared
    assert places.take("other", "o1") == ["g1"]  # not g0, which the other one has too
    assert places.take("other", "o2") is None  # three each, with the shared one
    assert places.take("greedy", "g1") is None
    assert places.take("third", "t1") == ["g2"]
    assert not places.leave("greedy", "g0")
    assert places.leave("other", "g0")
    assert places.take("greedy", "g1") == []
    places.drop("o1")
    assert sorted(places.taken()) == ["g1", "g3", "t1"]


def test_many_names_that_nothing_proves_take_no_place_of_a_proven_owner() -> None:
    places = Places[tuple[str, bool]](3, lambda owner: owner[1])
    assert [places.take((f"new-{n}", False), f"n{n}") for n in range(4)] == [[], [], [], None]
    assert [places.take(("known", True), f"k{n}") for n in range(4)] == [["n0"], ["n1"], ["n2"], None]
    assert places.take(("new", False), "n") is None
    assert places.take(("also-known", True), "a0") == ["k0"]


def test_names_that_share_all_places_use_up_none_of_another_owner() -> None:
    places = Places[tuple[str, bool]](3, lambda owner: owner[1])
    for name in ("one", "two"):
        assert [places.take((name, False), f"s{n}") for n in range(3)] == [[], [], []]
    assert places.take(("third", False), "t0") == ["s0"]
    assert places.take(("third", False), "t1") is None  # two each
    assert [places.take(("known", True), f"k{n}") for n in range(4)] == [["t0"], ["s1"], ["s2"], None]


def test_a_proven_owner_is_known_also_when_there_are_too_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_mqtt_agent.places._MOST_OWNERS", 2)
    places = Places[tuple[str, bool]](9, lambda owner: owner[1])
    assert [places.take((f"new-{n}", False), "n") for n in range(3)] == [[], [], None]
    assert [places.take((f"known-{n}", True), "k") for n in range(3)] == [[], ["n"], None]
    places.leave(("known-0", True), "k")
    assert places.take(("new", False), "alone") == []
    assert places.take(("known-2", True), "alone") == []  # its place changes its owner
    assert sorted(places.taken()) == ["alone", "k"]


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_one_mcp_client_cannot_use_up_all_subscriptions(
    client: ToolClient, mosquitto: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    monkeypatch.setattr("mcp_mqtt_agent.subscribing._MOST_URIS", 2)
    asked: list[list[str]] = []

    async def answer(request: ServerRequest) -> Any:
        if request.method == "resources/list":
            return {"resources": [{"uri": f"x:{name}", "name": name} for name in "abcd"]}
        asked.append(request.params["notifications"].get("resourceSubscriptions", []))
        return request.params

    server = ToolServer("notes", broker=mosquitto.url, namespace=namespace)
    server.answer_requests(answer, {"resources": {"subscribe": True}})
    face = Face(client)
    async with (
        server,
        face.live(),
        Client(face.server, mode="legacy") as greedy,
        Client(face.server, mode=mode) as peer,
    ):
        for name in "ab":
            await soon(greedy.session.subscribe_resource(f"x:{name}"), 20)
        with pytest.raises(MCPError, match="no server tells the changes"):
            await soon(greedy.session.subscribe_resource("x:c"), 20)
        if mode == "legacy":
            await soon(peer.session.subscribe_resource("x:d"), 20)
        else:
            stream = await soon(peer.listen(resource_subscriptions=["x:d"]).__aenter__(), 20)
            assert stream.honored.resource_subscriptions == ["x:d"]
        assert asked[-1] == ["x:b", "x:d"]


@pytest.mark.long
async def test_one_client_cannot_use_up_all_that_a_bridge_watches(
    make_bridge: MakeBridge, client: ToolClient, mosquitto: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_mqtt_agent.watching._MOST_URIS", 3)
    await make_bridge("notes", changing("2025"))
    await shows(client, "notes.die", "notes.touch")
    changes = client.watch_changes()
    assert [await soon(changes.subscribe("notes", f"a:{n}"), 20) for n in range(4)] == [True, True, True, False]
    async with ToolClient("other", broker=mosquitto.url, namespace=namespace) as other:
        assert await soon(other.watch_changes().subscribe("notes", "o:1"), 20)
        told = await soon(client.call("notes.touch"))
        assert ("o:1" in told, told.count("a:")) == (True, 2)
    changes.unsubscribe("notes", "a:0")  # this one has lost its place
    changes.unsubscribe("notes", "a:1")

    async def is_free() -> bool:
        return bool(await changes.subscribe("notes", "a:9"))

    await becomes(is_free, 20)  # what a client does not ask for any more is free at once
