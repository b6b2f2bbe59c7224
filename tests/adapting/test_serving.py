"""``serve_*`` blocks, ``aserve_*`` is awaited, and what was awaited in version 0.1 can be awaited once more."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import warnings
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent import ToolServer
from mqtt_agent.adapting.serving import serve
from mqtt_agent.endpoints.running import only_imported
from support import soon, until

SCRIPT = """
import asyncio, os, signal, sys, warnings
from mqtt_agent import ToolServer
from mqtt_agent.adapting.serving import serve

warnings.simplefilter("error")
server = ToolServer("server", broker=sys.argv[1], namespace=sys.argv[2])
started = lambda: (print("started", flush=True), os.kill(os.getpid(), signal.SIGTERM))
how = sys.argv[3]
if how == "own":
    serve(server, "serve_tools", started)
elif how == "default":
    serve(server, "serve_tools")
else:
    warnings.simplefilter("default")
    asyncio.run(serve(server, "serve_tools", started))
print("over")
"""


def run(broker: Broker, namespace: str, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, broker.url, namespace, how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_script_is_blocked_until_a_signal_comes(broker: Broker, namespace: str) -> None:
    done = run(broker, namespace, "own")
    assert done.communicate(timeout=30) == ("started\nover\n", "")
    assert done.returncode == 0


def test_without_a_callback_a_line_says_what_is_served(broker: Broker, namespace: str) -> None:
    process = run(broker, namespace, "default")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "server" in line
    assert "Ctrl-C stops it" in line
    os.kill(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30) == ("over\n", "")
    assert process.returncode == 0


def test_asyncio_run_around_it_still_works_with_a_warning(broker: Broker, namespace: str) -> None:
    done = run(broker, namespace, "old")
    out, err = done.communicate(timeout=30)
    assert (out, done.returncode) == ("started\nover\n", 0)
    assert "DeprecationWarning: asyncio.run(serve_tools(...)) is called serve_tools(...) now" in err


async def test_awaited_in_an_event_loop_it_serves_with_a_warning(broker: Broker, namespace: str) -> None:
    server, started = ToolServer("server", broker=broker.url, namespace=namespace), asyncio.Event()
    with pytest.warns(DeprecationWarning, match=r"await serve_tools\(...\) is called await aserve_tools\(...\) now"):
        coroutine: Any = serve(server, "serve_tools", started.set)
    serving = asyncio.ensure_future(coroutine)
    await soon(started.wait())
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(serving)
    await until(lambda: not server.connection.connected)


async def test_a_program_that_is_only_imported_serves_nothing_and_leaves_no_coroutine_behind() -> None:
    server = ToolServer("server")
    importing = only_imported.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            serve(server, "serve_tools")
            gc.collect()
    finally:
        only_imported.reset(importing)
    assert not server.connection.started
