"""Names of version 0.1 that have changed: each works for one more version, with a warning that says the new name."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import Embedded
from crewai_mqtt_agent import MQTTToolkit, aserve_crew, serve_crew
from mqtt_agent import MemoryStore
from support import soon

HERE = Path(__file__).parent


async def test_the_tools_of_a_toolkit_can_be_had_under_the_old_names(toolkit: MQTTToolkit) -> None:
    with pytest.warns(DeprecationWarning, match=r"MQTTToolkit\.tools\(\) is called MQTTToolkit\.get_tools\(\) now"):
        old = {tool.name for tool in toolkit.tools()}
    with pytest.warns(DeprecationWarning, match=r"MQTTToolkit\.atools\(\) is called MQTTToolkit\.aget_tools\(\) now"):
        assert {tool.name for tool in await toolkit.atools()} == old
    assert {tool.name for tool in toolkit.get_tools()} == old


def make_nothing() -> None: ...


async def test_serving_is_awaited_under_a_name_of_its_own(embedded: Embedded, namespace: str) -> None:
    where = {"agent_id": "host", "broker": embedded.url, "namespace": namespace, "store": MemoryStore()}
    started = asyncio.Event()
    serving = asyncio.ensure_future(aserve_crew(make_nothing, on_started=started.set, **where))
    await soon(started.wait())
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(serving)
    with pytest.warns(DeprecationWarning, match=r"await serve_crew\(...\) is called await aserve_crew\(...\) now"):
        awaited = serve_crew(make_nothing, on_started=started.set, **where)
    awaited.close()  # type: ignore[attr-defined]


@pytest.mark.long
def test_the_command_line_takes_the_old_option(embedded: Embedded, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "crews.py").write_text("def make():\n    raise NotImplementedError\n")
    command = [sys.executable, "-W", "always", "-m", "crewai_mqtt_agent", "serve", "crews:make", "--agent-id", "host"]
    command += [
        "--broker",
        embedded.url,
        "--namespace",
        namespace,
        "--max-tasks",
        "2",
        "--store",
        str(tmp_path / "s.db"),
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = ""
        for line in process.stderr:
            told += line
            if "Ctrl-C stops it" in line:
                break
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
    assert "--max-tasks is called --max-concurrency now" in told
    assert "agent host takes tasks" in told
