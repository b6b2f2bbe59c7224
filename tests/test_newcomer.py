"""The path of a newcomer, as README.md describes it: from a clone to the first call of a tool in another process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brokers import die_with_parent, free_port
from support import kill

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TWO_MINUTES = 120.0

pytestmark = pytest.mark.long


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone, with the two programs that the newcomer saves in it."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    for program, name in re.findall(r"```python\n(# (\w+\.py).*?)```", README, re.DOTALL):
        (tmp_path / "clone" / name).write_text(program)
    return tmp_path / "clone"


Start = Callable[[str, str], None]


@pytest.fixture
def start(clone: Path) -> Iterator[Start]:
    """Types a command in a terminal of its own, and waits until it has written a text."""
    started: list[subprocess.Popen[str]] = []

    def start(command: str, says: str) -> None:
        process = subprocess.Popen(
            ["sh", "-c", f". .venv/bin/activate; exec {command}"],
            cwd=clone,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=die_with_parent,
        )
        started.append(process)
        assert process.stdout is not None
        written = ""
        while says not in written:
            line = process.stdout.readline()
            assert line, written
            written += line

    yield start
    for process in started:
        kill(process)


@pytest.mark.timeout(300)
def test_from_a_clone_to_the_first_call_in_two_minutes(
    clone: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is missing")
    install, broker, uses = re.findall(r"```sh\n(.*?)```", README.partition("## First steps")[2], re.DOTALL)[:3]
    port = free_port()
    for name in [name for name in os.environ if name.startswith(("MQTT_AGENT_", "PYTEST_", "COV", "VIRTUAL_ENV"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MQTT_AGENT_BROKER", f"mqtt://127.0.0.1:{port}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    began = time.monotonic()
    subprocess.run(["sh", "-ec", install], cwd=clone, check=True, stdout=subprocess.DEVNULL)
    start(f"{broker.strip()} --port {port}", "the console is at")
    start("python weather_server.py", "serves forecast")
    call = next(line for line in uses.splitlines() if " call " in line)
    said = subprocess.run(
        ["sh", "-ec", f". .venv/bin/activate\n{call}"], cwd=clone, check=True, capture_output=True, text=True
    )
    assert json.loads(said.stdout) == {"city": "Oslo", "celsius": [21, 21]}
    assert time.monotonic() - began < TWO_MINUTES
    start("python traveller.py", "takes tasks")
    delegate = next(line for line in uses.splitlines() if " delegate " in line)
    start(delegate, "a T-shirt")
