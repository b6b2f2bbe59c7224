"""A served crew that is stopped while its code blocks: the process ends soon, and its task continues later."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent import Agent
from skips import inapplicable
from support import soon, until

from .test_kills import PROGRAMS, Start, planner, start  # noqa: F401 # pyright: ignore
from .test_places import notes

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

ENDS_WITHIN = 15.0
"""Seconds: one of the drain timeout, two for canceled handlers, and the rest for a busy machine."""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["model", "tools", "limit", "flow"])
async def test_a_stopped_host_whose_code_blocks_ends_with_status_0_and_its_task_continues_later(
    start: Start,  # noqa: F811
    planner: Agent,  # noqa: F811
    tmp_path: Path,
    where: str,
    stop: signal.Signals,
) -> None:
    if stop == signal.SIGINT and where != "model":
        inapplicable("the signal makes no difference")
    what = "flow" if where == "flow" else "crew"
    host = start(PROGRAMS, "stuck", what)
    data: Any = {"where": where}
    handle = await soon(planner.delegate("host", data=data, wait_online=True))
    begun = {"tools": ["tools 1", "tools 1"], "flow": ["flow"]}.get(where, [f"{where} 1"])
    await until(lambda: notes(tmp_path) == begun, 90)
    host.send_signal(stop)
    assert await asyncio.to_thread(host.wait, ENDS_WITHIN) == 0
    assert notes(tmp_path) == [*begun, "after serving"]
    (tmp_path / "open").touch()
    start(PROGRAMS, "stuck", what)
    assert "result 2" in (result := await soon(handle.result(), 90)) or result == "flowed"
    assert handle.attempt == 2
