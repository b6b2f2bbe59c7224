"""How the room for waiting tasks is shared, apart from agents and brokers."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from mqtt_agent.agents.executing import shares
from mqtt_agent.agents.executing.shares import Shares


@pytest.mark.parametrize(("most", "waiting", "counts"), [(10, 6, 50), (100_000, 60_000, 1)])
async def test_tasks_that_have_begun_meanwhile_do_not_fill_a_small_room(
    most: int, waiting: int, counts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = 0

    async def count_by_peer(*which: Any) -> dict[str, int]:
        nonlocal counted
        counted += 1
        return {"one": waiting // 2, "other": waiting // 2}

    scope: Any = SimpleNamespace(store=SimpleNamespace(count_by_peer=count_by_peer), owner="agent")
    clock = count(0, 1 / 64)
    monkeypatch.setattr(shares, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    room = Shares(scope, most)
    assert [await room.has_room("one", waiting) for _ in range(50)] == [True] * 50
    assert counted == counts
