"""A served crew at a terminal asks no question there, and its first task does not wait for an answer."""

from __future__ import annotations

import http.server
import os
import pty
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent import Agent
from support import kill, soon, until

from .test_kills import PROGRAMS, Start, planner, start  # noqa: F401 # pyright: ignore

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


class Terminal:
    """A new user's terminal: nothing is configured, and each program believes that a person reads it."""

    def __init__(self, home: Path) -> None:
        self._user, self.tty = pty.openpty()
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        names = ("CREWAI_TRACING_ENABLED", "CREWAI_DISABLE_TRACKING", "CREWAI_TESTING")
        home.mkdir()
        self.settings: dict[str, Any] = {
            **dict.fromkeys(names),
            "HOME": str(home),
            "CREWAI_STORAGE_DIR": str(home / "storage"),
            "XDG_DATA_HOME": str(home),
        }

    def _read(self) -> None:
        try:
            while data := os.read(self._user, 4096):
                self.shown += data.decode(errors="replace")
        except OSError:
            return  # nobody has the terminal open any more

    def open(self, start: Start, namespace: str, what: str, **more: str) -> subprocess.Popen[bytes]:  # noqa: F811
        """Serve something of the programs in the terminal."""
        options = ["--agent-id", "host", "--namespace", namespace]
        pipes = {"stdin": self.tty, "stdout": self.tty, "stderr": self.tty}
        target = f"{PROGRAMS}:{what}"
        return start("crewai_mqtt_agent", "serve", target, *options, more={**self.settings, **more}, **pipes)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "home")


class Collector(http.server.BaseHTTPRequestHandler):
    """In place of the service that collects traces."""

    seen: list[str]

    def do_POST(self) -> None:
        self.seen.append(self.path)
        self.send_error(503)

    def do_GET(self) -> None:
        self.do_POST()


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    handler = type("Collector", (Collector,), {"seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler.seen
        server.shutdown()


@pytest.mark.parametrize("what", ["plain_crew", "ready_crew", "PlainFlow"])
async def test_the_first_task_of_a_new_user_is_done_without_a_question_about_traces(
    start: Start,  # noqa: F811
    planner: Agent,  # noqa: F811
    namespace: str,
    terminal: Terminal,
    what: str,
    collector: tuple[str, list[str]],
) -> None:
    host = terminal.open(start, namespace, what, READY="yes", CREWAI_PLUS_URL=collector[0])
    for _ in range(2):
        assert await soon(planner.request("host", "go", wait_online=True), 120) == "done"
    kill(host)
    assert "Ctrl-C stops it" in terminal.shown
    assert "traces" not in terminal.shown.lower()
    assert collector[1] == []


@pytest.mark.parametrize("how", ["the crew", "the environment"])
async def test_a_user_who_has_turned_traces_on_keeps_them_without_a_question(
    start: Start,  # noqa: F811
    planner: Agent,  # noqa: F811
    namespace: str,
    terminal: Terminal,
    how: str,
    collector: tuple[str, list[str]],
) -> None:
    what = "traced_crew" if how == "the crew" else "plain_crew"
    more = {} if how == "the crew" else {"CREWAI_TRACING_ENABLED": "true"}
    host = terminal.open(start, namespace, what, CREWAI_PLUS_URL=collector[0], **more)
    assert await soon(planner.request("host", "go", wait_online=True), 120) == "done"
    await until(lambda: collector[1], 30)
    kill(host)
    assert "[y/N]" not in terminal.shown
